"""The scripts as a user runs them: what they leave and print, and what happens to mistakes and interruptions."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import DATA, ROOT, SCRIPTS, equal_states, read_json, run_script, snapshot, start
from matplotlib.image import imread

import cli
import data
from model import build_model
from results import load_checkpoint
from training import evaluate

KEYS = {
    "": {"experiment", "digits", "seed", "dataset", "model", "hyperparameters", "checkpoint", "curve", "train_accuracy",
         "test_accuracy", "test_errors", "test_count", "training_seconds", "feature_seconds", "environment"},
    "dataset": {"name", "train", "validation", "test"},
    "model": {"frozen", "reinit", "parameters"},
    "hyperparameters": {"epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "schedule"},
    "environment": {"torch", "python", "device", "threads", "cpu"},
}
ROW = {"epoch", "seconds", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"}
PARTS = {"base": (0, 4), "finetune": (1, 2), "fresh": (0, 4)}  # frozen, reinit
every_script = pytest.mark.parametrize("name", SCRIPTS)


@pytest.fixture(scope="session")
def finished(mnist, tmp_path_factory):
    """The folder that the four scripts leave, run on all of MNIST for one epoch."""
    out = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_mnist", lambda data_dir, train: mnist[0 if train else 1])
        for script in SCRIPTS.values():
            assert run_script(script, "--out", out, "--epochs", 1, "--batch-size", 256) == 0
    process = start(ROOT / "compare.py", "--out", out, cwd=tmp_path_factory.mktemp("elsewhere"))
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 0 and stderr == "", stderr
    (out / "compare.txt").write_text(stdout, encoding="utf-8")
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
        f"plots/{name}.png" for name in ("comparison", "loss_curves")}


@every_script
def test_results_are_as_designed_and_agree_with_each_other(finished, name):
    found = read_json(finished / "results" / f"{name}.json")
    for key, expected in KEYS.items():
        if name == "finetune":
            expected = expected | {"": {"base"}, "hyperparameters": {"recompute_frozen"}}.get(key, set())
        assert set(found[key] if key else found) == expected
    assert all(set(row) == ROW for row in found["curve"])
    assert found["experiment"] == name
    assert found["digits"] == ([0, 1, 2, 3, 4, 5, 6] if name == "base" else [7, 8, 9])
    assert list(found["dataset"].values()) == (
        ["MNIST", 37742, 4193, 6989] if name == "base" else ["MNIST", 16259, 1806, 3011])
    assert (found["model"]["frozen"], found["model"]["reinit"]) == PARTS[name]
    assert found["model"]["parameters"] == 46842
    assert found["test_accuracy"] == 1 - found["test_errors"] / found["test_count"] > 0.95
    assert found["test_count"] == found["dataset"]["test"]
    assert 0 <= found["feature_seconds"] < found["training_seconds"] == found["curve"][-1]["seconds"]
    assert (found["feature_seconds"] > 0) == (name == "finetune")
    if name == "finetune":
        base = read_json(finished / "results" / "base.json")
        assert found["base"] == {key: base[key] for key in ("digits", "seed", "checkpoint")}


@every_script
def test_plots_are_real_pictures(finished, name):
    for plot in (f"{name}_loss", "comparison", "loss_curves"):
        picture = imread(finished / "plots" / f"{plot}.png")[..., :3]
        assert picture.shape[0] >= 300 and picture.shape[1] > 500
        assert (picture == 1).all(-1).mean() > 0.4  # white paper ...
        assert 0.01 < (picture < 0.7).any(-1).mean()  # ... and ink on it


def test_checkpoints_hold_the_models_that_were_tested(finished, mnist):
    from data import load_task
    for name in SCRIPTS:
        found = read_json(finished / "results" / f"{name}.json")
        model, origin = load_checkpoint(finished / "checkpoints" / f"{name}.pt", "")
        assert origin == {key: found[key] for key in ("digits", "seed", "checkpoint")}
        task = load_task(DATA, tuple(origin["digits"]))
        assert evaluate(model, task.test)[1] == found["test_accuracy"]
        if name != "base":  # it has the most
            assert evaluate(model, task.train)[1] == found["train_accuracy"]  # of all training images
    base, finetune = (torch.load(finished / "checkpoints" / f"{name}.pt", weights_only=True)["model"]
                      for name in ("base", "finetune"))
    assert {name for name in base if torch.equal(base[name], finetune[name])} == {
        name for name in base if name.startswith("conv1.")}


def test_compare_prints_the_results_and_finds_them_alike(finished):
    printed = (finished / "compare.txt").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    for row, name in zip(rows[2:], SCRIPTS, strict=True):
        found = read_json(finished / "results" / f"{name}.json")
        assert row[2:] == [f"{found['train_accuracy']:.2%}".replace("%", " %"),
                           f"{found['test_accuracy']:.2%}".replace("%", " %"),
                           f"{found['test_errors']} of {found['test_count']:,}", f"{found['training_seconds']:.1f} s"]
    assert "not alike" not in printed


# Like with like


def compare(run, out):
    """The lines of compare.py about what is not alike."""
    status, stdout, stderr = run("compare", "--out", out)
    assert status == 0, stderr
    return [line for line in stdout.splitlines() if line.startswith("not alike: ")]


def test_compare_says_what_the_user_changed_between_the_two(run, finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    pixels = imread(out / "plots" / "comparison.png").shape[0]
    assert run("train_fresh", "--epochs", 2, "--seed", 3, "--batch-size", 64, "--learning-rate", 0.004,
               "--out", out)[0] == 0
    lines = compare(run, out)
    assert lines == ["not alike: seed (fine-tuned 0, fresh 3)", "not alike: epochs (fine-tuned 1, fresh 2)",
                     "not alike: batch size (fine-tuned 256, fresh 64)",
                     "not alike: learning rate (fine-tuned 0.008, fresh 0.004)"]
    assert imread(out / "plots" / "comparison.png").shape[0] > pixels  # the figure has room for these lines


@pytest.mark.parametrize("key, value", [("threads", 64), ("cpu", "another"), ("device", "cuda"), ("torch", "2.4.0")])
def test_compare_says_that_the_two_were_trained_elsewhere(run, out, key, value):
    path = out / "results" / "fresh.json"
    found = read_json(path)
    found["environment"][key] = value
    path.write_text(json.dumps(found), encoding="utf-8")
    assert [line.split(" (")[0] for line in compare(run, out)] == [f"not alike: {key}"]


def test_compare_says_that_the_base_was_trained_again(run, out):
    assert run("train_base", "--epochs", 1, "--seed", 1, "--out", out)[0] == 0
    (line,) = compare(run, out)
    assert line.startswith("not alike: base (")


def test_other_digits_cannot_be_compared(run, out):
    path = out / "results" / "fresh.json"
    path.write_text(json.dumps(read_json(path) | {"digits": [7, 8]}), encoding="utf-8")
    assert "the same --digits" in refuse(run, out, "compare")


# Flags


def test_the_same_seed_gives_the_same_results_and_checkpoints_and_another_does_not(run, tmp_path):
    for folder in ("a", "b"):
        for script in SCRIPTS.values():
            assert run(script, "--epochs", 2, "--seed", 1, "--out", tmp_path / folder)[0] == 0
    for name in SCRIPTS:
        assert outcome(tmp_path / "a", name) == outcome(tmp_path / "b", name)
    base = tmp_path / "a" / "checkpoints" / "base.pt"
    for name, flags in (("fresh", ()), ("finetune", ("--base", base))):
        assert run(SCRIPTS[name], "--epochs", 2, "--seed", 2, "--out", tmp_path / "c", *flags)[0] == 0
        assert outcome(tmp_path / "a", name)[1] != outcome(tmp_path / "c", name)[1]


def test_other_digits_other_cuts_and_the_usual_way_of_freezing(run, tmp_path):
    assert run("train_base", "--digits", "1,3,5,7,9", "--epochs", 1, "--out", tmp_path)[0] == 0
    for script, flags in (("train_fresh", ()), ("finetune", ("--frozen", 2, "--reinit", 1)),
                          ("finetune", ("--frozen", 0, "--reinit", 4)), ("finetune", ("--recompute-frozen",))):
        assert run(script, "--digits", "0,2-2,4,6,8", "--epochs", 2, "--out", tmp_path, *flags)[0] == 0
    assert read_json(tmp_path / "results" / "finetune.json")["feature_seconds"] == 0
    assert compare(run, tmp_path) == []


def test_a_single_digit_and_a_base_from_elsewhere(run, finished, tmp_path):
    base = finished / "checkpoints" / "base.pt"
    assert run("finetune", "--digits", "8", "--base", base, "--batch-size", 32, "--out", tmp_path)[0] == 0
    found = read_json(tmp_path / "results" / "finetune.json")
    assert found["digits"] == [8] and found["base"]["checkpoint"] == read_json(
        finished / "results" / "base.json")["checkpoint"]


def test_outputs_and_data_are_the_projects_folder_by_default():
    args = cli.training_parser("", digits="7-9").parse_args([])
    assert (args.out, args.data_dir) == (ROOT, ROOT / "data")
    assert cli.training_parser("", digits="7-9").parse_args(["--out", "here"]).out == Path("here")  # the user's folder


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
    ("--learning-rate", ("0", "-0.1", "nan", "inf", "fast")), ("--seed", ("-1", "0.5", str(2**64))),
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


def test_training_that_diverges_ends_in_that_epoch_and_saves_nothing(run, out):
    before = snapshot(out)
    status, stdout, stderr = run("train_fresh", "--learning-rate", "1e30", "--epochs", 5, "--out", out)
    assert status == 2 and "diverged in epoch 1" in stderr and snapshot(out) == before
    assert "epoch 0" in stdout and "epoch 1" not in stdout


def test_too_few_steps_to_train_are_refused(run, out):
    assert "9 optimisation steps are too few" in refuse(run, out, "train_fresh", "--epochs", 9, "--batch-size", 60000)
    assert "optimisation steps are too few" in refuse(run, out, "finetune", "--epochs", 1, "--batch-size", 1000)


def test_a_full_disk_is_one_line_and_leaves_nothing_half(run, out, monkeypatch):
    def write_half(path, contents, write=Path.write_bytes):
        write(path, contents[: len(contents) // 2])
        if "results" in str(path.parent):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, contents)

    before = snapshot(out)
    monkeypatch.setattr(Path, "write_bytes", write_half)
    status, _, stderr = run("train_fresh", "--epochs", 1, "--batch-size", 32, "--out", out)
    assert status == 2 and stderr.startswith("error: cannot write") and stderr.count("\n") == 1
    assert "No space left on device" in stderr and snapshot(out) == before


def test_a_command_that_fails_leaves_no_folder(run, tmp_path):
    for script in ("compare", "finetune", "experiments.summary"):
        assert run(script, "--out", tmp_path / "typo")[0] == 2
    assert run("train_base", "--out", tmp_path / "typo", "--epochs", 1, "--batch-size", 60000)[0] == 2
    assert not list(tmp_path.iterdir())


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
    assert "run train_base.py" in refuse(run, out, "finetune", "--base", tmp_path / "nowhere.pt")
    path.write_bytes(good)
    assert equal_states(load_checkpoint(path, "")[0].state_dict(), torch.load(path, weights_only=True)["model"])


@pytest.mark.parametrize("contents", ["{", "", "{}", "[]", "null", "3", '{"experiment": "fresh"}'])
def test_compare_names_the_script_to_run_for_results_that_are_none(run, out, contents):
    (out / "results" / "fresh.json").write_text(contents, encoding="utf-8")
    assert "is not what train_fresh.py writes: run train_fresh.py" in refuse(run, out, "compare")
    (out / "results" / "finetune.json").unlink()
    assert "run finetune.py" in refuse(run, out, "compare")


def test_compare_does_not_take_one_models_results_for_anothers(run, out):
    shutil.copy(out / "results" / "finetune.json", out / "results" / "fresh.json")
    assert "run train_fresh.py" in refuse(run, out, "compare")


# Interruptions


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_is_one_line_and_earlier_results_stay(out):
    before = snapshot(out)
    process = start("train_base.py", "--out", out, "--epochs", 500)
    assert process.stdout.readline().startswith("epoch 0")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr == "interrupted: finished files are complete\n"
    assert snapshot(out) == before


# The process


def test_importing_changes_nothing_in_the_process():
    modules = [path.stem for path in ROOT.glob("*.py")] + [f"experiments.{path.stem}"
                                                           for path in ROOT.glob("experiments/*.py")]
    program = f"""
import json, signal, sys, warnings, os, threading
import matplotlib, torch, torchvision, tqdm, scipy.stats
import matplotlib.figure
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


@pytest.mark.parametrize("script", [*SCRIPTS.values(), "compare", "experiments.study", "experiments.summary",
                                    "experiments.benchmark"])
def test_help_shows_what_the_script_does_and_its_flags(run, script):
    status, stdout, _ = run(script, "--help")
    assert status == 0 and "--out DIR" in stdout and f"python {'-m ' if '.' in script else ''}{script}" in stdout
