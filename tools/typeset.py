"""What is handed in: report.md becomes report.pdf, two pages at most; with --submission, submission.zip has it all.

    python -m tools.typeset
    python -m tools.typeset --submission

Pandoc reads the Markdown and Typst sets it; both come with requirements-dev.txt.
"""

import json
import re
import sys
import zipfile
from pathlib import Path

import pypandoc
import typst

import cli
from data import UserError
from results import save

PAGES = 2
PACKED = ("report.pdf", "*.md", "*.py", "*.txt", "*.toml", "Makefile", "data/MNIST/raw/*",
          "experiments/*.py", "tools/*.py", "tests/*.py", "plots/*.png", "results/*.json*")
PICTURE = re.compile(r'<img src="([^"]+)" width="(\d+%)" alt="([^"]+)">\n?')
FIGURE = re.compile(rf"((?:{PICTURE.pattern})+)\n(\*\*Figure \d+\.\*\* (?:.+\n?)+)")
PARTICIPANTS = "_name, student number; name, student number_"  # as report.md comes

STYLE = r"""
#set document(title: "Report", date: none)
#set page("a4", margin: (x: 20mm, y: 15mm), numbering: "1 / 1")
#set text(10pt, font: "Libertinus Serif", lang: "en", region: "gb")
#set par(justify: true, leading: 0.56em, spacing: 0.8em)
#set table(stroke: none, inset: (x: 0.7em, y: 0.33em))
#show heading: set block(above: 1.1em, below: 0.65em)
#show heading.where(level: 1): set text(16pt)
#show heading.where(level: 2): set text(11pt)
#show raw: set text(1.25em) // undoes Typst's 0.8em: code is as large as text
#show link: set text(rgb("#0072B2"))
#show regex("[\d.,]+ %"): box // no line begins with the sign
#show table: set text(9pt, number-width: "tabular")
#let horizontalrule = line(length: 100%, stroke: 0.5pt)
#let pictures(..images, caption) = block(breakable: false, above: 0.8em, below: 1em)[
  #images.pos().join(h(1fr))
  #set text(9pt)
  #caption
]
"""


def typeset(report: str, folder: Path) -> bytes:
    """The PDF of a report in Markdown whose pictures lie in `folder`. Raises UserError for a page too many."""
    report = re.sub(r"<!--.*?-->", "", report, flags=re.DOTALL)
    body = pypandoc.convert_text(FIGURE.sub(place, report), "typst-smart", format="gfm+smart+raw_attribute",
                                 extra_args=["--wrap=none", "--columns=9999"])
    source = (STYLE + body + "\n#context [#metadata(counter(page).final().first()) <pages>]").encode()
    try:
        pages = json.loads(typst.query(source, "<pages>", field="value", one=True, root=folder))
        if pages > PAGES:
            raise UserError(f"report.md fills {pages} pages, {PAGES} are allowed: shorten it or narrow its pictures")
        return typst.compile(source, format="pdf", root=folder, ignore_system_fonts=True)
    except RuntimeError as error:
        raise UserError(f"report.md cannot be typeset: {' '.join(str(error).split())}") from None


def place(figure: re.Match) -> str:
    """Pictures side by side above their caption, which stays Markdown."""
    boxes = [f"box(width: {width}, image({json.dumps('/' + name)}, width: 100%, alt: {json.dumps(description)}))"
             for name, width, description in PICTURE.findall(figure[1])]
    return f"```{{=typst}}\n#pictures({', '.join(boxes)})[\n```\n\n{figure[5]}\n\n```{{=typst}}\n]\n```\n"


def pack(folder: Path, target: Path) -> None:
    """The zip archive of report, code, data and results as they stand in `folder`."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for pattern in PACKED:
            for path in sorted(folder.glob(pattern)):
                archive.write(path, path.relative_to(folder))
    unfinished.replace(target)


def main():
    flags = cli.parser(__doc__, loads_mnist=False)
    flags.add_argument("--submission", action="store_true", help="also pack everything into submission.zip")
    args = cli.parse(flags)
    try:
        report = (args.out / "report.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {args.out / 'report.md'} ({error}): give its folder with --out") from None
    save({args.out / "report.pdf": typeset(report, args.out)})
    print("wrote report.pdf")
    if args.submission:
        if PARTICIPANTS in report:
            print("warning: the participants' line of report.md is not filled in yet", file=sys.stderr)
        pack(args.out, args.out / "submission.zip")
        print("wrote submission.zip")


if __name__ == "__main__":
    cli.run(main)
