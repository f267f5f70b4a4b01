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


def whole_study(seeds, choices, carry_out=finished):
    """The lines of a finished study."""
    outcomes, lines = {}, []
    while runs := [run for run in plan.plan(seeds, choices, outcomes) if key(run) not in outcomes]:
        lines += map(carry_out, runs)
        outcomes = study.outcomes_by_key(lines)
    return lines


@pytest.fixture
def written(tmp_path):
    """A folder with a finished study of 3 seeds and 4 choices."""
    accuracies = {"base": 0.99, "finetune": 0.95, "fresh": 0.9, "untrained": 0.9}
    lines = whole_study(3, 4, lambda run: finished(run, accuracies[run["model"]] + 0.001 * (run["seed"] % 7)))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "study.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


# Plan and draws


def test_the_plan_has_every_cut_and_every_choice_and_no_run_twice():
    runs = whole_study(10, 120)
    assert len({key(run) for run in runs}) == len(runs)
    blocks = len(plan.BLOCKS)
    assert len(plan.CUTS) == blocks * (blocks + 3) // 2 - 1  # frozen and reinitialised: at most all, and not all fresh
    assert {(run["frozen"], run["reinit"]) for run in runs} == {*plan.CUTS, (0, blocks)}
    assert len({tuple(run["new"]) for run in runs}) == 120
    assert {run["seed"] for run in runs if run["per_digit"] == 10 and run["new"] == [7, 8, 9]} == set(range(40))
    assert all(plan.spread(number)[0] == (7, 8, 9) for number in (2, 12, 120))
    seeds = [(run["seed"], tuple(run["new"])) for run in runs if run["model"] == "base" and run["new"] != [7, 8, 9]]
    assert len({seed for seed, _ in seeds}) == len(seeds) == 119  # no two choices share a seed's noise
    outcomes = study.outcomes_by_key(runs)
    for seeds, choices in ((5, 12), (1, 0)):  # a smaller study is part of a finished one
        assert {key(run) for run in plan.plan(seeds, choices, outcomes)} < outcomes.keys()


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


def test_a_smaller_study_changes_nothing_and_a_half_line_is_trained_again(run, written, monkeypatch):
    asked, path = [], written / "results" / "study.jsonl"

    def train_all(runs, path, *_):
        asked.append(len(runs))
        with path.open("a") as file:
            file.writelines(json.dumps(finished(run)) + "\n" for run in runs)

    monkeypatch.setattr(study, "train_all", train_all)
    assert run("experiments.summary", "--out", written)[0] == 0
    before = snapshot(written)
    assert run("experiments.study", "--seeds", 3, "--choices", 2, "--out", written)[0] == 0
    assert run("experiments.summary", "--out", written)[0] == 0
    assert asked == [] and snapshot(written) == before
    path.write_bytes(path.read_bytes()[:-40])
    status, stdout, _ = run("experiments.study", "--seeds", 3, "--choices", 4, "--out", written)
    assert status == 0 and asked == [1] and "passed over 1 of" in stdout  # passed over, and said
    assert len(study.read_runs(path)) == before[path].count(b"\n")  # the next line began on a new one


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
    assert (found["seeds"], found["number_of_choices"], found["few_seeds"]) == (3, 4, 9)
    assert found["machines"] == [HERE]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([*lines[1:], json.dumps(json.loads(lines[0]) | {"torch": "3"})]) + "\n", encoding="utf-8")
    assert [machine["torch"] for machine in summary.summarise(study.read_runs(path))["machines"]] == ["2", "3"]
    path.write_text("".join(lines[:20]), encoding="utf-8")
    status, _, stderr = run("experiments.summary", "--out", written)
    assert status == 2 and "not far enough" in stderr


def test_the_best_settings_are_chosen_on_validation_images_for_each_model_alone():
    best = {"fresh": {"steps": 800, "rate": 0.002}, "finetune": {"steps": 3200, "rate": 0.016}}

    def carry_out(run):
        tried = run["model"] in best and run["new"] == [7, 8, 9] and run["shifted"]
        good = tried and run == setting(run["model"], run["seed"], per_digit=10, shifted=True, **best[run["model"]])
        line = finished(run, 0.95 if run["seed"] < 30 else 0.9 if good else 0.93)  # on test images the best looks worse
        line["outcome"]["validation_accuracy"] = 0.9 if good and run["seed"] >= 30 else 0.8
        return line

    found = summary.summarise(whole_study(3, 2, carry_out))["tuned"]
    for model, settings in best.items():
        assert found["best"]["settings"][model] == {"per_digit": 10, "shifted": True} | settings
    assert (found["seeds"], found["best"]["seeds"]) == (3, 9)
    assert found["best"]["finetune"]["mean"] == pytest.approx(0.95, abs=1e-3)  # of the seeds that did not choose


def test_runs_of_another_network_are_other_runs():
    lines = whole_study(3, 2)
    other = [line | {"network": "other", "torch": "1"} for line in lines]
    for line in other:
        line["outcome"] = line["outcome"] | {"validation_accuracy": 0.1, "wrong": list(range(3000))}
    assert not study.outcomes_by_key(other).keys() & study.outcomes_by_key(lines).keys()
    assert summary.summarise([*other, *lines]) == summary.summarise(lines)


# The benchmark


def test_the_parts_of_the_saving_add_up():
    seconds = {"base": 20, "fresh": 10, "input_gradient": 9, "recompute": 7, "once": 6, "features": 2}
    found = benchmark.savings(seconds)
    assert found == pytest.approx({"backward_of_frozen": 0.1, "input_gradient": 0.2, "forward_of_frozen": 0.3,
                                   "features": 0.2, "total": 0.4})
    assert sum(found[part] for part in list(found)[:3]) - found["features"] == pytest.approx(found["total"])


def test_the_benchmark_measures_trainings_that_differ_in_one_thing(run, tmp_path, monkeypatch):
    outputs = []

    def forward(self, features, original=benchmark.AskForGradient.forward):
        outputs.append(original(self, features))
        return outputs[-1]

    monkeypatch.setattr(benchmark.AskForGradient, "forward", forward)
    assert run("experiments.benchmark", "--rounds", 1, "--out", tmp_path)[0] == 0
    assert any(features.grad is not None for features in outputs)  # it was computed
    found = read_json(tmp_path / "results" / "benchmark.json")
    assert all(len(values) == 1 for values in found["seconds"].values())
    assert 0 < found["seconds"]["features"][0] < found["seconds"]["once"][0]
    for name in ("train_loss", "validation_loss"):
        curves = {way: [row[name]["mean"] for row in found["curves"][way]] for way in benchmark.WAYS}
        assert curves["input_gradient"] == curves["recompute"] != curves["fresh"]
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"losses.png"}  # the others need the study
