"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

from tools import typeset


@pytest.fixture
def folder(tmp_path):
    """What the archive is made from, without the large files."""
    for pattern in ("*.md", "*.py", "*.txt", "*.toml", "Makefile"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, tmp_path)
    for name in ("plots", "results", "experiments", "tools", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", tmp_path / "data")
    return tmp_path


def test_the_report_is_two_pages_and_the_archive_runs_after_unpacking(run, folder, tmp_path_factory):
    status, stdout, stderr = run("tools.typeset", "--submission", "--out", folder)
    assert status == 0, stderr
    filled = typeset.PARTICIPANTS not in (ROOT / "report.md").read_text(encoding="utf-8")
    assert filled or "participants" in stderr
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        archive.extractall(unpacked)
    assert not list(unpacked.rglob("*.pt")) and not list(unpacked.rglob("*.gz"))
    done = subprocess.run([sys.executable, "train_fresh.py", "--epochs", "1", "--batch-size", "1024"], cwd=unpacked,
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "test accuracy" in done.stdout, done.stderr


def test_a_third_page_is_refused(run, folder):
    (folder / "report.md").write_text((ROOT / "report.md").read_text(encoding="utf-8") + "\nA long paragraph.\n" * 200,
                                       encoding="utf-8")
    status, _, stderr = run("tools.typeset", "--out", folder)
    assert status == 2 and "pages, 2 are allowed" in stderr and not (folder / "report.pdf").exists()
