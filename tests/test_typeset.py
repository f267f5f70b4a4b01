"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


@pytest.fixture
def folder(tmp_path):
    """The report, its figures and the tools, in a folder that git does not know."""
    shutil.copy(ROOT / "report.md", tmp_path)
    for name in ("plots", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(folder, tool):
    done = subprocess.run([sys.executable, folder / "tools" / tool], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_the_report_is_two_pages_and_a_third_is_refused(folder):
    report, pdf = folder / "report.md", folder / "report.pdf"
    status, _, stderr = run(folder, "typeset.py")
    assert (status, stderr) == (0, "") and pdf.read_bytes().startswith(b"%PDF")
    pdf.unlink()
    report.write_text(report.read_text(encoding="utf-8") + "\nA paragraph.\n" * 40, encoding="utf-8")
    status, _, stderr = run(folder, "typeset.py")
    assert status == 2 and "more than two pages" in stderr and not pdf.exists()


@pytest.mark.parametrize("html", ['<img src="plots/{}" width="50%">', '<p align="center"><img src="plots/{}"></p>',
                                  'A picture <img src="plots/{}"> in a sentence.'])
def test_pictures_in_html_are_in_the_pdf(folder, html):
    (folder / "report.md").write_text(f"# Title <!-- a comment -->\n\n{html.format('times.png')}\n", encoding="utf-8")
    assert run(folder, "typeset.py")[0] == 0 and b"/Image" in (folder / "report.pdf").read_bytes()
    (folder / "report.md").write_text(html.format("typo.png"), encoding="utf-8")
    status, _, stderr = run(folder, "typeset.py")
    assert status == 2 and "typo.png" in stderr


def test_the_archive_has_what_lies_in_the_folder_but_what_is_hidden_installed_or_a_checkpoint(folder):
    there = {"report.md", "tools/typeset.py", "plots/times.png", "data/MNIST/raw/images", "my notes/übung.ipynb"}
    absent = {".git/config", "my notes/.ipynb_checkpoints/a", "env/pyvenv.cfg", "env/lib/a.py",
              "few/checkpoints/base.pt", "tools/__pycache__/typeset.pyc"}
    for name in (there | absent):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert "report.pdf is missing" in run(folder, "submission.py")[2] and not (folder / "submission.zip").exists()
    (folder / "report.pdf").touch()
    for _ in range(2):  # the second archive does not contain the first
        status, stdout, _ = run(folder, "submission.py")
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        names = set(archive.namelist())
    assert status == 0 and there <= names and not names & absent and "submission.zip" not in names
    assert " MB)" in stdout and "names are still missing" in stdout
    (folder / "report.md").write_text("**Participants:** 王小明", encoding="utf-8")
    assert "older than report.md" in run(folder, "submission.py")[2]
    (folder / "report.pdf").touch()
    assert "missing" not in run(folder, "submission.py")[1]
