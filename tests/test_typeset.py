"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT


@pytest.fixture
def folder(tmp_path):
    """The report and its figures."""
    shutil.copy(ROOT / "report.md", tmp_path)
    shutil.copytree(ROOT / "plots", tmp_path / "plots")
    return tmp_path


def typeset(report):
    done = subprocess.run([sys.executable, ROOT / "tools" / "typeset.py", report], capture_output=True, text=True)
    return done.returncode, done.stderr


def test_the_report_is_two_pages_and_a_third_is_refused(folder):
    report = folder / "report.md"
    assert typeset(report) == (0, "")
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    (folder / "report.pdf").unlink()
    report.write_text(report.read_text(encoding="utf-8") + "\nA paragraph.\n" * 200, encoding="utf-8")
    status, stderr = typeset(report)
    assert status == 2 and "more than two pages" in stderr and not (folder / "report.pdf").exists()


def test_the_archive_has_files_in_their_folders_and_no_caches(folder):
    """`make submission` with changes that are not committed, in a folder that git does not know."""
    for name in ("Makefile", "README.md", "requirements.txt", "pyproject.toml", "data.py"):
        shutil.copy(ROOT / name, folder)
    for path in ("data/MNIST/raw/images", "experiments/study.py", "experiments/__pycache__/study.pyc", "results/a.json",
                 "tests/test_a.py", "tools/typeset.py", "checkpoints/base.pt", "tools/__pycache__/typeset.pyc"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("something")
    shutil.copy(ROOT / "tools" / "typeset.py", folder / "tools")
    done = subprocess.run(["make", "-o", ".venv/dev", f"PY={sys.executable}", "submission"], cwd=folder,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    assert {"report.pdf", "report.md", "Makefile", "data.py", "data/MNIST/raw/images", "experiments/study.py",
            "results/a.json", "tools/typeset.py", "plots/times.png"} <= names
    assert not any("__pycache__" in name or name.startswith("checkpoints") for name in names)
