"""The scripts as a user runs them: what they leave and print, and what happens to mistakes and interruptions."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
import torch
from conftest import ROOT, SCRIPTS, read_json, run_script, snapshot, start
from torch import nn

import data
import train_fresh
from compare import find_differences, read_results
from experiments.runs import MACHINE, key, read_runs, setting
from model import build_model, count_parameters, divide
from plotting import comparison_figure, loss_figure, to_png
from results import load_checkpoint
from training import evaluate

BLOCKS = len(build_model())
SETTINGS = {"digits", "seed", "epochs", "batch_size", "learning_rate", "device", "per_digit"}
ROW = {"epoch", "seconds", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"}
KEYS = {"experiment", "settings", "parameters", "network", "images", "train_accuracy", "test_accuracy", "test_errors",
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
    assert {path.relative_to(finished).as_posix() for path in snapshot(finished)} == {
        f"{folder}/{name}{end}" for name in SCRIPTS
        for folder, end in (("results", ".json"), ("plots", "_loss.png"), ("checkpoints", ".pt"))}


@pytest.mark.parametrize("name", SCRIPTS)
def test_results_have_the_expected_keys_and_match_the_checkpoint(finished, name, old_task, new_task):
    found = read_json(finished / "results" / f"{name}.json")
    task = old_task if name == "base" else new_task
    model, origin = load_checkpoint(str(finished / "checkpoints" / f"{name}.pt"))
    assert set(found) == KEYS | ({"base"} if name == "finetune" else set())
    assert set(found["settings"]) == SETTINGS | ({"frozen", "reinit"} if name == "finetune" else set())
    assert found["settings"]["digits"] == list(task.digits) and found["settings"]["per_digit"] is None
    assert found["network"] == str(model) and found["parameters"] == count_parameters(model)
    assert found["images"] == {part: len(getattr(task, part).labels) for part in ("train", "validation", "test")}
    assert found["train_accuracy"] == evaluate(model, task.train)[1]  # of all training images
    assert found["test_accuracy"] == 1 - found["test_errors"] / found["images"]["test"]
    assert found["test_accuracy"] == pytest.approx(evaluate(model, task.test)[1])
    assert json.loads(json.dumps(origin)) == found["settings"] | {"checkpoint": found["checkpoint"]}
    assert all(set(row) == ROW for row in found["curve"]) and [row["epoch"] for row in found["curve"]] == [0, 1, 2, 3]
    assert found["training_seconds"] == found["curve"][-1]["seconds"]
    assert (found["curve"][0]["seconds"] > 0) == (name == "finetune")  # its features
    assert set(found["environment"]) == {"torch", "python", "device", "threads", "cpu"}


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


# Comparing


def test_compare_prints_results_settings_and_times_and_finds_no_difference(run, out):
    status, stdout, stderr = run("compare", "--out", out)
    assert status == 0 and "difference" not in stdout, stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in stdout.splitlines() if line.startswith("|")]
    results = read_results(out)
    for row, found in zip(rows[2:], results.values(), strict=True):
        assert row[2:] == [f"{100 * found['train_accuracy']:.3f} %", f"{100 * found['test_accuracy']:.2f} %",
                           f"{found['training_seconds']:.1f} s"]
        assert f"; {found['test_errors']} errors in {found['images']['test']:,} test images\n" in stdout
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(stdout.splitlines()[:2]) in readme  # its table, and the report's Table 1, have these columns
    seconds = [results[name]["training_seconds"] for name in ("finetune", "fresh")]
    assert f"takes {100 * seconds[0] / seconds[1]:.0f} % of the fresh model's\n" in stdout
    assert "seed 0, epochs 3, batch size 32, learning rate 0.008, frozen 1, reinit 2; " in stdout
    assert "the frozen blocks' features" in stdout
    change(out, "finetune", settings=results["finetune"]["settings"] | {"frozen": 0})
    assert "features" not in run("compare", "--out", out)[1]
    (out / "results" / "base.json").unlink()
    stdout = run("compare", "--out", out)[1]
    assert "| base |" not in stdout and "base of the fine-tuned model: device cpu, digits 0-6, per" in stdout


def test_compare_and_the_figure_say_what_the_user_changed_between_the_two(run, out, monkeypatch):
    assert run("train_base", "--epochs", 1, "--batch-size", 32, "--out", out)[0] == 0
    change(out, "finetune", environment=read_json(out / "results" / "finetune.json")["environment"] | {"cpu": "other"})
    block = nn.Dropout(0.1)
    monkeypatch.setattr(train_fresh, "build_model", lambda seed: build_model(seed).append(block))
    assert run("train_fresh", "--epochs", 2, "--seed", 3, "--batch-size", 64, "--learning-rate", 0.004,
               "--out", out)[0] == 0
    stdout = run("compare", "--out", out)[1]
    lines = [line.removeprefix("difference: ") for line in stdout.splitlines() if line.startswith("difference: ")]
    assert [line.split(" (")[0] for line in lines] == ["seed", "epochs", "batch size", "learning rate", "cpu",
                                                       "network", "base"]
    assert lines[0] == "seed (fine-tuned 0, fresh 3)" and "learning rate 0.004" in stdout
    assert lines[5].startswith("network (only fresh: ") and str(block) in lines[5]
    results = read_results(out)
    title = comparison_figure(results["finetune"], results["fresh"], find_differences(results)).get_suptitle()
    assert all(line in " ".join(title.split()) for line in lines)


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
    for loss, row in zip((2.3, 40, 5e-6, 0), results["finetune"]["curve"]):
        row["train_loss"] = loss
    for name in ("base", "fresh"):  # one epoch, and a loss of 0 throughout
        results[name]["curve"] = [row | dict.fromkeys(("train_loss", "validation_loss"), 0)
                                  for row in results[name]["curve"][:2]]
    for figure in (loss_figure(results), comparison_figure(results["finetune"], results["fresh"], [])):
        figure.draw_without_rendering()
        for axes in figure.axes:
            points = axes.transAxes.inverted().transform(
                axes.transData.transform([point for line in axes.lines for point in line.get_xydata()]))
            assert 0 <= points.min() and points.max() <= 1 and axes.get_ylim()[0] == 0
            assert all(len(line.get_xdata()) in (1, 3) for line in axes.lines)  # from epoch 1 on


def test_figures_ignore_the_readers_matplotlibrc(finished):
    results = read_results(finished)
    expected = to_png(loss_figure, results)
    with matplotlib.rc_context({"axes.facecolor": "black", "figure.facecolor": "black", "font.size": 30}):
        assert to_png(loss_figure, results) == expected


# Flags


@pytest.mark.parametrize("frozen, reinit, flags", [
    (1, 2, ()), (2, 1, ()), (0, BLOCKS, ()), (1, 2, ("--per-digit", 80))])
def test_finetune_prints_the_three_parts_and_keeps_the_frozen_one(run, finished, tmp_path, frozen, reinit, flags):
    path = finished / "checkpoints" / "base.pt"
    status, stdout, _ = run("finetune", "--base", path, "--batch-size", 32, "--out", tmp_path, "--frozen", frozen,
                            "--reinit", reinit, *flags)
    assert status == 0
    before, (model, _) = load_checkpoint(path)[0], load_checkpoint(tmp_path / "checkpoints" / "finetune.pt")
    kept = [name for name, value in model.state_dict().items() if torch.equal(value, before.state_dict()[name])]
    parts = divide(before, frozen, reinit)
    assert kept == list(parts[0].state_dict())
    for line, name, part in zip(stdout.splitlines(), ("frozen", "trained further", "reinitialised"), parts):
        blocks = [f"{block} ({count_parameters(module):,} parameters)" for block, module in part.named_children()]
        assert line == f"{name}: {', '.join(blocks) or 'nothing'}"
    found, its_base = read_json(tmp_path / "results" / "finetune.json"), read_json(finished / "results" / "base.json")
    assert found["base"] == its_base["settings"] | {"checkpoint": its_base["checkpoint"]}
    few = found["images"]["train"] == 240
    assert few == bool(flags) and found["settings"]["epochs"] == (200 if few else 34)  # as many as trained


@pytest.mark.usefixtures("same_network")
def test_a_script_repeats_a_run_of_the_study(tmp_path):
    """Equal where processor and versions are those of the line, elsewhere like another seed."""
    runs = read_runs(ROOT / "results" / "study.jsonl")
    line = next(run for run in runs if key(run) == key(setting("fresh", per_digit=10)) and run["seed"] == 0)
    assert run_script("train_fresh", "--per-digit", 10, "--out", tmp_path) == 0
    found = read_json(tmp_path / "results" / "fresh.json")
    assert found["images"]["train"] == 30 and found["settings"]["per_digit"] == 10
    here = all(line[name] == found["environment"][name] for name in MACHINE)
    assert found["test_accuracy"] == pytest.approx(line["outcome"]["test_accuracy"], abs=1e-9 if here else 0.06)


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
    assert "cannot be divided" in refuse(run, out, "finetune", "--frozen", BLOCKS)
    assert "trained on 6 already" in refuse(run, out, "finetune", "--digits", "6-9")
    assert "2 to " in refuse(run, out, "train_fresh", "--digits", 7, "--per-digit", 1)
    assert "diverged in epoch" in refuse(run, out, "train_fresh", "--learning-rate", "1e30")


def test_an_output_folder_that_cannot_be_made_is_named_before_training(run, tmp_path):
    (tmp_path / "plots").write_text("precious")
    for out in (tmp_path, tmp_path / "plots", tmp_path / "plots" / "out"):
        status, stdout, stderr = run("train_base", "--out", out)
        assert status == 2 and stdout == "" and str(out) in stderr and stderr.count("\n") == 1
    assert (tmp_path / "plots").read_text() == "precious"


def test_a_full_disk_is_one_line_and_leaves_no_partial_file(run, out, monkeypatch):
    def write_half(path, contents, write=Path.write_bytes):
        assert path.suffix == ".unfinished"  # never straight into its place
        write(path, contents[: len(contents) // 2])
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    before = snapshot(out)
    status, stdout, stderr = run("train_fresh", "--epochs", 1, "--batch-size", 32, "--out", out)
    assert (status, stderr.count("\n")) == (2, 1) and "No space left on device" in stderr
    assert "test accuracy" in stdout and snapshot(out) == before


class Malice:
    def __reduce__(self):
        return print, ("executed",)


def test_a_file_that_is_no_base_model_is_named_and_never_executed(run, out, tmp_path):
    path = tmp_path / "other.pt"
    assert f"there is no {path}: run train_base.py" in refuse(run, out, "finetune", "--base", path)
    for contents in ({"model": {"fc2.bias": torch.zeros(10)}}, Malice()):
        torch.save(contents, path)
        status, stdout, stderr = run("finetune", "--base", path, "--out", out)
        assert (status, stdout) == (2, "") and "is not what train_base.py saves" in stderr


def test_a_base_of_another_network_is_refused_and_a_bug_is_a_traceback(run, out, monkeypatch):
    def other(seed=None):
        model = build_model(seed)
        model[0].append(nn.Tanh())  # the same weights
        return model

    monkeypatch.setattr("results.build_model", other)
    assert "has another network than model.py" in refuse(run, out, "finetune")
    monkeypatch.setattr("results.build_model", lambda: nn.Conv2D(1, 2, 3))
    with pytest.raises(AttributeError, match="Conv2D"):
        run("finetune", "--out", out)


def test_scripts_that_only_read_make_no_folder(run, tmp_path):
    for script in ("compare", "experiments.evidence"):
        assert run(script, "--out", tmp_path / "typo")[0] == 2
    assert not (tmp_path / "typo").exists()


# The process


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_is_one_line_and_earlier_results_stay(out):
    before = snapshot(out)
    process = start("train_base.py", "--out", out, "--epochs", 20,  # also where a shell in the background ignores it
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert process.stdout.readline().startswith("epoch 1/20  ")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and stderr == "interrupted\n"
    assert snapshot(out) == before


def test_importing_changes_nothing_in_the_process():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in ROOT.glob("*.py")]
    modules += [f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("[!_]*.py")]
    program = f"""
import json, signal, sys, warnings, os, threading
import matplotlib, torch, tqdm, scipy.stats
import matplotlib.style
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
if "torchvision" in sys.modules:  # takes as long to import as torch
    print("torchvision")
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
