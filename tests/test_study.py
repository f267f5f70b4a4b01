"""The experiments: statistics against textbook values, draws, what a stopped study gives, what the benchmark counts."""

import json
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import read_json, start
from torch import nn

from experiments import benchmark, study
from model import Frozen, build_model

# Statistics


def test_interval_is_the_textbook_s():
    result = study.interval([1, 2, 3, 4, 5])  # t = 4.2426 with 4 degrees of freedom; t(0.975, 4) = 2.7764
    assert result["n"] == 5 and result["mean"] == 3 and result["sd"] == pytest.approx(1.581139, abs=1e-6)
    assert (result["low"], result["high"]) == pytest.approx((1.036757, 4.963243), abs=1e-5)


def test_bootstrap_over_seeds_and_images_covers_both():
    draw = np.random.default_rng(1)
    seeds, images = draw.normal(0, 1, (10, 1)), draw.normal(0, 10, (1, 400))
    parts = [np.broadcast_to(part, (10, 400)) for part in (seeds, images, seeds + images)]
    width = [both["high"] - both["low"] for both in map(study.bootstrap, parts)]
    assert width[1] == pytest.approx(2 * 1.96 * 10 / 20, rel=0.15)
    assert width[2] == pytest.approx((width[0] ** 2 + width[1] ** 2) ** 0.5, rel=0.1)


class Gains(study.Runs):
    """Runs whose gain is 0.05, plus 0.01 times the smallest new digit, plus noise of the seed."""

    def __init__(self):
        pass

    def gains(self, seeds, new=study.EXERCISE, per_digit=None):
        return [0.05 + 0.01 * new[0] + np.random.default_rng((seed, *new)).normal(0, 0.01) for seed in seeds]


def test_the_spread_between_pairs_is_told_from_the_noise_within():
    summary = study.summarise_pairs(Gains(), 10, 120, None)
    between = np.std([new[0] for new in study.spread(120)], ddof=1) / 100
    assert summary["within_sd"] == pytest.approx(0.01, rel=0.3)  # 33 degrees of freedom
    assert summary["between_sd"] == pytest.approx(between, rel=0.1)
    assert summary["low"] < 0.05 + 0.01 * np.mean([new[0] for new in study.spread(120)]) < summary["high"]
    assert summary["n"] == 120 and summary["rank_of_exercise"] < 5
    assert min(summary["by_digit"], key=summary["by_digit"].get) == "0"


# Plan and draws


def test_the_plan_has_every_cut_and_every_pair_and_no_run_twice():
    plan = study.plan(10, 120)
    assert len({study.key(run) for run in plan}) == len(plan)
    assert len(study.CUTS) == 14 and all(frozen + reinit <= 4 for frozen, reinit in study.CUTS)
    assert len({tuple(run["new"]) for run in plan}) == 120
    assert study.spread(1000) == study.spread(120) and len(set(study.spread(12))) == 12
    assert all(study.spread(number)[0] == (7, 8, 9) for number in (2, 12, 120))
    seeds = [(run["seed"], tuple(run["new"])) for run in plan if run["model"] == "base" and run["new"] != [7, 8, 9]]
    assert len({seed for seed, _ in seeds}) == len(seeds) == 119 + 5 * 2  # no two pairs share a seed's noise


def test_draws_of_few_labels_are_nested_balanced_and_the_same_for_a_seed(new_task):
    def identities(count, seed):
        drawn = study.few_labels(new_task.train, count, seed)
        assert [int((drawn.labels == digit).sum()) for digit in (7, 8, 9)] == [count] * 3
        return {image.numpy().tobytes() for image in drawn.images}

    assert identities(5, 0) < identities(30, 0)
    assert identities(5, 0) == identities(5, 0) != identities(5, 1)
    assert study.few_labels(new_task.train, None, 0) is new_task.train


# A run of the study


