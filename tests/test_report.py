"""The report: its numbers are those of results/, and each claim is recomputed from there.

A failure after new results means that a sentence of report.md is no longer true: change the sentence, not the test.
"""

import json
import math
import re
from pathlib import Path

import pytest

import study as study_script
from compare import DOCUMENTS, MARKED, numbers, read_evidence, read_results, refresh

ROOT = Path(__file__).parent.parent
COMPARISONS = len(study_script.LABELS)  # a p counts as significant below 0.05 / COMPARISONS (Bonferroni)


@pytest.fixture(scope="module")
def results():
    return read_results(ROOT)


@pytest.fixture(scope="module")
def study():
    return read_evidence(ROOT, "study")


@pytest.fixture(scope="module")
def benchmark():
    return read_evidence(ROOT, "benchmark")


@pytest.fixture(scope="module")
def summary(study):
    return study_script.summarise(study["runs"])  # recomputed, not read


@pytest.fixture(scope="module")
def labels(summary):
    return {row["per_digit"]: row for row in summary["labels"]}


@pytest.fixture(scope="module")
def cuts(summary):
    return {(row["per_digit"], row["frozen"], row["reinit"]): row["mean"] for row in summary["cuts"]}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_marked_number_is_the_one_in_results(document, results, study, benchmark):
    known = numbers(results, study, benchmark)
    marked = {match[2]: match[3] for match in MARKED.finditer((ROOT / document).read_text(encoding="utf-8"))}
    assert marked and marked.keys() <= known.keys()
    assert marked == {name: known[name] for name in marked}


def test_refresh_changes_nothing_outside_the_markers():
    text = "before <!--=a-->1<!--/--> between <!--=b-->old<!--/--> 1 <!-- a comment --> after"
    assert refresh(text, {"a": "2"}) == "before <!--=a-->2<!--/--> between <!--=b-->old<!--/--> 1 <!-- a comment --> after"


def test_results_are_of_verified_mnist_with_default_settings(results, study, benchmark):
    assert all(result["dataset"]["verified"] for result in (*results.values(), study, benchmark))
    settings = {key: results["fresh"]["hyperparameters"][key] for key in study["hyperparameters"]}
    assert study["hyperparameters"] == settings
    assert all(benchmark["hyperparameters"][key] == value for key, value in settings.items())
    assert [result["seed"] for result in results.values()] == [0, 0, 0]


def test_the_study_is_whole_and_its_summary_is_that_of_its_runs(study, summary):
    done = [{key: run[key] for key in run if key != "outcome"} for run in study["runs"]]
    assert done == study_script.plan(study["seeds"]) and study["seeds"] >= 10
    assert study["summary"] == json.loads(json.dumps(summary))


def test_each_script_says_the_result_that_it_last_gave(results):
    for name, script in (("base", "train_base"), ("finetune", "finetune"), ("fresh", "train_fresh")):
        said = re.search(r"Last result: ([\d.]+) % test accuracy", (ROOT / f"{script}.py").read_text(encoding="utf-8"))
        # Within what another processor's rounding changes: `make` on another machine leaves other results here.
        assert abs(float(said[1]) / 100 - results[name]["test_accuracy"]) < 0.0015


# Section 1 and 2


def test_the_base_models_validation_loss_falls_to_the_last_epoch(results):
    losses = [row["validation_loss"] for row in results["base"]["curve"]]
    assert losses == sorted(losses, reverse=True)


def test_the_fine_tuned_model_has_no_head_start_but_is_ahead_after_one_epoch(results):
    start, first = ([results[name]["curve"][epoch] for name in ("finetune", "fresh")] for epoch in (0, 1))
    assert abs(start[0]["validation_loss"] - start[1]["validation_loss"]) < 0.5
    assert first[0]["validation_accuracy"] > first[1]["validation_accuracy"]


# Section 4


