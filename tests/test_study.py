"""The experiments: draws, what a stopped study gives, statistics against textbook values, what the benchmark counts."""

import json
import os

import numpy as np
import pytest
import torch
from conftest import DATA, read_json, snapshot
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data import MEAN, STD, Split, UserError
from experiments import benchmark, study, summary
from model import Frozen, build_model

CPU = torch.device("cpu")


def finished(run, accuracy=0.95):
    """A line of the study: `run` with an outcome that was not trained."""
    images = 6989 if run["model"] == "base" else 3011
    wrong = list(range(round((1 - accuracy) * images)))
    outcome = {"train_accuracy": 1.0, "validation_accuracy": accuracy, "test_accuracy": 1 - len(wrong) / images}
    return {**run, "outcome": outcome | ({"wrong": wrong} if run["new"] == [7, 8, 9] else {}), "torch": "2",
            "threads": 1, "cpu": "one"}


@pytest.fixture
def written(tmp_path):
    """A folder with a finished study of 3 seeds and 4 choices."""
    runs = study.plan(3, 4)
    accuracies = [0.9 + 0.001 * (run["seed"] % 7) + 0.002 * run["new"][0] * (run["model"] != "fresh") for run in runs]
    study.append(list(map(finished, runs, accuracies)), tmp_path / "results" / "study.jsonl")
    return tmp_path


# Plan and draws


def test_the_plan_has_every_cut_and_every_choice_and_no_run_twice():
    plan = study.plan(10, 120)
    assert len({study.key(run) for run in plan}) == len(plan)
    assert len(study.CUTS) == 14 and all(frozen + reinit <= 4 for frozen, reinit in study.CUTS)
    assert len({tuple(run["new"]) for run in plan}) == 120
    assert study.spread(1000) == study.spread(120) and len(set(study.spread(12))) == 12
    assert all(study.spread(number)[0] == (7, 8, 9) for number in (2, 12, 120))
    seeds = [(run["seed"], tuple(run["new"])) for run in plan if run["model"] == "base" and run["new"] != [7, 8, 9]]
    assert len({seed for seed, _ in seeds}) == len(seeds) == 119 + 5 * 2  # no two choices share a seed's noise


def test_a_smaller_plan_is_part_of_a_larger_one():
    assert {study.key(run) for run in study.plan(5, 12)} < {study.key(run) for run in study.plan(10, 120)}


