"""The project's folder -> submission.zip, in it: all but hidden files, environments, checkpoints and caches.

    python tools/submission.py
"""

import argparse
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
ARCHIVE = ROOT / "submission.zip"


def pack(folder, archive):
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in ("checkpoints", "__pycache__") or path == ARCHIVE:
            continue
        if path.is_file():
            archive.write(path, path.relative_to(ROOT))
        elif path.is_symlink():
            print(f"not packed: {path.relative_to(ROOT)}, a link to a folder or to nothing")
        elif not (path / "pyvenv.cfg").exists() and not (path / "conda-meta").exists():
            pack(path, archive)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.parse_args()
    report, pdf, unfinished = ROOT / "report.md", ROOT / "report.pdf", ROOT / ".submission.zip.unfinished"
    if not pdf.is_file():
        flags.exit(2, "error: report.pdf is missing: run `make report` (tools/typeset.py), or export your own\n")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            pack(ROOT, archive)
        unfinished.replace(ARCHIVE)
    except (OSError, UnicodeError) as error:
        flags.exit(2, f"error: {error}\n")
    print(f"wrote {ARCHIVE} ({ARCHIVE.stat().st_size / 1e6:.1f} MB)")
    if any(path.stat().st_mtime > pdf.stat().st_mtime for path in [*ROOT.glob("report.md"), *ROOT.glob("plots/[!.]*")]):
        print("report.pdf is older than report.md or a file in plots/: run `make report`, or export your own again")
    if report.exists() and "_name, student number" in report.read_text(encoding="utf-8", errors="replace"):
        print("the participants' names are still missing in report.md")


if __name__ == "__main__":
    main()