class Pool:
    """A pool without processes, in which the small data are seen."""

    def __init__(self, jobs, begin, options):
        study.worker = study.Worker(*options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    imap_unordered = staticmethod(map)


@pytest.fixture
def flags(small_mnist, monkeypatch):
    monkeypatch.setattr(study, "load_mnist", lambda data_dir, train: small_mnist[0 if train else 1])
    monkeypatch.setattr(study.multiprocessing, "get_context", lambda _: SimpleNamespace(Pool=Pool))
    monkeypatch.setattr(study, "LABELS", (5, 10))
    monkeypatch.setattr(study, "CUTS", [(1, 2), (0, 4)])
    monkeypatch.setattr(study, "RATES", (0.008,))
    return "--seeds", 3, "--pairs", 2, "--epochs", 1, "--batch-size", 256


def test_a_stopped_study_that_goes_on_gives_the_same_numbers(run, flags, tmp_path, monkeypatch):
    assert run("experiments.study", *flags, "--out", tmp_path)[0] == 0
    path = tmp_path / "results" / "study.json"
    whole = path.read_bytes()
    result = json.loads(whole)
    assert result["summary"]["pairs"]["10"]["n"] == 2
    assert {plot.name for plot in (tmp_path / "plots").iterdir()} == {"labels.png", "cuts.png", "pairs.png"}

    # As it would be if it had been stopped: runs are missing, and so is the summary.
    stopped = {key: value for key, value in result.items() if key != "summary"}
    path.write_text(json.dumps(stopped | {"runs": result["runs"][::5]}))
    assert run("experiments.study", *flags, "--out", tmp_path)[0] == 0
    assert path.read_bytes() == whole

    monkeypatch.setattr(study, "carry_out", lambda runs, finished, *_: [finished[study.key(run)] for run in runs])
    assert run("experiments.study", *flags, "--out", tmp_path)[0] == 0  # nothing is computed again
    status, _, stderr = run("experiments.study", *flags, "--epochs", 2, "--out", tmp_path)
    assert status == 2 and "holds a study with" in stderr and path.read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_study_and_its_processes_with_one_line(tmp_path):
    process = start("-m", "experiments.study", "--out", tmp_path, "--jobs", 1, "--epochs", 1, "--batch-size", 4096,
                    start_new_session=True)
    results, end = tmp_path / "results" / "study.json", time.monotonic() + 100
    while not results.exists():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stderr == "interrupted: no file is left half-written\n"
    assert len(read_json(results)["runs"]) >= 1


# The benchmark


@pytest.mark.parametrize("frozen, once", [(0, False), (1, False), (1, True), (2, True), (3, True)])
def test_values_moved_are_those_that_a_pass_with_hooks_sees(frozen, once):
    model = build_model(0)
    images = torch.randn(4, 1, 28, 28)
    initial, trained = Frozen(model[:frozen]), model[frozen:]
    if once:
        images, initial = initial(images).detach(), nn.Sequential()
    counted = benchmark.count(initial, trained, images)
    moved, passes = [], [1]

    def hook(layer, inputs, output):
        read, written = inputs[0].numel(), output.numel()
        moved.append(read + written)
        passes.append(1)
        if output.requires_grad:  # so autograd will come back to this layer
            moved.append(written + read + read * inputs[0].requires_grad)
            passes.append(1)

    for layer in nn.Sequential(initial, trained).modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.BatchNorm2d | nn.BatchNorm1d | nn.ReLU | nn.Linear):
            layer.register_forward_hook(hook)
    nn.Sequential(initial, trained)(images)
    assert (counted["values"], counted["passes"]) == (sum(moved) // 4, sum(passes))


def test_flops_are_those_of_the_layers():
    model, images = build_model(0), torch.randn(2, 1, 28, 28)
    conv1, conv2, fc1, fc2 = 2 * 25 * 16 * 24 * 24, 2 * 25 * 16 * 32 * 8 * 8, 2 * 512 * 64, 2 * 64 * 10
    forward = conv1 + conv2 + fc1 + fc2
    # Backwards twice as much, but no gradient for the input of the first trained block.
    assert benchmark.count(nn.Sequential(), model, images)["flops"] == 3 * forward - conv1
    initial, trained = Frozen(model[:1]), model[1:]
    assert benchmark.count(initial, trained, images)["flops"] == conv1 + 3 * (forward - conv1) - conv2
    assert benchmark.count(nn.Sequential(), trained, initial(images))["flops"] == 3 * (forward - conv1) - conv2


def test_the_three_constants_are_found():
    constants = {"pass": 2e-5, "flop": 5e-12, "byte": 1e-10}
    rows = [{"flops": flops, "values": values, "passes": passes, "batch_size": size}
            for flops, values, passes in ((6e6, 40_000, 25), (3e6, 9_000, 17), (1e5, 700, 3)) for size in (64, 256)]
    seconds = [sum(benchmark.predict(row, row["batch_size"], constants).values()) for row in rows]
    assert benchmark.fit_constants(rows, seconds) == pytest.approx(constants)
