"""The scripts as a user runs them: what they leave and print, and what happens to mistakes and interruptions."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from conftest import ROOT, SCRIPTS, read_json, run_script, snapshot, start

import data
from compare import not_alike, read_results
from plotting import comparison_figure, loss_figure, to_png
from results import load_checkpoint
from training import evaluate

SETTINGS = {"digits", "seed", "epochs", "batch_size", "learning_rate", "device"}
ROW = {"epoch", "seconds", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"}
KEYS = {"experiment", "settings", "parameters", "images", "train_accuracy", "test_accuracy", "test_errors",
        "training_seconds", "checkpoint", "environment", "curve"}


@pytest.fixture(scope="session")
def finished(small_mnist, tmp_path_factory):
    """The folder that the three scripts leave, run on small data."""
    out = tmp_path_factory.mktemp("finished übung")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_mnist", lambda data_dir, train: small_mnist[0 if train else 1])
        for script in SCRIPTS.values():
            assert run_script(script, "--out", out, "--epochs", 3, "--batch-size", 32) == 0
    return out


@pytest.fixture
def out(finished, tmp_path):
    """A folder with earlier results of all scripts."""
    return shutil.copytree(finished, tmp_path / "out")


def change(out, name, **changes):
    """Change some of a script's results."""
    path = out / "results" / f"{name}.json"
    path.write_text(json.dumps(read_json(path) | changes), encoding="utf-8")


# What a run leaves


def test_the_scripts_leave_these_files_and_nothing_else(finished):
    assert {str(path.relative_to(finished)) for path in snapshot(finished)} == {
        f"{folder}/{name}{end}" for name in SCRIPTS
        for folder, end in (("results", ".json"), ("plots", "_loss.png"), ("checkpoints", ".pt"))}


@pytest.mark.parametrize("name", SCRIPTS)
def test_results_are_as_designed_and_those_of_the_checkpoint(finished, name, old_task, new_task):
    found = read_json(finished / "results" / f"{name}.json")
    task = old_task if name == "base" else new_task
    model, origin = load_checkpoint(str(finished / "checkpoints" / f"{name}.pt"))
    assert set(found) == KEYS | ({"base"} if name == "finetune" else set())
    assert set(found["settings"]) == SETTINGS | (
        {"frozen", "reinit", "recompute_frozen"} if name == "finetune" else set())
    assert found["settings"]["digits"] == list(task.digits) and found["parameters"] == 46842
    assert found["images"] == {part: len(getattr(task, part).labels) for part in ("train", "validation", "test")}
    assert found["train_accuracy"] == evaluate(model, task.train)[1]  # of all training images
    assert found["test_accuracy"] == 1 - found["test_errors"] / found["images"]["test"]
    assert found["test_accuracy"] == pytest.approx(evaluate(model, task.test)[1])
    assert json.loads(json.dumps(origin)) == found["settings"] | {"checkpoint": found["checkpoint"]}
    assert all(set(row) == ROW for row in found["curve"]) and [row["epoch"] for row in found["curve"]] == [0, 1, 2, 3]
    assert found["training_seconds"] == found["curve"][-1]["seconds"]
    assert (found["curve"][0]["seconds"] > 0) == (name == "finetune")  # its features
    assert set(found["environment"]) == {"torch", "python", "device", "threads", "cpu"}


def test_the_fine_tuned_model_kept_conv1_and_tells_of_its_base(finished):
    base, finetune = (load_checkpoint(finished / "checkpoints" / f"{name}.pt")[0].state_dict()
                      for name in ("base", "finetune"))
    assert [name for name in base if torch.equal(base[name], finetune[name])] == [
        name for name in base if name.startswith("conv1.")]
    results = read_results(finished)
    assert results["finetune"]["base"] == results["base"]["settings"] | {"checkpoint": results["base"]["checkpoint"]}


def test_the_same_seed_gives_the_same_results_and_checkpoints_and_another_does_not(run, finished, tmp_path):
    for seed in (0, 1):
        for script in SCRIPTS.values():
            assert run(script, "--epochs", 3, "--batch-size", 32, "--seed", seed, "--out", tmp_path / str(seed))[0] == 0
    for name in SCRIPTS:
        first, again, other = (read_json(out / "results" / f"{name}.json")
                               for out in (finished, tmp_path / "0", tmp_path / "1"))
        for each in (first, again):
            del each["training_seconds"]
            each["curve"] = [{key: value for key, value in row.items() if key != "seconds"} for row in each["curve"]]
        assert first == again  # the checkpoints' SHA-256 too
        assert all(mine["train_loss"] != others["train_loss"] for mine, others in zip(first["curve"], other["curve"]))


