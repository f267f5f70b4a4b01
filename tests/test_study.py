"""The experiments: draws, what a stopped study keeps, intervals against simulations, what the benchmark counts."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
from conftest import DATA, read_json, snapshot

from data import MEAN, STD, Split
from experiments import benchmark, plan, study, summary
from experiments.plan import key, setting

HERE = {"torch": "2", "device": "cpu", "cpu": "one", "threads": 1}


def finished(run, accuracy=0.95):
    """A line of the study: `run` with an outcome that was not trained."""
    images = summary.TEST_IMAGES[run["model"]]
    wrong = list(range(round((1 - accuracy) * images)))
    outcome = {"train_accuracy": 1.0, "validation_accuracy": accuracy, "test_accuracy": 1 - len(wrong) / images}
    return run | {"outcome": outcome | ({"wrong": wrong} if run["new"] == [7, 8, 9] else {})} | HERE


@pytest.fixture
def written(tmp_path):
    """A folder with a finished study of 3 seeds and 4 choices."""
    accuracies = {"base": 0.99, "finetune": 0.95, "fresh": 0.9, "untrained": 0.9}
    lines = [json.dumps(finished(run, accuracies[run["model"]] + 0.001 * (run["seed"] % 7))) + "\n"
             for run in plan.plan(3, 4)]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "study.jsonl").write_text("".join(lines), encoding="utf-8")
    return tmp_path


# Plan and draws


def test_the_plan_has_every_cut_and_every_choice_and_no_run_twice():
    runs = plan.plan(10, 120)
    assert len({key(run) for run in runs}) == len(runs)
    blocks = len(plan.BLOCKS)
    assert len(plan.CUTS) == blocks * (blocks + 3) // 2 - 1  # frozen and reinitialised: at most all, and not all fresh
    assert {(run["frozen"], run["reinit"]) for run in runs} == {*plan.CUTS, (0, blocks)}
    assert len({tuple(run["new"]) for run in runs}) == 120
    assert {run["seed"] for run in runs if run["per_digit"] == 10 and run["new"] == [7, 8, 9]} == set(range(30))
    assert all(plan.spread(number)[0] == (7, 8, 9) for number in (2, 12, 120))
    seeds = [(run["seed"], tuple(run["new"])) for run in runs if run["model"] == "base" and run["new"] != [7, 8, 9]]
    assert len({seed for seed, _ in seeds}) == len(seeds) == 119  # no two choices share a seed's noise
    assert {key(run) for run in plan.plan(5, 12)} < {key(run) for run in runs}


def test_a_step_with_few_labels_takes_the_same_images_with_shifts_and_without():
    for count, shifted in plan.LABEL_COUNTS:
        run, images = setting("fresh", 0, per_digit=count, shifted=shifted), 3 * count
        assert run["batch_size"] == {15: 15, 30: 30, 300: 150, 3000: 130}[images]
        steps = run["epochs"] * (images * (25 if shifted else 1) // run["batch_size"])
        assert 200 <= steps <= 207


def test_every_image_is_there_in_its_25_shifts():
    image = torch.arange(28.0 * 28).reshape(1, 1, 28, 28) + 1
    shifted = study.shift_images(Split(torch.cat([image, -image]), torch.tensor([7, 8])))
    assert shifted.images.shape == (50, 1, 28, 28) and shifted.labels.tolist() == 25 * [7, 8]
    places = {tuple((each[0] == 500).nonzero()[0].tolist()) for each in shifted.images[::2]}
    assert places == {(499 // 28 + down, 499 % 28 + right) for down in range(-2, 3) for right in range(-2, 3)}
    corner = shifted.images[0]  # moved down and right
    assert torch.equal(corner[0, 2:, 2:], image[0, 0, :26, :26]) and (corner[0, :2] == -MEAN / STD).all()


# Carrying the runs out


def test_real_processes_train_groups_to_their_end(tmp_path):
    path, new = tmp_path / "study.jsonl", tuple(range(9))  # the base has one digit: that is soon trained
    runs = [setting(model, seed, new=new, per_digit=count) for seed in (0, 1)
            for model, count in (("base", None), ("fresh", 5))]
    study.train_all(runs, path, 2, DATA, "cpu")
    found = study.read_runs(path)
    assert sorted(map(key, found)) == sorted(map(key, runs))
    assert all(run["threads"] == 1 and run["torch"] == torch.__version__ for run in found)
    for run in found:
        low, high = (0.99, 1) if run["model"] == "base" else (0.4, 0.99)
        assert low < run["outcome"]["test_accuracy"] <= high


def test_a_study_that_is_stopped_keeps_every_finished_run(tmp_path, new_task, monkeypatch):
    path, runs, trained = tmp_path / "study.jsonl", [setting("base", 0), *plan.both(0)], []

    def carry_out(run, task, base):
        trained.append(run)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return None, finished(run)

    monkeypatch.setattr(study, "carry_out", carry_out)
    monkeypatch.setattr(study, "_mnist", new_task, raising=False)  # what `begin` does in each process
    monkeypatch.setattr(study, "_finished", multiprocessing.Value("i", 0), raising=False)
    with pytest.raises(KeyboardInterrupt):
        study.train_group(runs, path, "cpu")
    assert [key(run) for run in study.read_runs(path)] == [key(run) for run in runs[:2]]
    study.train_group(runs[2:], path, "cpu")  # the base once more, but not its line
    assert [key(run) for run in study.read_runs(path)] == [key(run) for run in runs]


def test_a_smaller_study_beside_a_finished_one_changes_nothing_and_a_half_line_is_trained_again(
        run, written, monkeypatch):
    asked, path = [], written / "results" / "study.jsonl"
    monkeypatch.setattr(study, "train_all", lambda runs, *_: asked.append(len(runs)))
    assert run("experiments.summary", "--out", written)[0] == 0
    before = snapshot(written)
    assert run("experiments.study", "--seeds", 3, "--choices", 2, "--out", written)[0] == 0
    assert run("experiments.summary", "--out", written)[0] == 0
    assert asked == [0] and snapshot(written) == before
    path.write_bytes(path.read_bytes()[:-40])
    status, stdout, _ = run("experiments.study", "--seeds", 3, "--choices", 4, "--out", written)
    assert status == 0 and asked == [0, 1] and "passed over 1 of" in stdout  # passed over, and said
    assert path.read_bytes().endswith(b"\n")  # the next line begins on a new one


# Statistics


@pytest.mark.parametrize("seeds", [10, 30])
@pytest.mark.parametrize("of_seeds, of_images", [(0, 0), (0.05, 0), (0, 0.5), (0.05, 0.5)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(seeds, of_seeds, of_images):
    draw, covered, tries = np.random.default_rng(1), 0, 2000
    for _ in range(tries):
        values = (draw.normal(0, of_seeds, (seeds, 1)) + draw.normal(0, of_images, (1, 300))
                  + draw.normal(0, 1, (seeds, 300)))
        found = summary.interval(values)
        covered += found["low"] <= 0 <= found["high"]
    assert 0.93 <= covered / tries <= 0.985


def test_the_interval_is_students_where_all_images_are_alike():
    found = summary.interval(np.tile(np.array([[1], [2], [3], [4], [5.0]]), (1, 50)))  # t(0.975, 4) = 2.7764
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((3, 1.036757, 4.963243), abs=1e-5)
    assert summary.student_interval(np.array([1, 2, 3, 4, 5.0])) == pytest.approx(found)
    assert summary.interval(np.zeros((3, 4))) == {"mean": 0, "low": 0, "high": 0}


def test_the_summary_says_what_is_complete_and_where_it_was_made(run, written):
    path = written / "results" / "study.jsonl"
    assert run("experiments.summary", "--out", written)[0] == 0
    found = read_json(written / "results" / "summary.json")
    assert (found["seeds"], found["number_of_choices"], found["tuned"]["seeds"]) == (3, 4, 9)
    assert found["machines"] == [HERE]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[1:], json.dumps(json.loads(lines[0]) | {"torch": "3"})]) + "\n", encoding="utf-8")
    assert [machine["torch"] for machine in summary.summarise(study.read_runs(path))["machines"]] == ["2", "3"]
    path.write_text("".join(lines[:20]), encoding="utf-8")
    status, _, stderr = run("experiments.summary", "--out", written)
    assert status == 2 and "not far enough" in stderr


def test_the_best_settings_are_chosen_on_validation_images_for_each_model_alone():
    runs = []
    for run in plan.plan(3, 2):
        line, shifted_best = finished(run), run["model"] == "fresh"  # alike on the test set
        best = setting(run["model"], run["seed"], per_digit=10, shifted=shifted_best, steps=800, rate=0.002)
        line["outcome"]["validation_accuracy"] = 0.9 if run == best else 0.8
        runs.append(line)
    found = summary.summarise(runs)["tuned"]["best"]
    assert {model: (row["shifted"], row["steps"], row["rate"]) for model, row in found["settings"].items()} == {
        "fresh": (True, 800, 0.002), "finetune": (False, 800, 0.002)}
    assert found["gain"]["mean"] == 0


# The benchmark


def test_operations_are_counted_and_the_parts_of_the_saving_add_up():
    images = {"base": 20, "fresh": 10, "recompute": 10, "once": 10}
    operations = benchmark.count_operations(images, epochs=5)
    conv1 = 2 * (24 * 24 * 16) * (5 * 5)  # a multiplication and an addition for every weight of every output value
    assert operations["frozen_weight_gradient"] == conv1 * 10 * 5
    assert operations["recompute"] - operations["once"] == conv1 * 10 * 4
    assert operations["base"] == 2 * operations["fresh"]
    assert operations["features"] == conv1 * 10
    found = benchmark.savings({"base": 20, "fresh": 10, "recompute": 7, "once": 6, "features": 2})
    assert found == {"total": 0.4, "backward": 0.3, "forward": 0.3, "features": 0.2}


def test_the_benchmark_measures_the_four_trainings(run, tmp_path):
    assert run("experiments.benchmark", "--rounds", 1, "--out", tmp_path)[0] == 0
    found = read_json(tmp_path / "results" / "benchmark.json")
    assert all(len(values) == 1 for values in found["seconds"].values())
    assert 0 < found["seconds"]["features"][0] < found["seconds"]["once"][0]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"losses.png", "times.png"}
