"""report.md -> report.pdf, beside it; two pages at most.

    python tools/typeset.py

Pandoc reads the Markdown, HTML in it too (html.lua), and Typst sets it; both come with requirements-dev.txt. A picture
is a paragraph of its own, as wide as the text, and the paragraph after it is its caption. Where the text font lacks a
letter (in a Chinese name), a font of this machine has to have it.
"""

import argparse
import sys
from pathlib import Path

import pypandoc
import typst

STYLE = r"""
#set document(title: "Report", date: none)
#set page("a4", margin: (x: 20mm, y: 15mm), numbering: "1 / 1")
#set text(10pt, font: "Libertinus Serif", lang: "en", region: "gb")
#set par(justify: true, leading: 0.56em, spacing: 0.8em)
#set table(stroke: none, inset: (x: 0.7em, y: 0.26em))
#set image(width: 100%)
#show heading: set block(above: 1.1em, below: 0.65em)
#show heading.where(level: 1): set text(16pt)
#show heading.where(level: 2): set text(11pt)
#show raw: set text(1.25em) // undoes Typst's 0.8em: code is as large as text
#show link: set text(rgb("#0072B2"))
#show table: set text(9pt, number-width: "tabular")
#show " %": "\u{a0}%" // no line begins with the sign
#show box: it => block(width: 100%, sticky: true, align(center, it.body)) // a picture stays with its caption
#let horizontalrule = line(length: 100%, stroke: 0.5pt)
#context assert(counter(page).final().first() <= 2, message: "more than two pages: shorten it")
"""


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("report", nargs="?", type=Path, default=Path(__file__).parent.parent / "report.md",
                       help="the Markdown file (default: the project's report.md)")
    report = flags.parse_args().report
    body = pypandoc.convert_text(report.read_text(encoding="utf-8"), "typst", format="gfm",
                                 extra_args=["--wrap=none", "--lua-filter", str(Path(__file__).with_name("html.lua"))])
    try:
        pdf = typst.compile((STYLE + body).encode(), root=report.parent)
    except typst.TypstError as error:
        print(f"error: {report}: {error}", file=sys.stderr)
        sys.exit(2)
    report.with_suffix(".pdf").write_bytes(pdf)
    print(f"wrote {report.with_suffix('.pdf')}")


if __name__ == "__main__":
    main()
