"""The experiments: draws, what a stopped study keeps, intervals against simulations, what the benchmark measures."""

import json
import multiprocessing

import numpy as np
import pytest
import torch
from conftest import DATA, read_json, snapshot

from data import MEAN, STD, Split
from experiments import evidence, runs, study, times, tuning
from experiments.intervals import interval, student
from experiments.runs import Study, both, key, read_runs, setting, with_seeds

HERE = {"torch": "2", "device": "cpu", "cpu": "one", "threads": 1}


def finished(run, accuracy=0.95):
    """A line of the study: `run` with an outcome that was not trained."""
    wrong = list(range(round((1 - accuracy) * runs.TEST_IMAGES)))
    accuracies = {"train_accuracy": 1.0, "validation_accuracy": accuracy,
                  "test_accuracy": 1 - len(wrong) / runs.TEST_IMAGES}
    return run | {"outcome": accuracies | ({"wrong": wrong} if run["new"] == [7, 8, 9] else {})} | HERE


def whole_study(seeds, choices, train=finished):
    """The lines of a finished study."""
    lines = []
    while missing := study.missing_runs(seeds, choices, Study(lines)):
        lines += map(train, missing)
    return lines


@pytest.fixture
def written(tmp_path):
    """A folder with a finished study of 3 seeds and 4 choices, without a benchmark."""
    accuracies = {"base": 0.99, "finetune": 0.95}
    lines = whole_study(3, 4, lambda run: finished(run, accuracies.get(run["model"], 0.9) + 0.001 * (run["seed"] % 7)))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "study.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


# Plan and draws


def test_the_plan_has_thirty_seeds_every_cut_and_every_choice_and_no_run_twice():
    lines = whole_study(30, 120)
    of_exercise = [run for run in lines if run["new"] == [7, 8, 9]]
    assert len({(key(run), run["seed"]) for run in lines}) == len(lines)
    seeds = {}
    for run in of_exercise:
        seeds.setdefault(key(run), set()).add(run["seed"])
    assert all(seeds[key(each)] == set(range(30)) for each in (*both(), *both(per_digit=100), setting("shuffled_base")))
    assert all(seeds[key(setting("fresh", **tried))] >= set(range(30, 40)) for tried in tuning.GRID)
    assert len({tuple(run["new"]) for run in lines}) == 120
    others = [(run["seed"], tuple(run["new"])) for run in lines if run["model"] == "base" and run["new"] != [7, 8, 9]]
    assert len({seed for seed, _ in others}) == len(others) == 119  # no two choices share a seed's noise
    assert study.missing_runs(5, 12, Study(lines)) == []  # a smaller study is part of a finished one


