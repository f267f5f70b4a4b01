"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import os
import runpy
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT
from matplotlib.image import imsave


@pytest.fixture
def folder(tmp_path):
    """The tools, a square picture and an older PDF, in a folder that git does not know."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "plots").mkdir()
    imsave(tmp_path / "plots" / "a.png", [[0, 1], [1, 0]])
    (tmp_path / "report.pdf").write_text("my own")
    return tmp_path


def run(folder, tool, report):
    (folder / "report.md").write_text(report, encoding="utf-8")
    os.utime(folder / "report.md", (1e9, 1e9))
    done = subprocess.run([sys.executable, folder / "tools" / tool], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_html_and_formulas_are_set_as_on_github(folder):
    report = "8·10<sup>-3</sup>, H<sub>0</sub> <!-- comment -->, $A \\cap B$, $a \\odot b$.[^1]\n\n[^1]: A note."
    source = runpy.run_path(str(ROOT / "tools" / "typeset.py"))["to_typst"](report)
    assert all(part in source for part in ("#super[", "#sub[0]", "$A sect B$", "#footnote[A note.]"))
    assert "comment -->" not in source and run(folder, "typeset.py", report)[0] == 0


def test_pictures_of_half_the_width_stand_side_by_side(folder):
    pair = '<img src="plots/a.png" width="49%"> <img src="plots/a.png" width="49%">'
    report = f'{pair}\n\n<p align="center">{pair}</p>\n\n' * 2  # one below the other they are three pages
    assert run(folder, "typeset.py", report)[::2] == (0, "") and (folder / "report.pdf").read_bytes()[:4] == b"%PDF"


@pytest.mark.parametrize("report, named", [("A letter that no font has: \U0010fffd", "10fffd"),
                                           ("![](plots/no.png)", "no.png"), ("![](plots/a.png)\n\n" * 3, "3 pages")])
def test_what_cannot_be_set_is_named_and_the_older_pdf_kept(folder, report, named):
    status, _, stderr = run(folder, "typeset.py", report)
    assert status == 2 and named in stderr and stderr.count("\n") == 1
    assert (folder / "report.pdf").read_text() == "my own"


@pytest.mark.parametrize("pdf, plot, older", [(1.5e9, 1e9, False), (1.5e9, 2e9, True), (0, 0, True)])
def test_a_pdf_older_than_the_report_or_a_plot_is_packed_and_named(folder, pdf, plot, older):
    os.utime(folder / "report.pdf", (pdf, pdf))
    os.utime(folder / "plots" / "a.png", (plot, plot))
    status, stdout, _ = run(folder, "submission.py", "![A](data:image/png;base64,AAAA)")
    assert status == 0 and ("report.pdf is older" in stdout) == older and (folder / "submission.zip").exists()


def test_the_archive_has_a_pdf_and_nothing_hidden_installed_or_a_checkpoint(folder):
    there = {"report.md", "tools/typeset.py", "plots/a.png", "data/MNIST/raw/images", "my notes/übung.ipynb"}
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
