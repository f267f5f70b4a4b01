"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile

import pytest
import typst
from conftest import ROOT

to_typst = runpy.run_path(str(ROOT / "tools" / "typeset.py"))["to_typst"]
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><foreignObject>A label.</foreignObject></svg>'


@pytest.fixture
def folder(tmp_path):
    """The tools, a square drawing and an older PDF, in a folder that git does not know."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "a.svg").write_text(DRAWING)
    (tmp_path / "report.pdf").write_text("my own")
    return tmp_path


def run(folder, tool, report):
    (folder / "report.md").write_text(report, encoding="utf-8")
    os.utime(folder / "report.md", (1e9, 1e9))
    done = subprocess.run([sys.executable, folder / "tools" / tool], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_html_and_formulas_are_set_as_on_github():
    source = to_typst("10<sup>-3</sup>, H<sub>0</sub> <!-- aside -->, $A \\cap B$, $a \\odot b$.[^1]\n\n[^1]: A note.")
    assert all(part in source for part in ("#super[", "#sub[0]", "$A sect B$", "#footnote[A note.]"))
    assert "aside -->" not in source and typst.compile(source.encode())


def test_captions_stay_with_their_table_and_keep_their_own_number(folder):
    figure = '<figure><img src="plots/a.svg" width="9"><figcaption>Figure 7: A</figcaption></figure>\n\n'
    table = "**Table 1.** Fits on the first page, the table does not.\n\n| a |\n|---|\n" + "| 1 |\n" * 40
    source = to_typst(figure + "A line.\n\n" * 30 + table) + """
        #context assert.eq((strong, table).map(it => query(it).first().location().page()), (2, 2))
        #context assert(query(figure).all(it => it.numbering == none))"""
    typst.compile(source.encode(), root=folder)


def test_pictures_stand_side_by_side_and_lost_labels_are_a_warning(folder):
    pair = '<img src="plots/a.svg" width="49%"> <img src="plots/a.svg" width="49%">'
    report = f'{pair}\n\n<p align="center">{pair}</p>\n\n' * 2  # one below the other they are three pages
    status, stdout, _ = run(folder, "typeset.py", report)
    assert status == 0 and "foreign object" in stdout and (folder / "report.pdf").read_bytes()[:4] == b"%PDF"


@pytest.mark.parametrize("report, named", [("A letter that no font has: \U0010fffd", "install a font"),
                                           ("![](plots/no.png)", "no.png"), ("![](plots/a.svg)\n\n" * 3, "3 pages"),
                                           ("| table |\n|---|\n" + "| row |\n" * 150, "3 pages")])
def test_what_cannot_be_set_is_named_and_the_older_pdf_kept(folder, report, named):
    status, _, stderr = run(folder, "typeset.py", report)
    assert status == 2 and named in stderr and stderr.count("\n") == 1
    assert (folder / "report.pdf").read_text() == "my own"


@pytest.mark.parametrize("pdf, plot, older", [(1.5e9, 1e9, False), (1.5e9, 2e9, True), (0, 0, True)])
def test_a_pdf_older_than_the_report_or_a_plot_is_packed_and_named(folder, pdf, plot, older):
    os.utime(folder / "report.pdf", (pdf, pdf))
    os.utime(folder / "plots" / "a.svg", (plot, plot))
    status, stdout, _ = run(folder, "submission.py", "![A](data:image/png;base64,AAAA)")
    assert status == 0 and ("report.pdf is older" in stdout) == older and (folder / "submission.zip").exists()


def test_the_archive_has_a_pdf_and_nothing_hidden_installed_or_a_checkpoint(folder):
    there = {"report.md", "tools/typeset.py", "plots/a.svg", "data/MNIST/raw/images", "my notes/übung.ipynb"}
    absent = {".git/config", "my notes/.ipynb_checkpoints/a", "env/pyvenv.cfg", "env/lib/a.py", "few/checkpoints/a.pt",
              "conda/conda-meta/history", "conda/lib/a.py", "tools/__pycache__/typeset.pyc", "submission.zip"}
    for name in there | absent:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert "names are still missing" in run(folder, "submission.py", "_name, student number_")[1]
    names = set(zipfile.ZipFile(folder / "submission.zip").namelist())
    assert there | {"report.pdf"} <= names and not names & absent
    (folder / "report.pdf").unlink()
    status, _, stderr = run(folder, "submission.py", "")
    assert status == 2 and "report.pdf is missing" in stderr and stderr.count("\n") == 1
