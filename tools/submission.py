"""The project's folder -> submission.zip, in it: all but hidden files, environments, checkpoints and caches.

    python tools/submission.py
"""

import argparse
import re
import zipfile
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).parent.parent
ARCHIVE = ROOT / "submission.zip"
PICTURE = r"""(?s)(?:!\[.*?\]\(|<img[^>]*\ssrc=)["'<]?([^"'<>)]+)"""  # its address, in Markdown or in HTML


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
    try:
        text = report.read_text(encoding="utf-8", errors="replace") if report.exists() else ""
        sources = [report, *(ROOT / unquote(address.strip()) for address in re.findall(PICTURE, text))]
        if not pdf.is_file() or any(path.stat().st_mtime > pdf.stat().st_mtime for path in sources if path.exists()):
            flags.exit(2, "error: report.pdf is missing, or older than report.md or a figure in it: "
                          "run `make report` (tools/typeset.py), or export your own again\n")
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            pack(ROOT, archive)
        unfinished.replace(ARCHIVE)
    except (OSError, UnicodeError) as error:
        flags.exit(2, f"error: {error}\n")
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"wrote {ARCHIVE} ({ARCHIVE.stat().st_size / 1e6:.1f} MB)")
    if "_name, student number" in text:
        print("the participants' names are still missing in report.md")


if __name__ == "__main__":
    main()
