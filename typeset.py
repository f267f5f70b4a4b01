"""What is handed in: report.md becomes report.pdf and, with --submission, everything becomes submission.zip.

    python typeset.py
    python typeset.py --submission

A report of more than two pages is refused, and so is a picture whose smallest text would print under 6 points. Pandoc
reads the Markdown and Typst sets it; both come with requirements-dev.txt.
"""

from errors import Parser, UserError  # first: from here on Ctrl-C is one line, in the slow imports too

import io
import json
import re
import sys
import zipfile
from pathlib import Path

import matplotlib
from PIL import Image

from runs import save

try:
    import pypandoc
    import typst
except ImportError as error:
    raise UserError(f"typesetting needs {error.name}: pip install -r requirements-dev.txt") from None

PAGES, POINTS = 2, 6  # at most, at least
TEXT_WIDTH = 170  # mm: A4 less two margins of 20
PACKED = ("*.py", "Makefile", "README.md", "report.md", "requirements*.txt", "plots/*.png", "results/*", "tests/**/*.py")
PICTURE = r'<img src="([^"]+)" width="(\d+)%" alt="([^"]+)">'
FIGURE = re.compile(rf"^((?:{PICTURE}\s*)+)\n\s*\n(\*\*Figure \d+\.\*\* (?:.+\n?)+)", re.MULTILINE)
TABLE = re.compile(r"^(\*\*Table \d+\.\*\* (?:.+\n?)+)", re.MULTILINE)
HTML = re.compile(r"!\[|</?[a-z](?![a-z]*:)[^>@]*>", re.IGNORECASE)  # but not <https://...> nor <me@home>
PARTICIPANTS = re.compile(r"^\*\*Participants:\*\* (?!.*name, student number).*\w", re.MULTILINE)

STYLE = r"""
#set document(title: TITLE, date: none)
#set page("a4", margin: (x: 20mm, y: 16mm), numbering: "1 / 1")
#set text(10pt, font: "Libertinus Serif", lang: "en", region: "gb")
#set par(justify: true, leading: 0.58em, spacing: 0.85em)
#set place(clearance: 1.2em)
#set table(stroke: none, inset: (x: 0.7em, y: 0.33em))
#set table.hline(stroke: 0.5pt)
#show heading: set block(above: 1.3em, below: 0.75em)
#show heading.where(level: 1): set text(16pt)
#show heading.where(level: 2): set text(11pt)
#show raw: set text(1.25em, font: ("cmtt10", "DejaVu Sans Mono")) // undoes Typst's 0.8em: code is as large as text
#show link: set text(rgb("#0072B2"))
#show footnote.entry: set text(9pt)
#show regex("[\d.,]+ %"): box // no line begins with the sign
#show table: set text(9pt, number-width: "tabular")
#show table: set par(justify: false)
#show table: set align(start) // not centred for standing in a centred block
#show table: it => block(stroke: (y: 0.8pt), it)
#let horizontalrule = line(length: 100%, stroke: 0.5pt)
#let small(body) = align(center, block(align(left, text(9pt, body)))) // one line is centred, more are justified
#show figure.caption: it => small(it.body)
#let pictures(..images, body) = context figure(
  images.pos().join(h(1fr)), caption: body, numbering: none,
  placement: if here().page() == 1 { bottom } else { auto }, // not above the title
)
#let legend(body) = block(sticky: true, width: 100%, above: 1.2em, below: 0.6em, small(body))
"""


