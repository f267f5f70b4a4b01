"""report.md -> report.pdf, beside it; two pages at most.

    python tools/typeset.py

Pandoc reads the Markdown and the HTML in it, Typst sets it. A paragraph of pictures is as wide as the text (or as they
say), and the paragraph after it is their caption; the caption of a table is before it and begins with "Table" in bold.
"""

import argparse
import re
from pathlib import Path

import pypandoc
import typst

STYLE = r"""
#set page("a4", margin: (x: 20mm, y: 15mm), numbering: "1 / 1")
#set text(10pt, font: "Libertinus Serif", lang: "en", region: "gb")
#set par(justify: true, leading: 0.56em, spacing: 0.8em)
#set figure(numbering: none) // captions have their own numbers
#set image(width: 100%, fit: "contain")
#show image: it => layout(area => if it.width.length > area.width { image(it.source) } else { it }) // as on GitHub
#show heading: set block(above: 1.1em, below: 0.65em)
#show link: set text(rgb("#0072B2"))
#set table(stroke: none, inset: (x: 0.4em, y: 0.26em))
#show figure.where(kind: table): set block(breakable: true)
#show table: it => layout(area => block(breakable: measure(it, width: area.width).height > 0.9 * area.height, {
  set text(number-width: "tabular"); set par(justify: false); it })) // breaks only where it is as long as a page
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
    source = pypandoc.convert_text(html, "typst", format="html", extra_args=["--wrap=none"])
    return STYLE + re.sub(r"(?m)^(#strong\[Table .*)", r"#block(width: 100%, spacing: 0.8em, sticky: true)[\1]", source)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("report", nargs="?", type=Path, default=Path(__file__).parent.parent / "report.md")
    report = flags.parse_args().report
    try:
        source = to_typst(report.read_text(encoding="utf-8")).encode()
        pdf, warnings = typst.compile_with_warnings(source, root=report.parent, pdf_standards="a-2b")
        report.with_suffix(".pdf").write_bytes(pdf)
    except (OSError, UnicodeError, typst.TypstError) as error:  # PDF/A refuses a letter that no font has
        hint = ": install a font that has the letter (Noto Sans CJK, say)" if "with font" in str(error) else ""
        flags.exit(2, f"error: {report}: {error}{hint}\n")
    for warning in warnings:
        print(f"warning: {': '.join([warning.message, *warning.hints])}")
    print(f"wrote {report.with_suffix('.pdf')}")


if __name__ == "__main__":
    main()