# Like with like


def test_compare_prints_results_settings_and_times_and_finds_nothing_unlike(run, out):
    status, stdout, stderr = run("compare", "--out", out)
    assert status == 0 and "not alike" not in stdout, stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in stdout.splitlines() if line.startswith("|")]
    results = read_results(out)
    for row, found in zip(rows[2:], results.values(), strict=True):
        assert row[2:] == ["0", "3", f"{100 * found['train_accuracy']:.2f} %", f"{100 * found['test_accuracy']:.2f} %",
                           f"{found['test_errors']} of {found['images']['test']:,}",
                           f"{found['training_seconds']:.1f} s"]
    seconds = [results[name]["training_seconds"] for name in ("finetune", "fresh")]
    assert f"takes {seconds[0] / seconds[1]:.2f} of fresh\n" in stdout and "batch size 32" in stdout
    (out / "results" / "base.json").unlink()
    assert "| base |" not in run("compare", "--out", out)[1]


def test_compare_and_the_figure_say_what_the_user_changed_between_the_two(run, out):
    assert run("train_fresh", "--epochs", 2, "--seed", 3, "--batch-size", 64, "--learning-rate", 0.004,
               "--out", out)[0] == 0
    assert run("train_base", "--epochs", 1, "--batch-size", 32, "--out", out)[0] == 0
    change(out, "finetune", environment=read_json(out / "results" / "finetune.json")["environment"] | {"cpu": "other"})
    stdout = run("compare", "--out", out)[1]
    lines = [line.removeprefix("not alike: ") for line in stdout.splitlines() if line.startswith("not alike: ")]
    assert [line.split(" (")[0] for line in lines] == ["seed", "epochs", "batch size", "learning rate", "cpu", "base"]
    assert lines[0] == "seed (fine-tuned 0, fresh 3)" and "learning rate 0.004" in stdout
    results = read_results(out)
    title = comparison_figure(results["finetune"], results["fresh"], not_alike(results)).get_suptitle()
    assert all(line in " ".join(title.split()) for line in lines) and "learning rate 0.004" in title


def test_results_that_cannot_be_compared_are_named(run, out):
    change(out, "fresh", settings={"digits": [7, 8]})
    assert "the same --digits" in refuse(run, out, "compare")
    for contents in ("{", "[]", (out / "results" / "finetune.json").read_text(encoding="utf-8")):
        (out / "results" / "fresh.json").write_text(contents, encoding="utf-8")
        assert "run train_fresh.py" in refuse(run, out, "compare")
    (out / "results" / "finetune.json").unlink()
    assert "run finetune.py" in refuse(run, out, "compare")


# Figures


def test_every_point_is_inside_the_axes_whatever_the_losses_are(finished):
    results = read_results(finished)
    for loss, row in zip((40, 5e-6, 2e-8), results["finetune"]["curve"]):
        row["train_loss"] = loss
    for figure in (loss_figure(results), comparison_figure(results["finetune"], results["fresh"], [])):
        figure.draw_without_rendering()
        for axes in figure.axes:
            points = axes.transAxes.inverted().transform(
                axes.transData.transform([point for line in axes.lines for point in line.get_xydata()]))
            assert 0 < points.min() and points.max() < 1
            labels = [text.get_window_extent() for text in axes.texts]
            assert all(label.x0 >= axes.bbox.x1 for label in labels)  # beside the lines
            assert len(labels) < 2 or not labels[0].overlaps(labels[1])


def test_figures_owe_nothing_to_the_readers_matplotlibrc(finished):
    results = read_results(finished)
    expected = to_png(loss_figure(results))
    with matplotlib.rc_context({"axes.facecolor": "black", "figure.facecolor": "black", "font.size": 30}):
        assert to_png(loss_figure(results)) == expected


# Flags


