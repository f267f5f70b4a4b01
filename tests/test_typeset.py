"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import shutil
import subprocess
import sys

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
