"""report.md -> report.pdf, beside it; two pages at most.

    python tools/typeset.py

Pandoc reads the Markdown and the HTML in it, and Typst sets it; both come with requirements-dev.txt. Pictures in a
paragraph of their own are as wide as the text (or as they say), and the paragraph after them is their caption. Where
the text font lacks a letter (in a Chinese name), a font of this machine has to have it.
"""

import argparse
from pathlib import Path

import pypandoc
import typst

STYLE = r"""
#set document(title: "Report")
#set page("a4", margin: (x: 20mm, y: 15mm), numbering: "1 / 1")
#set text(10pt, font: "Libertinus Serif", lang: "en", region: "gb")
#set par(justify: true, leading: 0.56em, spacing: 0.8em)
#set table(stroke: none, inset: (x: 0.7em, y: 0.26em))
#set image(width: 100%, fit: "contain")
#show image: it => layout(area => if it.width.length > area.width { image(it.source) } else { it }) // as on GitHub
#show heading: set block(above: 1.1em, below: 0.65em)
#show heading.where(level: 1): set text(16pt)
#show heading.where(level: 2): set text(11pt)
#show raw: set text(1.25em) // undoes Typst's 0.8em: code is as large as text
#show link: set text(rgb("#0072B2"))
#show table: set text(9pt, number-width: "tabular")
#show " %": "\u{a0}%" // no line begins with the sign
#show par: it => if it.body.at("children", default: (it.body,)).all(part => part.func() in (box, [ ].func())) {
  block(width: 100%, sticky: true, align(center, it.body)) // pictures stay with their caption
} else { it }
#let horizontalrule = line(length: 100%, stroke: 0.5pt)
#context assert(counter(page).final().first() <= 2, message: str(counter(page).final().first()) + " pages: two at most")
"""


def to_typst(markdown):
    """Markdown with HTML in it -> Typst's source, by way of HTML: directly, Pandoc would leave the HTML out."""
    html = pypandoc.convert_text(markdown, "html", format="gfm", extra_args=["--mathml"])
    return STYLE + pypandoc.convert_text(html, "typst", format="html", extra_args=["--wrap=none"])


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("report", nargs="?", type=Path, default=Path(__file__).parent.parent / "report.md",
                       help="the Markdown file (default: the project's report.md)")
    report = flags.parse_args().report
    try:
        source = to_typst(report.read_text(encoding="utf-8")).encode()
        pdf = typst.compile(source, root=report.parent, pdf_standards="a-2b")  # PDF/A refuses a letter without a font
        report.with_suffix(".pdf").write_bytes(pdf)
    except (OSError, UnicodeError, typst.TypstError) as error:
        flags.exit(2, f"error: {report}: {error}\n")
    print(f"wrote {report.with_suffix('.pdf')}")


if __name__ == "__main__":
    main()
