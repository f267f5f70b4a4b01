"""The scripts as a user runs them: what they leave and print, and what happens to mistakes and interruptions."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import DATA, ROOT, SCRIPTS, equal_states, read_json, snapshot, start
from matplotlib.image import imread

from model import build_model
from results import load_checkpoint
from training import evaluate

KEYS = {
    "": {"experiment", "digits", "seed", "dataset", "model", "hyperparameters", "curve", "train_accuracy",
         "test_accuracy", "test_errors", "test_count", "training_seconds", "feature_seconds", "total_seconds",
         "environment"},
    "dataset": {"name", "train", "validation", "test"},
    "model": {"blocks", "frozen", "reinit", "parameters", "trainable_parameters"},
    "hyperparameters": {"epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "schedule"},
    "environment": {"torch", "torchvision", "python", "device", "threads", "cpu"},
}
ROW = {"epoch", "seconds", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"}
PARTS = {"base": (0, 4), "finetune": (1, 2), "fresh": (0, 4)}  # frozen, reinit
every_script = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder that the four scripts leave, run by a user on all of MNIST for one epoch."""
    out = tmp_path_factory.mktemp("finished")
    (out / "report.md").write_text("before\n\n<!-- table -->\n\nold\n\n<!-- end of table -->\n\nafter\n")
    for scripts in (["train_base"], ["finetune", "train_fresh"], ["compare"]):  # two at a time save time
        flags = () if scripts == ["compare"] else ("--epochs", 1, "--batch-size", 256)
        processes = [start(f"{script}.py", "--out", out, *flags) for script in scripts]
        for script, process in zip(scripts, processes, strict=True):
            stdout, stderr = process.communicate(timeout=300)
            assert process.returncode == 0 and stderr == "", stderr  # no bars in a pipe
            (out / f"{script}.txt").write_text(stdout)
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A folder with earlier results of all scripts."""
    return shutil.copytree(finished, tmp_path / "out")


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not key.endswith("seconds")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def outcome(out, name):
    """All of a run that must be the same for the same seed."""
    return without_times(read_json(out / "results" / f"{name}.json")), (out / "checkpoints" / f"{name}.pt").read_bytes()


# What a run leaves


def test_the_scripts_leave_these_files_and_nothing_else(finished):
    names = {str(path.relative_to(finished)) for path in snapshot(finished) if path.parent != finished}
    assert names == {f"{folder}/{name}{end}" for name in SCRIPTS for folder, end in (
        ("results", ".json"), ("plots", "_loss.png"), ("checkpoints", ".pt"))} | {
        f"plots/{name}.png" for name in ("comparison", "loss_curves", "errors")}


@every_script
def test_results_are_as_designed_and_agree_with_each_other(finished, name):
    found = read_json(finished / "results" / f"{name}.json")
    for key, expected in KEYS.items():
        assert set(found[key] if key else found) == expected
    assert all(set(row) == ROW for row in found["curve"])
    assert found["experiment"] == name
    assert found["digits"] == ([0, 1, 2, 3, 4, 5, 6] if name == "base" else [7, 8, 9])
    assert list(found["dataset"].values()) == (
        ["MNIST", 37742, 4193, 6989] if name == "base" else ["MNIST", 16259, 1806, 3011])
    assert (found["model"]["frozen"], found["model"]["reinit"]) == PARTS[name]
    assert found["model"]["parameters"] == 46842
    assert found["model"]["trainable_parameters"] == (46410 if name == "finetune" else 46842)
    assert found["test_accuracy"] == 1 - found["test_errors"] / found["test_count"] > 0.95
    assert found["test_count"] == found["dataset"]["test"]
    assert 0 <= found["feature_seconds"] < found["training_seconds"] == found["curve"][-1]["seconds"]
    assert (found["feature_seconds"] > 0) == (name == "finetune")
    assert found["training_seconds"] < found["total_seconds"]


@every_script
def test_plots_are_real_pictures(finished, name):
    for plot in (f"{name}_loss", "comparison", "loss_curves", "errors"):
        picture = imread(finished / "plots" / f"{plot}.png")[..., :3]
        assert picture.shape[0] > 300 and picture.shape[1] > 500
        assert (picture == 1).all(-1).mean() > 0.4  # white paper ...
        assert 0.01 < (picture < 0.7).any(-1).mean()  # ... and ink on it


def test_checkpoints_hold_the_models_that_were_tested(finished, mnist):
    from data import load_task
    for name in SCRIPTS:
        found = read_json(finished / "results" / f"{name}.json")
        model, digits = load_checkpoint(finished / "checkpoints" / f"{name}.pt", "")
        task = load_task(DATA, tuple(digits))
        assert evaluate(model, task.test)[1] == found["test_accuracy"]
        assert evaluate(model, task.train)[1] == found["train_accuracy"]  # of all training images
    base, finetune = (torch.load(finished / "checkpoints" / f"{name}.pt", weights_only=True)["model"]
                      for name in ("base", "finetune"))
    assert {name for name in base if torch.equal(base[name], finetune[name])} == {
        name for name in base if name.startswith("conv1.")}


def test_compare_refreshes_the_table_between_its_comment_lines_and_nothing_else(finished):
    before, table, after = (finished / "report.md").read_text().split("\n\n", 1)[0], *(
        (finished / "report.md").read_text().split("<!-- table -->")[1].split("<!-- end of table -->"))
    assert (before, after) == ("before", "\n\nafter\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()]
    for row, name in zip(rows[2:], SCRIPTS, strict=True):
        found = read_json(finished / "results" / f"{name}.json")
        assert row[2:] == [f"{found['train_accuracy']:.2%}".replace("%", " %"),
                           f"{found['test_accuracy']:.2%}".replace("%", " %"),
                           f"{found['test_errors']} of {found['test_count']:,}", f"{found['training_seconds']:.1f} s"]
    assert table.strip() in (finished / "compare.txt").read_text()


# Flags


def test_the_same_seed_gives_the_same_results_and_checkpoints_and_another_does_not(run, tmp_path):
    for seed, folder in ((1, "a"), (1, "b"), (2, "c")):
        for script in SCRIPTS.values():
            assert run(script, "--epochs", 1, "--seed", seed, "--out", tmp_path / folder)[0] == 0
    for name in SCRIPTS:
        assert outcome(tmp_path / "a", name) == outcome(tmp_path / "b", name)
        assert outcome(tmp_path / "a", name)[1] != outcome(tmp_path / "c", name)[1]


def test_other_digits_other_cuts_and_the_usual_way_of_freezing(run, tmp_path):
    assert run("train_base", "--digits", "1,3,5,7,9", "--epochs", 1, "--out", tmp_path)[0] == 0
    for script, flags in (("train_fresh", ()), ("finetune", ("--frozen", 2, "--reinit", 1)),
                          ("finetune", ("--frozen", 0, "--reinit", 4)), ("finetune", ("--recompute-frozen",))):
        assert run(script, "--digits", "0,2-2,4,6,8", "--epochs", 1, "--out", tmp_path, *flags)[0] == 0
    assert read_json(tmp_path / "results" / "finetune.json")["feature_seconds"] == 0
    assert run("compare", "--out", tmp_path)[0] == 0


# Mistakes: one line, exit status 2, nothing overwritten


def refuse(run, out, script, *flags):
    before = snapshot(out)
    status, stdout, stderr = run(script, "--out", out, *flags)
    assert status == 2 and stdout == "" and snapshot(out) == before
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    return stderr


@pytest.mark.parametrize("flag, values", [
    ("--digits", ("", ",", "6-0", "11", "six", "1,1", "0-4,4-9")),
    ("--epochs", ("0", "-1", "1.5", "many", "")), ("--batch-size", ("0", "1", "x")),
    ("--learning-rate", ("0", "-0.1", "nan", "inf", "fast")), ("--seed", ("-1", "0.5")),
    ("--device", ("tpu", "mps", "") if torch.cuda.is_available() else ("cuda", "tpu", "mps", ""))])
def test_a_wrong_flag_is_named(run, out, flag, values):
    for value in values:
        assert flag in refuse(run, out, "train_base", flag, value)
    assert "--colour" in refuse(run, out, "train_fresh", "--colour", "red")


def test_a_cut_or_a_task_that_cannot_be_is_named(run, out):
    for frozen, reinit in ((3, 2), (0, 5), (4, 0), (1000, 1000)):
        assert "--frozen" in refuse(run, out, "finetune", "--frozen", frozen, "--reinit", reinit)
    for flag in ("--frozen", "--reinit"):
        assert flag in refuse(run, out, "finetune", flag, "-1")
    assert "trained on 6 already" in refuse(run, out, "finetune", "--digits", "6-9")


@pytest.mark.parametrize("kind", ["a file", "in a file", "read-only"])
def test_an_output_folder_that_cannot_be_written_is_named_before_training(run, tmp_path, kind):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "locked").mkdir(mode=0o500)
    if kind == "read-only" and os.access(tmp_path / "locked", os.W_OK):
        pytest.skip("this user may write everywhere")
    out = {"a file": tmp_path / "file", "in a file": tmp_path / "file" / "out", "read-only": tmp_path / "locked"}[kind]
    status, stdout, stderr = run("train_base", "--out", out)
    assert status == 2 and stdout == "" and "--out" in stderr and stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_training_that_diverges_saves_nothing(run, out):
    before = snapshot(out)
    status, _, stderr = run("train_fresh", "--learning-rate", "1e30", "--epochs", 1, "--out", out)
    assert status == 2 and "diverged" in stderr and snapshot(out) == before


class Malice:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def bad_checkpoints(path, good):
    checkpoint = torch.load(path, weights_only=True)
    changed = {"of another network": checkpoint | {"model": {"fc2.bias": torch.zeros(10)}},
               "without digits": {"model": checkpoint["model"]},
               "a whole model": build_model(), "malicious": checkpoint | {"digits": Malice()}}
    for kind, value in changed.items():
        torch.save(value, path)
        yield kind, path.read_bytes()
    place = len(good) // 2
    yield from {"empty": b"", "text": b"no checkpoint\n", "a pickle": pickle.dumps(Malice()), "truncated": good[:place],
                "flipped bits": good[:place] + bytes([good[place] ^ 255]) + good[place + 1:]}.items()


def test_a_base_that_is_no_base_is_named_and_never_executed(run, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.pt"
    good = (out / "checkpoints" / "base.pt").read_bytes()
    path.write_bytes(good)
    for kind, contents in bad_checkpoints(path, good):
        path.write_bytes(contents)
        assert str(path) in refuse(run, out, "finetune", "--base", path), kind
    assert not (tmp_path / "executed").exists()
    torch.save(Malice(), path)
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have been
    assert "run train_base.py, or" in refuse(run, out, "finetune", "--base", tmp_path / "nowhere.pt")
    path.write_bytes(good)
    assert equal_states(load_checkpoint(path, "")[0].state_dict(), torch.load(path, weights_only=True)["model"])


def test_compare_without_results_names_the_script_to_run(run, out):
    (out / "checkpoints" / "fresh.pt").unlink()
    assert "run train_fresh.py" in refuse(run, out, "compare")
    (out / "results" / "fresh.json").write_text("{")
    assert "run train_fresh.py" in refuse(run, out, "compare")
    (out / "results" / "finetune.json").unlink()
    assert "run finetune.py" in refuse(run, out, "compare")


# Interruptions


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_is_one_line_and_earlier_results_stay(out):
    before = snapshot(out)
    process = start("train_base.py", "--out", out, "--epochs", 500)
    assert process.stdout.readline().startswith("epoch 0")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr == "interrupted: no file is left half-written\n"
    assert snapshot(out) == before


def test_a_killed_process_leaves_no_half_file(tmp_path):
    contents = [bytes([value]) * 20_000_000 for value in (1, 2)]
    program = ("import sys; from pathlib import Path; from results import save\n"
               "contents = [bytes([value]) * 20_000_000 for value in (1, 2)]\n"
               "while True:\n for value in contents: save(Path(sys.argv[1]), value); print(flush=True)")
    process = start("-c", program, tmp_path / "file")
    for _ in range(3):
        process.stdout.readline()
    time.sleep(random.random() / 5)
    process.kill()
    process.communicate()
    assert (tmp_path / "file").read_bytes() in contents


# The process


def test_importing_changes_nothing_in_the_process():
    modules = [path.stem for path in ROOT.glob("*.py")] + ["experiments.study", "experiments.benchmark"]
    assert len(modules) == 12
    program = f"""
import json, signal, sys, warnings, os, threading
import matplotlib, torch, torchvision, tqdm, scipy.stats, scipy.optimize
import matplotlib.figure, torch.utils.flop_counter
def state():
    return [sys.excepthook, threading.excepthook, sys.stdout, sys.stderr, dict(os.environ), warnings.filters[:],
            [signal.getsignal(number) for number in signal.valid_signals()], dict(matplotlib.rcParams),
            torch.get_num_threads(), torch.initial_seed(), torch.get_default_dtype(), os.getcwd(), sys.path[:]]
before = state()
for name in {modules!r}:
    __import__(name)
    if state() != before:
        print(name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("script", [*SCRIPTS.values(), "compare", "experiments.study", "experiments.benchmark"])
def test_help_shows_what_the_script_does_and_its_flags(run, script):
    status, stdout, _ = run(script, "--help")
    assert status == 0 and "--out DIR" in stdout and f"python {'-m ' if '.' in script else ''}{script}" in stdout
