"""compare.py: what it draws, what it refuses, and what it leaves alone."""

import json
import shutil

import pytest
from conftest import ROOT, call, snapshot

import compare
from errors import UserError


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def test_figures_and_table_go_below_out_and_say_what_the_data_are(out, rendered, capsys):
    documents = {name: (ROOT / name).read_bytes() for name in compare.DOCUMENTS}
    call("compare.py", "--out", out, "--data-dir", rendered)
    for name in ("comparison", "loss_curves", "errors", "filters"):
        assert (out / "plots" / f"{name}.png").stat().st_size > 5000
    table = (out / "results" / "comparison.md").read_text(encoding="utf-8")
    assert "rendered digits, not MNIST" in table and table.count("\n|") == 5 and table.strip() in capsys.readouterr().out
    assert documents == {name: (ROOT / name).read_bytes() for name in compare.DOCUMENTS}


def test_stand_in_results_in_the_default_place_refresh_nothing(out, rendered, monkeypatch):
    (out / "README.md").write_text("<!--=table-->mine<!--/-->")
    monkeypatch.chdir(out)
    call("compare.py", "--data-dir", rendered)
    assert (out / "README.md").read_text() == "<!--=table-->mine<!--/-->"


def test_verified_results_in_the_default_place_refresh_the_numbers(out, rendered, monkeypatch):
    for name in compare.EXPERIMENTS:
        path = out / "results" / f"{name}.json"
        result = json.loads(path.read_text(encoding="utf-8"))
        result["dataset"] = result["dataset"] | {"name": "MNIST", "verified": True}
        path.write_text(json.dumps(result))
    (out / "report.md").write_text("é <!--=fresh.count-->0<!--/-->, <!--=study.n-->kept<!--/-->", encoding="utf-8")
    monkeypatch.chdir(out)
    call("compare.py", "--data-dir", rendered)
    assert (out / "report.md").read_text(encoding="utf-8") == (
        f"é <!--=fresh.count-->{result['test_count']:,}<!--/-->, <!--=study.n-->kept<!--/-->")


def test_without_checkpoints_the_rest_is_drawn(out, rendered, capsys):
    shutil.rmtree(out / "checkpoints")
    call("compare.py", "--out", out, "--data-dir", rendered)
    assert (out / "plots" / "comparison.png").exists() and not (out / "plots" / "errors.png").exists()
    assert "base.pt" in capsys.readouterr().out


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values))


@pytest.mark.parametrize("break_it, said", [
    (lambda results: (results / "finetune.json").unlink(), "run finetune.py first"),
    (lambda results: (results / "base.json").write_text("{"), "run it again"),
    (lambda results: (results / "base.json").write_text("[]"), "run it again"),
    (lambda results: (results / "fresh.json").write_bytes(b"\xff\xfe"), "run it again"),
    (lambda results: change(results / "fresh.json", curve=[]), "run it again"),
    (lambda results: change(results / "fresh.json", digits=[8, 9]), "same --digits"),
    (lambda results: change(results / "base.json", dataset={"name": "MNIST", "verified": True}), "different data"),
])
def test_results_that_cannot_be_compared_are_one_line_and_nothing_is_written(out, rendered, break_it, said):
    break_it(out / "results")
    before = snapshot(out)
    with pytest.raises(UserError, match=said):
        call("compare.py", "--out", out, "--data-dir", rendered)
    assert snapshot(out) == before
