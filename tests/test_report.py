"""The report and the README: every quoted number and every claim is recomputed from the committed experiments.

A failure after new results means that a sentence is no longer true: change the sentence, not the test. Nothing here
reads what `make` rewrites.
"""

import math
import re

import pytest
import torch
from conftest import DATA, ROOT, read_json

from data import load_task
from experiments import benchmark, study
from experiments.summary import summarise
from results import environment

RUNS = study.read_runs(ROOT / "results" / "study.jsonl")
SUMMARY, TIMES = (read_json(ROOT / "results" / f"{name}.json") for name in ("summary", "benchmark"))
MODELS, CHOICES, TUNED, WAYS, SAVED = (SUMMARY["models"], SUMMARY["choices"], SUMMARY["tuned"], TIMES["ways"],
                                       TIMES["saved"])
LABELS = {(row["per_digit"], row["shifted"]): row for row in SUMMARY["labels"]}
UNTRAINED = {row["shifted"]: row for row in SUMMARY["untrained"]}
CUTS = {(row["per_digit"], row["frozen"], row["reinit"]): row for row in SUMMARY["cuts"]}
BACKWARD, FORWARD = SAVED["no_backward_through_conv1"], SAVED["conv1_forward_once"]


# How numbers are written


def signed(value, digits):
    """A difference of accuracies in percentage points."""
    return f"{100 * value:+.{digits}f}".replace("-", "\u2212")


def interval(row, digits):
    return f"({signed(row['low'], digits)} to {signed(row['high'], digits)})"


def gain(row, digits=1):
    return f"{signed(row['mean'], digits)} points {interval(row, digits)}"


def accuracy(row):
    return f"{100 * row['mean']:.2f} %"


def errors(row, digits=1):
    """From the fresh model's test error to the fine-tuned one's."""
    return f"from {100 * (1 - row['fresh']['mean']):.{digits}f} to {100 * (1 - row['finetune']['mean']):.{digits}f} %"


def ratio(row):
    return "{median:.2f} ({lowest:.2f} to {highest:.2f})".format(**row)


def model_row(name, model, digits, way):
    return (f"| {name} | {digits} | {100 * MODELS[model]['train_accuracy']:.2f} % | {accuracy(MODELS[model])} | "
            f"{WAYS[way]['seconds']['median']:.1f} s |")


def error_after_one_epoch(way):
    return f"{100 * (1 - WAYS[way]['curve'][1]['validation_accuracy']):.1f} %"


def fine_tunings():
    """How many fine-tunings save as much time as training the base takes."""
    seconds = {way: WAYS[way]["seconds"]["median"] for way in WAYS}
    return math.ceil(seconds["base"] / (seconds["fresh"] - seconds["once"]))


def more_steps(model, shifted):
    """What 400 steps instead of 200 gain on validation images, with ten labels per digit."""
    few, many = (row[model] for row in SUMMARY["steps"]
                 if row["per_digit"] == 10 and row["shifted"] == shifted and row["steps"] in (200, 400))
    return many - few


SPREADS = [max(rates) - min(rates) for rates in ([row[model] for row in SUMMARY["rates"]]
                                                  for model in ("base", "finetune", "fresh"))]
TABLE = [model_row("base", "base", "0-6", "base"), model_row("fine-tuned", "finetune", "7-9", "once"),
         model_row("fresh", "fresh", "7-9", "fresh")]
FEW, SHIFTED, ALL = CHOICES["few"], CHOICES["few_shifted"], CHOICES["all"]
BEST, BEST_100 = TUNED["10"]["best"], TUNED["100"]["best"]

