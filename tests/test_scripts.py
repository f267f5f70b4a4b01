"""The three scripts, run in order as a user runs them: what they print, what they leave, and twice the same."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import FOLDERS, SCRIPTS, call, run_all, snapshot, start
from matplotlib.image import imread
from test_data import make_files, note, put

import data
from plotting import loss_figure
from runs import load_base
from training import evaluate

KEYS = {
    "": {"experiment", "digits", "seed", "dataset", "model", "hyperparameters", "curve", "train_accuracy",
         "test_accuracy", "test_errors", "test_count", "training_seconds", "feature_seconds", "total_seconds",
         "environment"},
    "dataset": {"name", "verified", "train", "validation", "test"},
    "model": {"blocks", "frozen", "reinit", "parameters", "trainable_parameters"},
    "hyperparameters": {"epochs", "batch_size", "learning_rate", "optimizer", "weight_decay", "schedule"},
    "environment": {"torch", "torchvision", "python", "device", "threads", "cpu"},
}
ROW = {"epoch", "seconds", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"}
PARTS = {"base": (0, 4), "finetune": (1, 2), "fresh": (0, 4)}  # frozen, reinit

every_script = pytest.mark.parametrize("name", SCRIPTS)


def results(out, name):
    return json.loads((out / "results" / f"{name}.json").read_text(encoding="utf-8"))


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not key.endswith("seconds")}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def outcome(out, name):
    """All of a run that must be the same for the same seed."""
    return without_times(results(out, name)), (out / "checkpoints" / f"{name}.pt").read_bytes()


# What a run leaves


def test_each_run_leaves_three_files_and_nothing_else(finished):
    assert {path for path, contents in snapshot(finished).items() if contents and "stdout" not in path} == {
        os.path.join(*path) for name in SCRIPTS for path in (
            ("results", f"{name}.json"), ("plots", f"{name}_loss.png"), ("checkpoints", f"{name}.pt"))}
    assert {path.name for path in finished.iterdir() if path.is_dir()} == set(FOLDERS)


@every_script
def test_results_have_the_keys_of_the_design(finished, name):
    found = results(finished, name)
    for key, expected in KEYS.items():
        assert set(found[key] if key else found) == expected
    assert all(set(row) == ROW for row in found["curve"])


@every_script
def test_results_agree_with_each_other_and_with_the_task(finished, name, old_task, new_task):
    found, task = results(finished, name), old_task if name == "base" else new_task
    assert found["experiment"] == name
    assert tuple(found["digits"]) == task.digits
    assert [found["dataset"][split] for split in ("train", "validation", "test")] == [
        len(split.labels) for split in (task.train, task.validation, task.test)]
    assert (found["model"]["frozen"], found["model"]["reinit"]) == PARTS[name]
    assert [row["epoch"] for row in found["curve"]] == list(range(found["hyperparameters"]["epochs"] + 1))
    assert found["train_accuracy"] == found["curve"][-1]["train_accuracy"] > 0.9
    assert found["test_accuracy"] == 1 - found["test_errors"] / found["test_count"] > 0.8
    assert found["test_count"] == len(task.test.labels)
    assert 0 <= found["feature_seconds"] < found["training_seconds"] == found["curve"][-1]["seconds"]
    assert found["training_seconds"] < found["total_seconds"]
    assert (found["feature_seconds"] > 0) == (name == "finetune")


@every_script
def test_plots_are_real_pictures(finished, name):
    picture = imread(finished / "plots" / f"{name}_loss.png")[..., :3]
    assert picture.shape[0] > 300 and picture.shape[1] > 500
    assert (picture == 1).all(-1).mean() > 0.5  # white paper ...
    assert 0.01 < (picture < 0.7).any(-1).mean()  # ... and ink on it
    assert len(np.unique((picture * 255).astype(int).reshape(-1, 3), axis=0)) > 50


@every_script
def test_checkpoints_hold_the_model_that_was_tested(finished, name, old_task, new_task):
    checkpoint = torch.load(finished / "checkpoints" / f"{name}.pt", weights_only=True)
    assert checkpoint.keys() == {"experiment", "digits", "seed", "dataset", "verified", "blocks", "model"}
    assert (checkpoint["experiment"], checkpoint["dataset"], checkpoint["verified"]) == (name, "rendered digits", False)
    model, _ = load_base(finished / "checkpoints" / f"{name}.pt", (), torch.device("cpu"))
    task = old_task if name == "base" else new_task
    assert evaluate(model, task.test)[1] == results(finished, name)["test_accuracy"]


def test_all_three_are_the_same_architecture_and_the_frozen_block_is_the_base_s(finished):
    base, finetune, fresh = (
        torch.load(finished / "checkpoints" / f"{name}.pt", weights_only=True)["model"] for name in SCRIPTS)
    assert {name: value.shape for name, value in base.items()} == {name: v.shape for name, v in finetune.items()} == \
           {name: value.shape for name, value in fresh.items()}
    kept = {name for name in base if torch.equal(base[name], finetune[name])}
    assert kept == {name for name in base if name.startswith("conv1.")}
    parameters = [results(finished, name)["model"]["parameters"] for name in SCRIPTS]
    trainable = [results(finished, name)["model"]["trainable_parameters"] for name in SCRIPTS]
    assert parameters[0] == parameters[1] == parameters[2] == trainable[0] == trainable[2]
    frozen = sum(base[name].numel() for name in ("conv1.0.weight", "conv1.2.weight", "conv1.2.bias"))
    assert trainable[1] == parameters[1] - frozen


# What a run prints


@every_script
def test_piped_output_is_a_row_an_epoch_and_a_summary_without_litter(finished, name):
    text = (finished / f"stdout-{name}.txt").read_text(encoding="utf-8")
    assert not set(re.findall(r"[\x00-\x1f\x7f]", text)) - {"\n"}
    found = results(finished, name)
    rows = [line.split() for line in text.splitlines() if re.match(r" +\d", line)]
    assert [[row[0], row[2], row[4]] for row in rows] == [
        [str(row["epoch"]), f"{row['validation_loss']:.4f}", f"{row['validation_accuracy']:.2%}"]
        for row in found["curve"]]
    assert f"test accuracy {found['test_accuracy']:.2%} ({found['test_errors']} errors" in text
    assert str(finished) in text


@every_script
def test_what_is_not_mnist_says_so_everywhere(finished, name):
    found = results(finished, name)
    assert found["dataset"]["name"] == "rendered digits" and found["dataset"]["verified"] is False
    assert "rendered digits, not MNIST" in (finished / f"stdout-{name}.txt").read_text(encoding="utf-8")
    assert "rendered digits (not MNIST)" in loss_figure(found).axes[0].get_title(loc="left")


@every_script
def test_help_names_every_flag(name, capsys):
    with pytest.raises(SystemExit) as left:
        call(SCRIPTS[name], "--help")
    assert left.value.code == 0
    flags = {"--data-dir", "--out", "--seed", "--epochs", "--batch-size", "--learning-rate", "--device", "--digits"}
    flags |= {"--base", "--frozen", "--reinit", "--recompute-frozen"} if name == "finetune" else set()
    text = capsys.readouterr().out
    assert flags | {"--help"} == set(re.findall(r"^ +(?:-h, )?(--[a-z-]+)", text, re.MULTILINE))
    assert f"python {SCRIPTS[name]}" in text


def test_a_terminal_shows_a_bar_and_ctrl_c_there_leaves_one_line(rendered, tmp_path):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")  # no pseudo-terminals on Windows
    keyboard, terminal = os.openpty()
    process = start("train_fresh.py", "--data-dir", rendered, "--out", tmp_path, "--epochs", 5000, stdin=terminal,
                    stdout=terminal, stderr=terminal, start_new_session=True,
                    preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(terminal)
    text = b""

    def read_until(end):
        nonlocal text
        while not end(text):
            text += os.read(keyboard, 4096)

    read_until(lambda text: text.count(b"] step ") > 3)
    os.write(keyboard, b"\x03")
    read_until(lambda text: text.endswith(b"were\r\n"))
    assert process.wait() == 130
    os.close(keyboard)
    assert re.search(rb"\r\x1b\[K  \[=* *\] step \d+ of \d+", text)
    assert text.endswith(b"\r\x1b[Kinterrupted: earlier results are as they were\r\n") and b"Traceback" not in text


# The same again


@pytest.fixture(scope="module")
def again(rendered, tmp_path_factory):
    """The three scripts once more: from another folder, with relative paths, printing to something that is ASCII."""
    folder = tmp_path_factory.mktemp("irgendwo – 某处")
    shutil.copytree(rendered, folder / "data")
    for printed in run_all("--out", "wieder é", cwd=folder, env={"PYTHONIOENCODING": "ascii"}).values():
        assert b"wieder \\xe9" in printed
    assert {path.name for path in folder.iterdir()} == {"data", "wieder é"}
    return folder / "wieder é"


@every_script
def test_two_runs_of_a_seed_differ_in_nothing_but_times(finished, again, name):
    assert outcome(again, name) == outcome(finished, name)


def test_another_seed_gives_another_result(finished, rendered, tmp_path):
    call("train_fresh.py", "--data-dir", rendered, "--out", tmp_path, "--seed", 1)
    first, second = outcome(finished, "fresh"), outcome(tmp_path, "fresh")
    assert first[0]["dataset"] == second[0]["dataset"]
    assert all(a["train_loss"] != b["train_loss"] for a, b in zip(first[0]["curve"], second[0]["curve"], strict=True))


# Other forms of the exercise


@pytest.mark.parametrize("old, new", [("0-4", "5-9"), ("1,3,5,7,9", "0,2,4,6,8"), ("0,1,4,5,9", "7")])
def test_other_digits_are_one_flag_each(rendered, tmp_path, old, new):
    flags = ["--data-dir", rendered, "--out", tmp_path, "--epochs", 1]
    call("train_base.py", *flags, "--digits", old)
    call("finetune.py", *flags, "--digits", new)
    call("train_fresh.py", *flags, "--digits", new)
    assert [results(tmp_path, name)["digits"] for name in SCRIPTS] == [
        list(data.parse_digits(spec)) for spec in (old, new, new)]


@pytest.mark.parametrize("frozen, reinit", [(0, 0), (0, 4), (2, 1), (3, 1), (3, 0)])
def test_the_cuts_can_be_moved(finished, rendered, tmp_path, frozen, reinit):
    base = finished / "checkpoints" / "base.pt"
    call("finetune.py", "--data-dir", rendered, "--out", tmp_path, "--base", base, "--epochs", 1,
         "--frozen", frozen, "--reinit", reinit)
    assert results(tmp_path, "finetune")["model"]["frozen"] == frozen
    before, after = (torch.load(path, weights_only=True)["model"]
                     for path in (base, tmp_path / "checkpoints" / "finetune.pt"))
    unchanged = {name.split(".")[0] for name in before if torch.equal(before[name], after[name])}
    assert unchanged == set(results(tmp_path, "finetune")["model"]["blocks"][:frozen])


def test_the_usual_way_gives_the_same_result_and_no_time_for_features(finished, rendered, tmp_path):
    call("finetune.py", "--data-dir", rendered, "--out", tmp_path, "--base", finished / "checkpoints" / "base.pt",
         "--recompute-frozen")
    usual, once = results(tmp_path, "finetune"), results(finished, "finetune")
    assert usual["feature_seconds"] == 0 and usual["model"] == once["model"]
    assert abs(usual["test_errors"] - once["test_errors"]) <= 0.02 * once["test_count"]


def test_the_smallest_data_and_a_batch_larger_than_all_of_it(tmp_path):
    put(note(tmp_path), make_files(per_digit=(10, 1)))
    flags = ["--data-dir", tmp_path, "--out", tmp_path, "--batch-size", 10**9]
    call("train_base.py", *flags, "--digits", 0)
    call("finetune.py", *flags, "--digits", 1)
    assert [results(tmp_path, name)["test_count"] for name in ("base", "finetune")] == [1, 1]


def test_a_base_of_other_data_is_named_too(finished, tmp_path, capsys):
    put(note(tmp_path), make_files())
    call("finetune.py", "--data-dir", tmp_path, "--out", tmp_path, "--base", finished / "checkpoints" / "base.pt",
         "--epochs", 1)
    assert results(tmp_path, "finetune")["dataset"]["name"] == "noise from a base of rendered digits"
    assert "This is noise from a base of rendered digits, not MNIST" in capsys.readouterr().out


# The real MNIST


def test_mnist_from_the_base_to_the_fine_tuned_model(mnist, tmp_path, capsys):
    for name in SCRIPTS:
        call(SCRIPTS[name], "--data-dir", mnist, "--out", tmp_path, "--epochs", 1)
        found = results(tmp_path, name)
        assert found["dataset"]["name"] == "MNIST" and found["dataset"]["verified"] is True
        assert found["test_accuracy"] > 0.97
        assert "not MNIST" not in capsys.readouterr().out + loss_figure(found).axes[0].get_title(loc="left")


def test_a_base_of_a_stand_in_does_not_make_a_result_for_mnist(mnist, finished, tmp_path):
    call("finetune.py", "--data-dir", mnist, "--out", tmp_path, "--base", finished / "checkpoints" / "base.pt",
         "--epochs", 1)
    assert results(tmp_path, "finetune")["dataset"]["name"] == "MNIST from a base of rendered digits"
    assert results(tmp_path, "finetune")["dataset"]["verified"] is False
