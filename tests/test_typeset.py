"""report.md becomes two pages that print well and keep every number; what is handed in is whole and nothing else."""

import io
import re
import subprocess
import sys
import zipfile

import pytest
from matplotlib.figure import Figure

import plotting  # noqa: F401  the style that all figures have
from conftest import ROOT, run
from errors import UserError
from runs import to_png

pytest.importorskip("pypandoc", reason="typesetting needs requirements-dev.txt")
pytest.importorskip("typst", reason="typesetting needs requirements-dev.txt")
pdfium = pytest.importorskip("pypdfium2", reason="looking into a PDF needs requirements-dev.txt")

from typeset import PARTICIPANTS, TEXT_WIDTH, main, pack, typeset  # noqa: E402

REPORT = """# What the digits 0-6 teach

<!-- a note to oneself -->

**Participants:** _name, student number; name, student number_

Accuracy is <!--=acc-->99.67 %<!--/-->, and `requires_grad` isn't "all" of LeNet-5's.

## 1 The first

**Table 1.** A table, in *few* words.

<!--=table-->

| model | errors |
|---|---|
| fresh | <!--=errors-->11 of 3,011<!--/--> |

<!--/-->

<img src="plots/left.png" width="49%" alt="what the left shows">
<img src="plots/right.png" width="49%" alt="what the right shows">

**Figure 1.** Left and
right.
"""
MM = 72 / 25.4  # points


def drawing(points=9, width=3.1):
    """A figure whose only text has that many points."""
    figure = Figure(figsize=(width, 1.5))
    figure.text(0.5, 0.5, "text", fontsize=points)
    return figure


