"""The hand-in: a PDF of at most two pages, and an archive that runs where it is unpacked."""

import shutil
import zipfile

import pytest
from conftest import ROOT, start

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
    assert (unpacked / "data" / "MNIST" / "raw" / "train-images-idx3-ubyte").stat().st_size == 47_040_016
    process = start("compare.py", cwd=unpacked)
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0 and "| fine-tuned | 7-9 |" in stdout, stderr


def test_a_third_page_is_refused(run, folder):
    (folder / "report.md").write_text((ROOT / "report.md").read_text(encoding="utf-8") + "\nA long paragraph.\n" * 200,
                                       encoding="utf-8")
    status, _, stderr = run("tools.typeset", "--out", folder)
    assert status == 2 and "pages, 2 are allowed" in stderr and not (folder / "report.pdf").exists()
