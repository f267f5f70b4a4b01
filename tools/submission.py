"""The project's folder -> submission.zip, in it: all but hidden files, environments, checkpoints and caches.

    python tools/submission.py
"""

import argparse
import os
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHIVE = ROOT / "submission.zip"


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.parse_args()
    report, pdf = ROOT / "report.md", ROOT / "report.pdf"
    if not pdf.exists() or pdf.stat().st_mtime < report.stat().st_mtime:
        flags.error("report.pdf is missing or older than report.md: run tools/typeset.py first")
    unfinished = ROOT / ".submission.zip.unfinished"
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [name for name in folders if not name.startswith(".") and name not in
                          ("checkpoints", "__pycache__") and not Path(folder, name, "pyvenv.cfg").exists()]
            for path in (Path(folder, name) for name in files if not name.startswith(".")):
                if path != ARCHIVE:
                    archive.write(path, path.relative_to(ROOT))
    unfinished.replace(ARCHIVE)
    print(f"wrote {ARCHIVE} ({ARCHIVE.stat().st_size / 1e6:.1f} MB)")
    if "_name, student number" in report.read_text(encoding="utf-8"):
        print("the participants' names are still missing in report.md")


if __name__ == "__main__":
    main()