@pytest.fixture
def folder(tmp_path):
    """A report with two pictures, and around it what a project's folder holds."""
    for name in ("plots", "results", "tests/__pycache__", "data", "checkpoints", ".venv"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("left", "right"):
        (tmp_path / "plots" / f"{name}.png").write_bytes(to_png(drawing()))
    (tmp_path / "report.md").write_text(REPORT, encoding="utf-8")
    for name in ("model.py", "Makefile", "README.md", "requirements.txt", "results/base.json", "tests/test_model.py",
                 "tests/__pycache__/test_model.pyc", "data/train", "checkpoints/base.pt", ".venv/python.py", "notes"):
        (tmp_path / name).write_text(name)
    return tmp_path


def text_of(pdf):
    return " ".join("".join(page.get_textpage().get_text_bounded() for page in pdf).split())


def test_every_word_and_number_is_there_and_no_marker(folder):
    pdf = pdfium.PdfDocument(typeset(REPORT, folder))
    text = text_of(pdf)
    for part in ("Accuracy is 99.67 %, and requires_grad isn’t “all” of LeNet-5’s.", "Table 1. A table, in few words.",
                 "fresh 11 of 3,011", "Figure 1. Left and right.", "1 / 1"):
        assert part in text
    assert "<!--" not in text and "acc" not in text and "note" not in text
    assert pdf.get_metadata_dict()["Title"] == "What the digits 0-6 teach"


def test_text_is_as_large_as_the_assignment_wants(folder):
    (page,) = pdfium.PdfDocument(typeset(REPORT, folder))
    sizes = {}
    for item in page.get_objects(filter=[pdfium.raw.FPDF_PAGEOBJ_TEXT], textpage=page.get_textpage()):
        size = item.get_font_size() * abs(item.get_matrix().d)
        sizes.setdefault(round(size, 2), []).append(item.extract())
    assert set(sizes) == {9, 10, 11, 16}  # tables and captions, text and code, headings, title
    assert "Accuracy" in "".join(sizes[10]) and "requires_grad" in "".join(sizes[10])


def test_two_images_of_a_paragraph_stand_side_by_side(folder):
    (page,) = pdfium.PdfDocument(typeset(REPORT, folder))
    left, right = sorted(item.get_bounds() for item in page.get_objects(filter=[pdfium.raw.FPDF_PAGEOBJ_IMAGE]))
    assert left[1::2] == pytest.approx(right[1::2])  # bottom and top
    assert left[2] < right[0]
    assert left[2] - left[0] == pytest.approx(0.49 * TEXT_WIDTH * MM) == right[2] - right[0]
    assert (left[0], right[2]) == pytest.approx((20 * MM, (20 + TEXT_WIDTH) * MM))


def test_no_picture_stands_above_the_title(folder):
    (page,) = pdfium.PdfDocument(typeset("# Title\n\n" + REPORT[REPORT.index("<img"):], folder))
    objects = {item.type: item.get_bounds() for item in reversed(list(page.get_objects()))}  # the first of each type
    title, picture = objects[pdfium.raw.FPDF_PAGEOBJ_TEXT], objects[pdfium.raw.FPDF_PAGEOBJ_IMAGE]
    assert picture[3] < title[1]


def test_the_same_report_gives_the_same_bytes(folder):
    assert typeset(REPORT, folder) == typeset(REPORT, folder)


def test_more_than_two_pages_are_refused_and_the_old_pdf_stays(folder):
    (folder / "report.md").write_text(REPORT + 100 * ("\n" + 50 * "word " + "\n"), encoding="utf-8")
    (folder / "report.pdf").write_text("old")
    done = run("typeset.py", "--out", folder, "--submission")
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(rb"error: report\.md fills \d pages, 2 are allowed: [^\n]+\n", done.stderr)
    assert (folder / "report.pdf").read_text() == "old"
    assert not (folder / "submission.zip").exists()


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_report_that_cannot_be_read_is_named(tmp_path, monkeypatch, content):
    if content:
        (tmp_path / "report.md").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["typeset.py", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="^cannot read report.md in "):
        main()
    assert not (tmp_path / "report.pdf").exists()


@pytest.mark.parametrize("points, width, printed", [(6, 0.49 * TEXT_WIDTH / 25.4, 6), (9, 6.3, None), (5.9, 3.1, 6.24),
                                                    (5.9, 3.3, None)])
def test_small_text_is_refused(folder, points, width, printed):
    (folder / "plots" / "left.png").write_bytes(to_png(drawing(points, width)))
    if printed:
        typeset(REPORT, folder)
    else:
        with pytest.raises(UserError, match=r"^plots/left\.png at width 49% has text of [45]\.\d\d points, under 6: "):
            typeset(REPORT, folder)


def test_the_smallest_text_is_what_shows():
    from PIL import Image

    def smallest(figure):
        with Image.open(io.BytesIO(to_png(figure))) as picture:
            assert picture.width / picture.info["dpi"][0] == pytest.approx(figure.get_figwidth(), abs=0.01)
            return float(picture.info["Smallest text"])

    figure = drawing(points=8)
    figure.text(0.1, 0.1, "hidden", fontsize=2).set_visible(False)
    figure.text(0.1, 0.1, "", fontsize=3)
    assert smallest(figure) == 8
    figure.text(0.1, 0.9, "$10^{-1}$", fontsize=10)
    assert smallest(figure) == pytest.approx(7)  # an exponent is set at 0.7 of the size
    axes = figure.subplots()
    axes.tick_params(labelsize=6.5)
    assert smallest(figure) == 6.5
    assert smallest(Figure(figsize=(2, 1))) == float("inf")


def test_a_picture_that_is_missing_or_not_measured_names_its_script(folder):
    report = REPORT.replace("left", "base_loss")
    with pytest.raises(UserError, match=r"^plots/base_loss\.png is missing, .*: run train_base\.py again$"):
        typeset(report, folder)
    drawing().savefig(folder / "plots" / "base_loss.png")
    with pytest.raises(UserError, match=r"^plots/base_loss\.png is .*: run train_base\.py again$"):
        typeset(report, folder)
    (folder / "plots" / "base_loss.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"^plots/base_loss\.png is .*damaged.*: run train_base\.py again$"):
        typeset(report, folder)


@pytest.mark.parametrize("text", [
    "10<sup>3</sup> images", "![loss](plots/left.png)", '<img src="plots/left.png" width="300" alt="in pixels">',
    'in a line <img src="plots/left.png" width="49%" alt="of text">',
    '<img src="plots/left.png" width="49%" alt="without a caption">'])
def test_what_typesetting_would_lose_is_refused(folder, text):
    with pytest.raises(UserError, match="would be lost"):
        typeset(f"{REPORT}\n{text}\n", folder)


def test_what_only_looks_like_html_is_kept(folder):
    text = text_of(pdfium.PdfDocument(typeset(REPORT + "\n3 < 4 and 5 > 4, `--out <folder>`, <https://arxiv.org>\n", folder)))
    assert "3 < 4 and 5 > 4, --out <folder>, https://arxiv.org" in text


def test_the_submission_holds_code_results_and_report_and_nothing_else(folder):
    done = run("typeset.py", "--out", folder, "--submission")
    assert (done.returncode, done.stderr) == (0, b"warning: the participants' line of report.md is not filled in yet\n")
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(["Makefile", "README.md", "model.py", "plots/left.png", "plots/right.png",
                                             "report.md", "report.pdf", "requirements.txt", "results/base.json",
                                             "tests/test_model.py"])
        for name in archive.namelist():
            assert archive.read(name) == (folder / name).read_bytes()
    assert pack(folder, (folder / "report.pdf").read_bytes()) == (folder / "submission.zip").read_bytes()


def test_an_incomplete_project_is_not_packed(folder):
    (folder / "Makefile").unlink()
    with pytest.raises(UserError, match="there is no Makefile in "):
        pack(folder, b"")


@pytest.mark.parametrize("line, filled", [("_name, student number; name, student number_", False), ("", False),
                                          ("Ada Lovelace, 1815; name, student number", False),
                                          ("Ada Lovelace, 1815; Алан Тьюринг, 1912", True)])
def test_whether_the_participants_are_filled_in(line, filled):
    assert bool(PARTICIPANTS.search(f"# Title\n\n**Participants:** {line}\n\nText\n")) == filled


def test_what_git_tracks_is_packed(folder):
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git repository")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    with zipfile.ZipFile(io.BytesIO(pack(folder, b""))) as archive:
        assert set(tracked) - set(archive.namelist()) <= {".ci/run", ".gitignore"}


@pytest.mark.parametrize("name", ["report.md", "README.md"])
def test_no_line_of_text_begins_with_a_marker(name):
    """GitHub takes such a line for HTML: the paragraph ends there and its Markdown shows as it is written."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.lstrip().startswith("<!--=") and re.sub("<!--.*?-->", "", line).strip()] == []


def test_this_report_can_be_handed_in():
    if not (ROOT / "plots").exists():
        pytest.skip("no plots/ yet: run the scripts")
    typeset((ROOT / "report.md").read_text(encoding="utf-8"), ROOT)