def test_runs_with_few_labels_take_the_same_number_of_steps():
    for run in study.plan(10, 120):
        if run["per_digit"]:
            batches = max(1, run["per_digit"] * 3 * (25 if run["shifted"] else 1) // run["batch_size"])
            assert any(0 <= run["epochs"] * batches - steps < batches for steps in study.STEPS_TRIED)


def test_draws_of_few_labels_are_nested_balanced_and_in_the_order_of_the_data(new_task):
    def places(count, seed):
        numbered = new_task.train._replace(images=torch.arange(len(new_task.train.labels)))
        drawn = study.few_labels(numbered, count, seed)
        assert [int((drawn.labels == digit).sum()) for digit in (7, 8, 9)] == [count] * 3
        assert torch.equal(drawn.images, drawn.images.sort().values)
        assert torch.equal(drawn.labels, new_task.train.labels[drawn.images])
        return set(drawn.images.tolist())

    assert places(5, 0) < places(30, 0)
    assert places(5, 0) == places(5, 0) != places(5, 1)
    assert study.few_labels(new_task.train, None, 0) is new_task.train


def test_every_image_is_there_in_its_25_shifts():
    image = torch.arange(28.0 * 28).reshape(1, 1, 28, 28) + 1
    shifted = study.shift_images(Split(torch.cat([image, -image]), torch.tensor([7, 8])))
    assert shifted.images.shape == (50, 1, 28, 28) and shifted.labels.tolist() == 25 * [7, 8]
    assert len({each.numpy().tobytes() for each in shifted.images}) == 50
    places = {tuple((each[0] == 500).nonzero()[0].tolist()) for each in shifted.images[::2]}
    assert places == {(499 // 28 + down, 499 % 28 + right) for down in range(-2, 3) for right in range(-2, 3)}
    corner = shifted.images[0]  # moved down and right
    assert torch.equal(corner[0, 2:, 2:], image[0, 0, :26, :26]) and (corner[0, :2] == -MEAN / STD).all()


# Carrying the runs out


def test_real_processes_train_a_group_to_its_end(tmp_path):
    path, new = tmp_path / "results" / "study.jsonl", tuple(range(9))  # the base has one digit: that is soon trained
    runs = [study.setting("base", 0, new), study.setting("fresh", 0, new, per_digit=5)]
    study.carry_out(runs, path, 1, DATA, CPU)
    found = study.read_runs(path)
    assert [study.key(run) for run in found] == [study.key(run) for run in runs]
    assert all(run["threads"] == 1 and run["torch"] == torch.__version__ for run in found)
    assert found[0]["outcome"]["test_accuracy"] == 1 and 0.5 < found[1]["outcome"]["test_accuracy"] < 1


def die(*_):
    os._exit(1)


def test_a_process_that_dies_ends_the_study_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "train_group", die)
    with pytest.raises(UserError, match="a process of the study died.* goes on where it was"):
        study.carry_out([study.setting("base", 0)], tmp_path / "study.jsonl", 1, DATA, CPU)


def test_a_half_line_at_the_end_is_dropped_and_its_run_is_trained_again(written):
    path = written / "results" / "study.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert len(study.read_runs(path)) == len(lines) - 1
    study.append([json.loads(lines[-1])], path)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["no JSON", "{}", "[1]", "null"])
def test_a_line_that_is_no_run_is_named(run, written, line):
    path = written / "results" / "study.jsonl"
    path.write_text(f"{path.read_text(encoding='utf-8')}{line}\n", encoding="utf-8")
    before = snapshot(written)
    for script in ("experiments.study", "experiments.summary"):
        status, _, stderr = run(script, "--out", written)
        assert status == 2 and "line" in stderr and str(path) in stderr and stderr.count("\n") == 1
        assert snapshot(written) == before


def test_a_smaller_study_beside_a_finished_one_trains_nothing_and_changes_nothing(run, written, monkeypatch):
    assert run("experiments.summary", "--out", written)[0] == 0
    before, asked = snapshot(written), []
    monkeypatch.setattr(study, "carry_out", lambda runs, *_: asked.append(len(runs)))
    monkeypatch.setattr(study, "load_mnist", lambda *_, **__: None)
    assert run("experiments.study", "--seeds", 3, "--choices", 2, "--out", written)[0] == 0
    assert run("experiments.summary", "--out", written)[0] == 0
    assert asked == [0] and snapshot(written) == before
    assert run("experiments.study", "--seeds", 4, "--choices", 4, "--out", written)[0] == 0
    assert asked[1] == len(study.plan(4, 4)) - len(study.plan(3, 4))


# Statistics


def test_the_summary_says_how_much_is_complete(run, written):
    path = written / "results" / "study.jsonl"
    assert run("experiments.summary", "--out", written)[0] == 0
    found = read_json(written / "results" / "summary.json")
    assert (found["seeds"], found["number_of_choices"]) == (3, 4)
    assert {plot.name for plot in (written / "plots").iterdir()} == {"labels.png", "cuts.png", "choices.png"}
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:20]))
    status, _, stderr = run("experiments.summary", "--out", written)
    assert status == 2 and "not far enough" in stderr


def test_interval_is_students_where_all_images_are_alike():
    values = np.array([1, 2, 3, 4, 5.0])  # t = 4.2426 with 4 degrees of freedom; t(0.975, 4) = 2.7764
    result = summary.interval(np.tile(values[:, None], (1, 50)))
    assert result["mean"] == 3 and result["sd"] == pytest.approx(1.581139, abs=1e-6)
    assert (result["low"], result["high"]) == pytest.approx((1.036757, 4.963243), abs=1e-5)
    assert result["p"] == pytest.approx(0.013236, abs=1e-5)


def test_interval_covers_seeds_and_images_together():
    draw, covered = np.random.default_rng(1), 0
    for _ in range(400):
        values = draw.normal(0, 1, (10, 1)) + draw.normal(0, 10, (1, 200)) + draw.normal(0, 3, (10, 200))
        result = summary.interval(values)
        covered += result["low"] <= 0 <= result["high"]
    assert 0.94 <= covered / 400 <= 0.995  # cautious: t has the seeds' few degrees of freedom