# In the order of the document: words that one sentence alone has, and what it must say; or a row of a table.
REPORT = [
    ("no difference in test accuracy is shown", gain(MODELS["gain"], 2)),
    ("transfer lowers the mean test error", errors(LABELS[10, False])),
    ("each model at its best learning rate", gain(BEST["gain"])),
    ("because it skips the frozen block's backward pass", f"takes {WAYS['once']['to_fresh']['median']:.2f}"),
    ("Times are medians", f"{TIMES['rounds']} rounds"),
    ("The base model recognises", accuracy(MODELS["base"])),
    *TABLE,
    ("The fine-tuned model recognises", accuracy(MODELS["finetune"])),
    ("The fresh model recognises", accuracy(MODELS["fresh"])),
    ("Over ten seeds the gain is", gain(MODELS["gain"], 2)),
    ("The fresh model is the better one", f"{MODELS['seeds_where_fresh_is_better']} of the ten seeds"),
    ("each with a base trained on the other seven", gain(ALL, 2)),
    ("hardly anything", f"{ALL['better']} choices gain"),
    ("hardly anything", f"{ALL['worse']} lose"),
    ("hardly anything", f"{ALL['equal']} tie"),
    ("is ahead at first", f"its validation error is {error_after_one_epoch('once')}"),
    ("is ahead at first", f"the fresh model's {error_after_one_epoch('fresh')}"),
    ("At the default settings the gain is", gain(LABELS[10, False]["gain"])),
    ("With a hundred it is", gain(LABELS[100, False]["gain"], 2)),
    ("Both were tuned separately", f"over {TUNED['10']['seeds']} seeds"),
    ("Without shifts the best learning rates", gain(TUNED["10"]["best_unshifted"]["gain"])),
    ("prefer for both models, best against best", gain(BEST["gain"])),
    ("With a hundred labels per digit, best", gain(BEST_100["gain"], 2)),
    ("Shifts alone, against transfer alone", gain(LABELS[10, True]["shifts_alone_minus_transfer_alone"])),
    ("At a hundred labels they give", gain(LABELS[100, True]["shifts_alone_minus_transfer_alone"], 2)),
    ("fine-tuning an untrained base", gain(UNTRAINED[False]["untrained_minus_fresh"])),
    ("The trained base gains", gain(UNTRAINED[False]["finetune_minus_untrained"])),
    ("choices gain.", f"{FEW['better']} of the {SUMMARY['number_of_choices']} choices"),
    ("The mean gain is", gain(FEW)),
    ("With shifted images it is", gain(SHIFTED)),
    ("Transfer removes", f"{100 * FEW['share_of_errors_removed']:.0f} % of the fresh model's errors"),
    ("Transfer removes", f"with shifted images {100 * SHIFTED['share_of_errors_removed']:.0f} % of them"),
    ("freezing conv2 too", gain(CUTS[None, 2, 2]["minus_fresh"], 2)),
    ("frozen too and fc2 reinitialised", gain(CUTS[None, 3, 1]["minus_fresh"], 2)),
    ("Yes: fine-tuning takes", ratio(WAYS["once"]["to_fresh"])),
    ("This saves", ratio(BACKWARD["of_fresh"])),
    ("counting operations predicts", f"{100 * BACKWARD['of_saving']['median']:.0f} % of the whole saving"),
    ("counting operations predicts", f"predicts {BACKWARD['predicted_of_fresh']:.2f}"),
    ("saves another", ratio(FORWARD["of_fresh"])),
    ("Operations alone predict", f"{FORWARD['predicted_of_fresh']:.2f}"),
    ("The base takes", f"{WAYS['base']['to_fresh']['median']:.1f} times"),
    ("The base takes", f"only after {fine_tunings()} fine-tunings"),
    ("must run in each step", f"{WAYS['recompute']['to_fresh']['median']:.2f} of fresh"),
    ("Steps were not tuned", f"{signed(more_steps('fresh', True), 1)} points"),
    ("Without shifts they change it", f"{signed(more_steps('fresh', False), 1)} points for fresh and "
                                      f"{signed(more_steps('finetune', False), 1)} for fine-tuned"),
]
README = [
    *TABLE,
    ("The values of one model differ", f"up to {100 * max(SPREADS):.2f} points"),
    ("With all training images", gain(MODELS["gain"], 2)),
    ("at the default settings", gain(LABELS[10, False]["gain"])),
    ("at its own best settings", gain(BEST["gain"])),
    ("Fine-tuning takes", f"{WAYS['once']['to_fresh']['median']:.2f}"),
    *(f"| {row['rate']} | " + " | ".join(f"{100 * row[model]:.2f} %" for model in ("base", "finetune", "fresh")) + " |"
      for row in SUMMARY["rates"]),
    *(f"| {row['per_digit']}{', shifted' if row['shifted'] else ''} | {row['steps']} | {100 * row['finetune']:.2f} % | "
      f"{100 * row['fresh']:.2f} % |" for row in SUMMARY["steps"]),
]


def sentences(document):
    """The sentences and table rows of a Markdown document, each with single spaces."""
    found = []
    for paragraph in (ROOT / document).read_text(encoding="utf-8").split("\n\n"):
        if paragraph.startswith("|"):
            found += paragraph.splitlines()
        else:
            found += re.split(r"(?<=[.?!]) (?=[A-Z*])", " ".join(paragraph.split()))
    return found


@pytest.mark.parametrize("document, quotes", [("report.md", REPORT), ("README.md", README)])
def test_every_quoted_number_is_in_its_own_sentence(document, quotes):
    found, missing = sentences(document), []
    for quote in quotes:
        if isinstance(quote, str):
            missing += [] if quote in found else [quote]
        else:
            words, number = quote
            holders = [sentence for sentence in found if words in sentence]
            assert len(holders) == 1, f"{len(holders)} sentences of {document} have the words {words!r}"
            missing += [] if number in holders[0] else [f"{words} ... {number}"]
    assert missing == []


def zero_is_in(row):
    return row["low"] <= 0 <= row["high"]