def test_a_base_from_elsewhere_other_cuts_and_the_usual_way_of_freezing(run, finished, tmp_path):
    path = finished / "checkpoints" / "base.pt"
    before = load_checkpoint(path)[0].state_dict()
    for flags, kept in ((("--frozen", 2, "--reinit", 1), ("conv1.", "conv2.")), (("--frozen", 0, "--reinit", 4), ()),
                        (("--recompute-frozen", "--digits", "7,9"), ("conv1.",))):
        assert run("finetune", "--base", path, "--batch-size", 32, "--out", tmp_path, *flags)[0] == 0
        model, _ = load_checkpoint(tmp_path / "checkpoints" / "finetune.pt")
        assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == [
            name for name in before if name.startswith(kept)]
    found = read_json(tmp_path / "results" / "finetune.json")
    assert found["base"]["checkpoint"] == read_json(finished / "results" / "base.json")["checkpoint"]
    assert found["settings"]["digits"] == [7, 9] and found["curve"][0]["seconds"] == 0


# Mistakes: one line, exit status 2, nothing overwritten


def refuse(run, out, script, *flags):
    before = snapshot(out)
    status, _, stderr = run(script, "--out", out, *flags)
    assert status == 2 and snapshot(out) == before
    assert stderr.startswith("error: ") and stderr.count("\n") == 1
    return stderr


@pytest.mark.parametrize("flag, value", [("--digits", "6-0"), ("--epochs", "0"), ("--learning-rate", "nan")])
def test_a_wrong_flag_is_argparses_error(run, tmp_path, flag, value):
    status, stdout, stderr = run("train_base", "--out", tmp_path, flag, value)
    assert status == 2 and stdout == "" and f"error: argument {flag}" in stderr and not list(tmp_path.iterdir())


def test_what_cannot_be_trained_is_named_and_saves_nothing(run, out):
    assert "cannot be divided" in refuse(run, out, "finetune", "--frozen", 3, "--reinit", 2)
    assert "trained on 6 already" in refuse(run, out, "finetune", "--digits", "6-9")
    assert "optimisation steps are too few" in refuse(run, out, "train_fresh", "--epochs", 9, "--batch-size", 60000)
    assert "diverged in epoch 1" in refuse(run, out, "train_fresh", "--learning-rate", "1e30")


def test_an_output_folder_that_cannot_be_written_is_named_before_training(run, tmp_path):
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        status, stdout, stderr = run("train_base", "--out", out)
        assert status == 2 and stdout == "" and "--out" in stderr and stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "precious"


def test_a_full_disk_is_one_line_and_leaves_nothing_half(run, out, monkeypatch):
    def write_half(path, contents, write=Path.write_bytes):
        write(path, contents[: len(contents) // 2])
        if "results" in str(path.parent):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, contents)

    monkeypatch.setattr(Path, "write_bytes", write_half)
    assert "No space left on device" in refuse(run, out, "train_fresh", "--epochs", 1, "--batch-size", 32)


class Malice:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_base_that_is_none_is_named_and_never_executed(run, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "other.pt"
    assert f"there is no {path}: run train_base.py" in refuse(run, out, "finetune", "--base", path)
    for contents in ({"model": {"fc2.bias": torch.zeros(10)}}, Malice()):
        torch.save(contents, path)
        assert "is not a checkpoint of this network" in refuse(run, out, "finetune", "--base", path)
    assert not (tmp_path / "executed").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "executed").exists()  # it would have been


# The process


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_is_one_line_and_earlier_results_stay(out):
    before = snapshot(out)
    process = start("train_base.py", "--out", out, "--epochs", 500,  # also where a shell in the background ignores it
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout.readline().startswith("epoch 0")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr == "interrupted: what was finished is kept\n"
    assert snapshot(out) == before


def test_importing_changes_nothing_in_the_process():
    modules = [path.stem for path in ROOT.glob("*.py")] + [f"experiments.{path.stem}"
                                                           for path in ROOT.glob("experiments/*.py")]
    program = f"""
import json, signal, sys, warnings, os, threading
import matplotlib, torch, torchvision, tqdm, scipy.stats
import matplotlib.style, torch.utils.flop_counter
def state():
    return [sys.excepthook, threading.excepthook, sys.stdout, sys.stderr, dict(os.environ), warnings.filters[:],
            [signal.getsignal(number) for number in signal.valid_signals()], dict(matplotlib.rcParams),
            torch.get_num_threads(), torch.get_rng_state().tolist(), torch.get_default_dtype(), os.getcwd(),
            sys.path[:]]
before = state()
for name in {modules!r}:
    __import__(name)
    if state() != before:
        print(name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