def test_a_step_with_few_labels_takes_the_same_images_with_shifts_and_without():
    for count, shifted, batch_size in ((5, False, 15), (10, True, 30), (100, False, 150), (100, True, 150)):
        run, images = setting("fresh", per_digit=count, shifted=shifted), 3 * count * (25 if shifted else 1)
        assert run["batch_size"] == batch_size and run["epochs"] * (images // batch_size) == 200


def test_every_image_is_there_in_its_25_shifts():
    image = torch.arange(28.0 * 28).reshape(1, 1, 28, 28) + 1
    shifted = runs.shift_images(Split(torch.cat([image, -image]), torch.tensor([7, 8])))
    assert shifted.images.shape == (50, 1, 28, 28) and shifted.labels.tolist() == 25 * [7, 8]
    places = {tuple((each[0] == 500).nonzero()[0].tolist()) for each in shifted.images[::2]}
    assert places == {(499 // 28 + down, 499 % 28 + right) for down in range(-2, 3) for right in range(-2, 3)}
    corner = shifted.images[0]  # moved down and right
    assert torch.equal(corner[0, 2:, 2:], image[0, 0, :26, :26]) and (corner[0, :2] == -MEAN / STD).all()


def test_the_base_of_the_control_learns_permuted_labels(old_task):
    permuted = runs.permute_labels(old_task.train, 3)
    assert torch.equal(permuted.images, old_task.train.images)
    assert torch.equal(permuted.labels.bincount(), old_task.train.labels.bincount())
    order = torch.randperm(len(permuted.labels), generator=torch.Generator().manual_seed(3))  # of the images, in `fit`
    assert not torch.equal(permuted.labels, old_task.train.labels[order])
    _, line = runs.train_run(setting("shuffled_base", epochs=2) | {"seed": 3}, old_task, None)
    assert line["outcome"]["train_accuracy"] < 0.5 and "wrong" not in line["outcome"]


# Carrying the runs out


def test_real_processes_train_groups_to_their_end(tmp_path):
    path, new = tmp_path / "study.jsonl", tuple(range(9))  # the base has one digit: that is soon trained
    wanted = with_seeds([setting("base", new=new), setting("fresh", new=new, per_digit=5)], (0, 1))
    study.train_all(wanted, path, 2, DATA, "cpu")
    found = read_runs(path)
    assert sorted((key(run), run["seed"]) for run in found) == sorted((key(run), run["seed"]) for run in wanted)
    assert all(run["threads"] == 1 and run["torch"] == torch.__version__ for run in found)
    for run in found:
        low, high = (0.99, 1) if run["model"] == "base" else (0.4, 0.99)
        assert low < run["outcome"]["test_accuracy"] <= high


@pytest.fixture
def trained(new_task, monkeypatch):
    """Which model was trained from which, in this process; nothing is trained."""
    trained = []

    def train(run, task, base):
        trained.append((run["model"], base))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return run["model"], finished(run)

    monkeypatch.setattr(study, "train_run", train)
    monkeypatch.setattr(study, "_mnist", new_task, raising=False)  # what `start_process` does in each process
    monkeypatch.setattr(study, "_finished", multiprocessing.Value("i", 0), raising=False)
    return trained


def test_a_study_that_is_stopped_keeps_every_finished_run(tmp_path, trained):
    path, wanted = tmp_path / "study.jsonl", with_seeds([setting("base"), *both()], [0])
    with pytest.raises(KeyboardInterrupt):
        study.train_group(wanted, path, "cpu")
    assert [key(run) for run in read_runs(path)] == [key(run) for run in wanted[:2]]
    study.train_group(wanted[2:], path, "cpu")  # the base once more, but not its line
    assert [key(run) for run in read_runs(path)] == [key(run) for run in wanted]


def test_each_model_starts_from_its_own_base(tmp_path, trained):
    trained += [None] * 3
    study.train_group(with_seeds([setting(model) for model in ("base", "shuffled", "finetune")], [0]),
                      tmp_path / "study.jsonl", "cpu")
    assert trained[3:] == [("base", None), ("shuffled_base", None), ("shuffled", "shuffled_base"), ("finetune", "base")]


def test_a_smaller_study_changes_nothing_and_a_half_line_is_trained_again(run, written, monkeypatch):
    asked, path = [], written / "results" / "study.jsonl"

    def train_all(missing, path, *_):
        asked.append(len(missing))
        with path.open("a") as file:
            file.writelines(json.dumps(finished(each)) + "\n" for each in missing)

    monkeypatch.setattr(study, "train_all", train_all)
    before = snapshot(written)
    assert run("experiments.study", "--seeds", 3, "--choices", 2, "--out", written)[0] == 0
    assert asked == [] and snapshot(written) == before
    path.write_bytes(path.read_bytes()[:-40])
    status, stdout, _ = run("experiments.study", "--seeds", 3, "--choices", 4, "--out", written)
    assert status == 0 and asked == [1] and "passed over 1 of" in stdout  # passed over, and said
    assert len(read_runs(path)) == before[path].count(b"\n")  # the next line began on a new one


# Statistics


@pytest.mark.parametrize("seeds", [10, 30])
@pytest.mark.parametrize("of_seeds, of_images", [(0, 0), (0.05, 0), (0, 0.5), (0.05, 0.5)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(seeds, of_seeds, of_images):
    draw, covered, tries = np.random.default_rng(1), 0, 2000
    for _ in range(tries):
        values = (draw.normal(0, of_seeds, (seeds, 1)) + draw.normal(0, of_images, (1, 300))
                  + draw.normal(0, 1, (seeds, 300)))
        found = interval(values)
        covered += found.low <= 0 <= found.high
    assert 0.93 <= covered / tries <= 0.985


def test_the_interval_is_students_where_all_images_are_alike():
    found = interval(np.tile(np.array([[1], [2], [3], [4], [5.0]]), (1, 50)))  # t(0.975, 4) = 2.7764
    assert found == pytest.approx((3, 1.036757, 4.963243), abs=1e-5)
    assert student(np.array([1, 2, 3, 4, 5.0])) == pytest.approx(found)
    assert interval(np.zeros((3, 4))) == (0, 0, 0)
    assert found.write(1) == "3.0 (1.0 to 5.0)" and found.write(0, -1, "+") == "\u22123 (\u22121 to \u22125)"


def test_a_comparison_is_over_the_seeds_that_have_both():
    first, second = both()
    lines = [finished(run, 0.98) for run in with_seeds([first], range(4))]
    found = Study(lines + [finished(run, 0.96) for run in with_seeds([second], range(1, 9))]).compare(first, second)
    assert found.seeds == 3 and found.gain.mean == pytest.approx(0.02, abs=1e-3)
    assert found.removed.mean == pytest.approx(0.5, abs=0.01)
    assert found.removed.low < found.removed.mean < found.removed.high


# The sheet


def test_the_sheet_is_of_what_is_in_its_folder_and_of_this_network_alone(run, written):
    path, sheet = written / "results" / "study.jsonl", written / "results" / "evidence.md"
    status, stdout, _ = run("experiments.evidence", "--out", written)
    first = sheet.read_text(encoding="utf-8")
    assert status == 0 and "there is no results/benchmark.json" in stdout and "stopwatch" not in first
    assert "| 4.9 | 9.9 | +5.0 (+4" in first and "runs | 2 | cpu | one | 1 |" in first and "had been seen" not in first
    assert {path.name for path in (written / "plots").iterdir()} == {"few_labels.png"}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    others = [json.dumps(json.loads(line) | {"network": "other", "torch": "1"}) + "\n" for line in lines]
    path.write_text("".join(lines + others), encoding="utf-8")
    (written / "results" / "benchmark.json").write_text('{"network": "other"}')
    assert run("experiments.evidence", "--out", written)[0] == 0 and sheet.read_text(encoding="utf-8") == first
    path.write_text("".join(lines[:20]), encoding="utf-8")
    status, _, stderr = run("experiments.evidence", "--out", written)
    assert status == 2 and "not far enough" in stderr


def test_the_best_settings_are_chosen_on_validation_images_for_each_model_alone():
    best = {"fresh": {"steps": 800, "rate": 0.002}, "finetune": {"steps": 3200, "rate": 0.016}}

    def train(run):
        tried = run["model"] in best and run["shifted"]
        good = tried and key(run) == key(setting(run["model"], per_digit=10, shifted=True, **best[run["model"]]))
        line = finished(run, 0.95 if run["seed"] < 30 else 0.9 if good else 0.93)  # on test images the best looks worse
        line["outcome"]["validation_accuracy"] = 0.9 if good and run["seed"] >= 30 else 0.8
        return line

    found = Study(whole_study(3, 2, train))
    assert tuning.best_settings(found) == {
        model: {"per_digit": 10, "shifted": True} | settings for model, settings in best.items()}
    assert any(line.startswith("| 10, shifted, both tuned | 5.0 | 5.0 |") for line in tuning.tuned(found, None))


# The benchmark


def test_the_parts_of_the_saving_add_up():
    seconds = {"base": [20, 30], "fresh": [10, 10], "input_gradient": [9, 8], "recompute": [7, 7], "once": [6, 6],
               "features": [2, 1]}
    lines = times.savings(None, {"seconds": seconds})
    found = [float(line.split("|")[2].split(" (")[0].replace("\u2212", "-")) for line in lines[2:7]]
    assert found == [0.15, 0.15, 0.25, -0.15, 0.4]


def test_the_benchmark_measures_trainings_that_differ_in_one_thing(run, tmp_path, monkeypatch):
    outputs, started = [], []

    def forward(self, features, original=times.AskForGradient.forward):
        outputs.append(original(self, features))
        return outputs[-1]

    def start(command, **options):  # the scripts as processes, here without training
        name = {"train_base.py": "base", "train_fresh.py": "fresh", "finetune.py": "finetune"}[command[1].name]
        started.append(name)
        folder = tmp_path.joinpath(command[3], "results")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps({"training_seconds": len(started)}))

    monkeypatch.setattr(times.AskForGradient, "forward", forward)
    monkeypatch.setattr(times.subprocess, "run", start)
    assert run("experiments.times", "--rounds", 2, "--pairs", 2, "--out", tmp_path)[0] == 0
    assert any(features.grad is not None for features in outputs)  # it was computed
    found = read_json(tmp_path / "results" / "benchmark.json")
    assert set(found) == {"network", "seconds", "curves", "scripts", "environment"}
    assert all(len(values) == 2 for values in (*found["seconds"].values(), *found["curves"].values()))
    for features, once in zip(found["seconds"]["features"], found["seconds"]["once"]):
        assert 0 < features < once
    losses = {way: [[row["validation_loss"] for row in curve] for curve in curves]
              for way, curves in found["curves"].items()}
    assert losses["input_gradient"] == losses["recompute"] != losses["fresh"]
    assert started == ["base", "fresh", "finetune", "finetune", "fresh"]
    assert [pair["fresh"]["training_seconds"] for pair in found["scripts"]] == [2, 5]
    for question in (times.ways, times.savings, times.stopwatch):
        assert evidence.section(question, None, found)