def test_the_conclusions_hold():
    # All labels: no gain is shown for 7-9, another seed can reverse the order, and over all choices it is tiny.
    assert zero_is_in(MODELS["gain"]) and 0 < MODELS["seeds_where_fresh_is_better"] < SUMMARY["seeds"]
    assert 0 < ALL["low"] and ALL["mean"] < 0.0005  # hardly anything
    assert max(SPREADS) > abs(MODELS["gain"]["mean"])  # README: than the choice of the learning rate
    # Few labels: transfer helps at the default settings, and with each model at its best.
    assert LABELS[10, False]["gain"]["low"] > 0 and LABELS[100, False]["gain"]["low"] > 0
    assert BEST["gain"]["low"] > 0 and BEST["gain"]["mean"] < LABELS[10, False]["gain"]["mean"]
    assert all(row["shifted"] for best in (BEST, BEST_100) for row in best["settings"].values())
    assert BEST["gain"]["mean"] < 0.6 * TUNED["10"]["best_unshifted"]["gain"]["mean"]  # a large part
    assert zero_is_in(LABELS[10, True]["shifts_alone_minus_transfer_alone"])
    assert LABELS[100, True]["shifts_alone_minus_transfer_alone"]["low"] > 0
    assert signed(more_steps("fresh", True), 1) == signed(more_steps("finetune", True), 1)
    # The control: most of it is what the base has learnt.
    control = UNTRAINED[False]["finetune_minus_untrained"]
    assert control["low"] > 0 and control["mean"] > LABELS[10, False]["gain"]["mean"] / 2
    assert FEW["low"] > 0 and SHIFTED["low"] > 0


def test_what_is_said_of_cuts_holds():
    comparisons = len(CUTS) - 2
    assert abs(CUTS[None, 2, 2]["minus_fresh"]["high"]) < 0.0005  # the edge of its interval is zero
    assert comparisons * CUTS[None, 3, 1]["minus_fresh"]["p"] < 0.05 and CUTS[None, 3, 1]["minus_fresh"]["mean"] < 0
    for (count, frozen, reinit), row in CUTS.items():
        if count == 10 and frozen < 3 and reinit < 4:
            assert row["minus_fresh"]["mean"] > 0 and comparisons * row["minus_default"]["p"] > 0.05


def test_the_conclusions_about_time_hold():
    assert WAYS["once"]["to_fresh"]["highest"] < WAYS["recompute"]["to_fresh"]["lowest"] < 1
    assert BACKWARD["of_saving"]["lowest"] > 0.5  # most of the saving
    assert FORWARD["of_fresh"]["lowest"] > FORWARD["predicted_of_fresh"]
    images = {way: WAYS[way]["operations"]["blocks"]["fc2"]["forward"] for way in ("base", "fresh")}
    assert f"{images['base'] / images['fresh']:.1f}" == "2.3"
    assert error_after_one_epoch("once") < error_after_one_epoch("fresh")


def test_the_goals_of_the_evidence_are_met():
    assert (SUMMARY["seeds"], SUMMARY["number_of_choices"]) == (10, 120)
    assert BEST["gain"]["high"] - BEST["gain"]["mean"] <= 0.007
    for choices, limit in ((FEW, 0.0025), (SHIFTED, 0.0025), (ALL, 0.0003)):
        assert choices["high"] - choices["mean"] < limit


def flat(value, path=""):
    """Nested results as one dictionary."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, part in items for key, leaf in flat(part, f"{path}/{name}").items()}
    return {path: value}


def test_the_study_is_whole_and_its_summary_is_that_of_its_runs():
    assert {study.key(run) for run in study.plan(10, 120)} == {study.key(run) for run in RUNS}
    expected, found = flat(SUMMARY), flat(summarise(RUNS))
    assert found.keys() == expected.keys()
    assert [key for key, value in found.items()
            if value != expected[key] and value != pytest.approx(expected[key], rel=1e-6, abs=1e-12)] == []


def test_the_benchmark_is_that_of_its_seconds():
    images = {"base": 37742, "fresh": 16259, "recompute": 16259, "once": 16259}
    for way, count in images.items():
        assert WAYS[way]["operations"] == benchmark.count_operations(way, count, TIMES["hyperparameters"]["epochs"])
        assert WAYS[way]["seconds"] == benchmark.median_and_range(TIMES["seconds"][way])


def test_two_runs_of_the_study_give_the_same_again():
    """Equal where processor, threads and versions are those of their lines, elsewhere like another seed."""
    task, here = load_task(DATA, study.EXERCISE), environment(torch.device("cpu"))
    for model, shifted in (("fresh", False), ("untrained", True)):
        setting = study.setting(model, 3, per_digit=study.FEW, shifted=shifted)
        run = next(run for run in RUNS if study.key(run) == study.key(setting))
        _, outcome = study.train(setting, task)
        if all(run[name] == here[name] for name in ("torch", "cpu", "threads")):
            assert outcome == run["outcome"]
        else:
            assert outcome["test_accuracy"] == pytest.approx(run["outcome"]["test_accuracy"], abs=0.02)
