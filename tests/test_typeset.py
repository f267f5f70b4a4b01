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


@pytest.mark.parametrize("tool, blocked", [("typeset.py", "report.pdf"), ("submission.py", "submission.zip")])
def test_a_folder_in_the_way_is_one_line(folder, tool, blocked):
    (folder / blocked).unlink(missing_ok=True)
    (folder / blocked).mkdir()
    status, _, stderr = run(folder, tool, "A report.")
    assert status == 2 and blocked in stderr and stderr.count("\n") == 1 and not list(folder.glob(".*"))


@pytest.mark.parametrize("report, made", [("![A](plots/a.png)", 1.5e9), ('<img width="9" src="plots/a.png">', 1.5e9),
                                          ("A report.", 0)])
def test_a_pdf_older_than_what_it_shows_is_refused(folder, report, made):
    os.utime(folder / "plots" / "a.png", (2e9, 2e9))
    os.utime(folder / "report.pdf", (made, made))
    status, _, stderr = run(folder, "submission.py", report)
    assert status == 2 and "make report" in stderr and not (folder / "submission.zip").exists()


def test_the_archive_has_what_is_not_hidden_installed_or_a_checkpoint(folder):
    there = {"report.md", "tools/typeset.py", "plots/a.png", "data/MNIST/raw/images", "my notes/übung.ipynb"}
    absent = {".git/config", "my notes/.ipynb_checkpoints/a", "env/pyvenv.cfg", "env/lib/a.py", "few/checkpoints/a.pt",
              "conda/conda-meta/history", "conda/lib/a.py", "tools/__pycache__/typeset.pyc"}
    for name in there | absent:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "gone.png").symlink_to("nowhere.png")
    for _ in range(2):  # the second archive does not contain the first
        status, stdout, _ = run(folder, "submission.py", "_name, student number_")
    assert status == 0 and all(part in stdout for part in ("not packed: gone.png", " MB)", "names are still missing"))
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        names = set(archive.namelist())
        assert archive.read("report.pdf") == b"my own"
    assert there <= names and not names & (absent | {"submission.zip", "gone.png"})
    (folder / "report.pdf").unlink()
    assert "report.pdf is missing" in run(folder, "submission.py", "")[2]