def typeset(report: str, folder: Path) -> bytes:
    """The PDF of a report in Markdown whose pictures lie in `folder`; UserError where it breaks a rule."""
    report = re.sub(r"<!--.*?-->", "", report, flags=re.DOTALL)  # the markers around numbers too
    title = re.search(r"^# (.+)", report, re.MULTILINE)
    report = FIGURE.sub(lambda match: _call(f"pictures({_pictures(match[1], folder)})", match[5]), report)
    report = TABLE.sub(lambda match: _call("legend", match[1]), report)
    if stray := HTML.search(re.sub(r"`[^`]*`", "", report)):
        raise UserError(f'report.md: {stray[0]} would be lost. <img src="plots/x.png" width="49%" alt="what it shows">, '
                        "once or more, is a paragraph, the next begins with **Figure 1.**; no other HTML is typeset")
    options = {"root": folder, "ignore_system_fonts": True,  # the same everywhere; matplotlib brings the typewriter face
               "font_paths": [Path(matplotlib.get_data_path(), "fonts/ttf")]}
    try:
        body = pypandoc.convert_text(report, "typst-smart", format="gfm+smart+raw_attribute",
                                     extra_args=["--wrap=none", "--columns=9999"])  # columns: tables as wide as they need
        source = (STYLE.replace("TITLE", _string(title[1] if title else "Report")) + body
                  + "\n#context [#metadata(counter(page).final().first()) <pages>]").encode()
        pages = json.loads(typst.query(source, "<pages>", field="value", one=True, **options))
        if pages > PAGES:
            raise UserError(f"report.md fills {pages} pages, {PAGES} are allowed: shorten it or narrow its pictures")
        return typst.compile(source, format="pdf", **options)
    except (RuntimeError, OSError) as error:
        raise UserError(f"report.md cannot be typeset: {error}") from error


def pack(folder: Path, pdf: bytes) -> bytes:
    """The zip archive of code, results and report as they stand in the folder; the same bytes for the same files."""
    files = {"report.pdf": pdf}
    for pattern in PACKED:
        found = [path for path in folder.glob(pattern) if path.is_file() and not path.name.startswith(".")]
        if not found:
            raise UserError(f"there is no {pattern} in {folder.resolve()} to hand in: `make` and README.md make all of it")
        files |= {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # dated 1980
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same from Windows
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def _pictures(images: str, folder: Path) -> str:
    """Typst's boxes for <img>s. What a picture's text measures was noted by runs.to_png when it was drawn."""
    boxes = []
    for name, percent, description in re.findall(PICTURE, images):
        drawn_by = next((script.name for script in sorted(Path(__file__).parent.glob("*.py"))
                         if name in script.read_text(encoding="utf-8")), "the script that draws it")
        try:
            with Image.open(folder / name) as picture:
                points, inches = float(picture.info["Smallest text"]), picture.width / picture.info["dpi"][0]
        except (OSError, KeyError):
            raise UserError(f"{name} is missing, damaged or from an older version: run {drawn_by} again") from None
        points *= int(percent) / 100 * TEXT_WIDTH / 25.4 / inches
        if round(points, 2) < POINTS:
            raise UserError(f"{name} at width {percent}% has text of {points:.2f} points, under {POINTS}: widen it in "
                            f"report.md, or draw it smaller or with larger text in plotting.py and run {drawn_by} again")
        boxes.append(f'box(width: {percent}%, image({_string("/" + name)}, width: 100%, alt: {_string(description)}))')
    return ", ".join(boxes)


def _call(function: str, text: str) -> str:
    """Markdown that calls a function of STYLE with Markdown text."""
    return f"```{{=typst}}\n#{function}[\n```\n\n{text}\n\n```{{=typst}}\n]\n```\n"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def main():
    flags = Parser(__doc__)
    flags.add_argument("--out", default=".", metavar="DIR",
                       help="report.md and plots/ are there, report.pdf goes there (default: this folder)")
    flags.add_argument("--submission", action="store_true", help="also pack DIR into submission.zip")
    args = flags.parse_args()
    folder = Path(args.out)
    try:
        report = (folder / "report.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read report.md in {folder.resolve()} ({error}): give its folder with --out") from None
    files = {"report.pdf": typeset(report, folder)}
    if args.submission:
        files["submission.zip"] = pack(folder, files["report.pdf"])
        if not PARTICIPANTS.search(report):
            print("warning: the participants' line of report.md is not filled in yet", file=sys.stderr)
    save(folder, files)
    print("wrote " + ", ".join(f"{name} ({len(content) / 1000:,.0f} kB)" for name, content in files.items()))


if __name__ == "__main__":
    main()