def test_the_spread_between_choices_is_told_from_the_noise_within():
    runs = []
    for run in study.plan(10, 120):
        gain = 0.05 + 0.01 * run["new"][0] + np.random.default_rng((run["seed"], *run["new"])).normal(0, 0.01)
        runs.append(finished(run, 0.8 + (gain if run["model"] == "finetune" else 0)))
    found = summary.summarise_choices(summary.Outcomes(runs), range(10), study.CHOICES, 10, False)
    first = np.array([new[0] for new in study.CHOICES])
    assert found["within_sd"] == pytest.approx(0.01, rel=0.35)  # 19 degrees of freedom
    assert found["between_sd"] == pytest.approx(first.std(ddof=1) / 100, rel=0.15)
    assert found["low"] < 0.05 + 0.01 * first.mean() < found["high"]
    assert found["share_of_errors_removed"] == pytest.approx(found["mean"] / 0.2, rel=0.01)
    assert found["better"] + found["equal"] + found["worse"] == 120


def test_the_best_settings_are_chosen_on_validation_images_for_each_model_alone():
    runs = []
    for run in study.plan(3, 2):
        best = (True, 0.002) if run["model"] == "fresh" else (False, 0.016)
        line = finished(run)  # alike on the test set
        line["outcome"]["validation_accuracy"] = 0.9 if (run["shifted"], run["learning_rate"]) == best else 0.8
        runs.append(line)
    found = summary.summarise_tuned(summary.Outcomes(runs), range(3), 10)["best"]
    assert {model: (row["shifted"], row["rate"]) for model, row in found["settings"].items()} == {
        "fresh": (True, 0.002), "finetune": (False, 0.016)}
    assert found["gain"]["mean"] == 0


# The benchmark


def test_operations_are_those_that_pytorch_counts(new_task):
    images = Split(*(values[:12] for values in new_task.train))

    def counted(first, trained, inputs):
        """Operations of a step: forwards through both parts, backwards through `trained`."""
        with FlopCounterMode(display=False) as counter:
            trained.train()(first(inputs)).sum().backward()
        return counter.get_total_flops()

    model = build_model(0)
    first, trained = Frozen(model[:1]), model[1:]
    with FlopCounterMode(display=False) as counter:
        features = first(images.images)
    expected = {"fresh": 2 * counted(nn.Sequential(), build_model(0), images.images),
                "recompute": 2 * counted(first, trained, images.images),
                "once": counter.get_total_flops() + 2 * counted(nn.Sequential(), trained, features)}
    for way, total in expected.items():
        assert benchmark.count_operations(way, 12, epochs=2)["total"] == total


def test_the_parts_of_the_saving_add_up():
    seconds = {"base": (20, 21), "fresh": (10, 12), "recompute": (7, 8), "once": (6, 6)}
    curves = {way: [[{"epoch": 5, "seconds": time, "validation_accuracy": 1}] for time in times]
              for way, times in seconds.items()}
    found = benchmark.summarise(curves, {way: benchmark.count_operations(way, 16259, 5) for way in benchmark.WAYS})
    backward, forward = found["saved"].values()
    assert (backward["of_saving"]["lowest"], backward["of_saving"]["highest"]) == pytest.approx((4 / 6, 3 / 4))
    assert (forward["of_fresh"]["lowest"], forward["of_fresh"]["highest"]) == pytest.approx((1 / 10, 2 / 12))
    once = found["ways"]["once"]["operations"]["total"] / found["ways"]["fresh"]["operations"]["total"]
    assert 1 - once == pytest.approx(backward["predicted_of_fresh"] + forward["predicted_of_fresh"])


def test_the_benchmark_measures_the_four_trainings(run, tmp_path):
    assert run("experiments.benchmark", "--rounds", 1, "--out", tmp_path)[0] == 0
    found = read_json(tmp_path / "results" / "benchmark.json")
    assert all(len(values) == 1 for values in found["seconds"].values())
    assert found["ways"]["fresh"]["to_fresh"] == {"median": 1, "lowest": 1, "highest": 1}
    assert (tmp_path / "plots" / "times.png").exists()