def test_with_all_labels_no_difference_is_shown_and_seeds_disagree_about_its_sign(study, summary):
    difference = summary["seeds"]["difference"]["test_accuracy"]
    assert difference["low"] < 0 < difference["high"] and difference["p"] > 0.05
    assert max(-difference["low"], difference["high"]) < 0.002  # "bounds what transfer can be worth"
    outcomes = [run["outcome"] for run in study["runs"] if run["part"] == "seeds"]
    signs = {math.copysign(1, outcome["finetune"]["test_accuracy"] - outcome["fresh"]["test_accuracy"])
             for outcome in outcomes if outcome["finetune"]["test_accuracy"] != outcome["fresh"]["test_accuracy"]}
    assert signs == {-1, 1}


@pytest.mark.parametrize("per_digit", (5, 10, 30, 100, 300))
def test_with_few_labels_transfer_helps_and_the_trained_base_is_why(labels, per_digit):
    for other in ("fresh", "untrained"):
        difference = labels[per_digit][f"finetune_minus_{other}"]
        assert difference["low"] > 0 and difference["p"] < 0.05 / COMPARISONS


@pytest.mark.parametrize("per_digit", (1000, None))
def test_with_many_labels_it_is_no_longer_shown(labels, per_digit):
    difference = labels[per_digit]["finetune_minus_fresh"]
    assert difference["low"] < 0 < difference["high"]


def test_with_few_labels_every_model_fits_its_training_images(labels):
    assert all(row["lowest_train_accuracy"] == 1 for per_digit, row in labels.items() if per_digit)


def test_where_to_cut_with_all_labels(cuts):
    assert 0 < cuts[None, 0, 4] - cuts[None, 2, 2] < 0.003  # up to conv2: a small cost
    assert max(cuts[None, 3, 0], cuts[None, 3, 1]) < min(value for (count, frozen, _), value in cuts.items()
                                                         if count is None and frozen < 3) - 0.03


def test_where_to_cut_with_few_labels(cuts):
    few = study_script.FEW
    best = [cuts[few, frozen, 2] for frozen in (0, 1, 2)]
    assert min(best) > max(value for (count, _, reinit), value in cuts.items() if count == few and reinit != 2)
    gain = cuts[few, 1, 2] - cuts[few, 0, 4]
    assert all(0.3 < (cuts[few, 1, 2] - cuts[few, frozen, 3]) / gain < 0.7 for frozen in (0, 1))
    assert all((cuts[few, 1, 2] - cuts[few, frozen, 0]) / gain > 0.5 for frozen in (0, 1, 2))


def test_fine_tuning_forgets_the_old_digits(summary):
    assert summary["seeds"]["old_digits"]["before"]["mean"] > 0.99 > 0.01 > summary["seeds"]["old_digits"]["after"]["mean"]


def test_the_learning_rate_lies_on_the_plateau_of_validation_accuracy(study, summary):
    mean = {row["learning_rate"]: (row["base"] + row["finetune"] + row["fresh"]) / 3 for row in summary["rates"]}
    assert max(mean.values()) - mean[study["hyperparameters"]["learning_rate"]] < 0.0005
    assert study["hyperparameters"]["learning_rate"] not in (min(mean), max(mean))


# Section 5


def test_fine_tuning_is_faster_and_why(benchmark):
    ways, explanation = benchmark["ways"], benchmark["explanation"]
    assert ways["once_to_fresh"]["highest"] < ways["recompute_to_fresh"]["lowest"] < ways["recompute_to_fresh"]["highest"] < 1
    assert ways["once_to_recompute"]["highest"] < 1
    assert explanation["ratio_to_fresh"]["once"]["measured"] < explanation["ratio_to_fresh"]["once"]["predicted"]
    flops = benchmark["flops_per_image"]
    assert flops["once"]["forward_and_backward"] < flops["recompute"]["forward_and_backward"] < flops["fresh"]["forward_and_backward"]
    saved = {group: milliseconds["fresh"] - milliseconds["once"]
             for group, milliseconds in explanation["milliseconds_per_step"].items()}
    assert min(saved["pooling"], saved["normalisation"], saved["ReLU"]) > 0
