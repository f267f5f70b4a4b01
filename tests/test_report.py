"""The report and the README: every quoted number and every claim is recomputed from the tracked evidence.

A failure after new results means that a sentence is no longer true: change the sentence, not the test. Once the
participants' line of report.md is filled in, the report is somebody's own, and its sentences are not tested.
"""

import pytest
from conftest import DATA, ROOT, read_json

from data import load_task
from experiments import benchmark, plan, study
from experiments.summary import summarise
from results import environment

RUNS = study.read_runs(ROOT / "results" / "study.jsonl")
SUMMARY, TIMES = (read_json(ROOT / "results" / f"{name}.json") for name in ("summary", "benchmark"))
NAMES = ("base", "finetune", "fresh")
MODELS, CHOICES, TUNED, WAYS, SAVED = (SUMMARY["models"], SUMMARY["choices"], SUMMARY["tuned"], TIMES["ways"],
                                       TIMES["saved"])
LABELS = {(row["per_digit"], row["shifted"]): row for row in SUMMARY["labels"]}
UNTRAINED = {row["shifted"]: row for row in SUMMARY["untrained"]}
CUTS = {(row["per_digit"], row["frozen"], row["reinit"]): row for row in SUMMARY["cuts"]}
BEST, BEST_UNSHIFTED = TUNED["best"], TUNED["best_unshifted"]
FEW, SHIFTED, ALL = CHOICES["few"], CHOICES["few_shifted"], CHOICES["all"]
REPORT_TEXT = (ROOT / "report.md").read_text(encoding="utf-8")
as_it_comes = pytest.mark.skipif("**Participants:** _name, student number; name, student number_" not in REPORT_TEXT,
                                 reason="report.md has participants: its sentences are theirs")


# How numbers are written


def signed(value, digits):
    """A difference of accuracies in percentage points."""
    return f"{100 * value:+.{digits}f}".replace("-", "\u2212")


def gain(row, digits=1):
    low, high = (signed(row[end], digits) for end in ("low", "high"))
    return f"{signed(row['mean'], digits)} points ({low} to {high})"


def lost(row):
    """A difference that the sentence itself says the direction of."""
    return f"{100 * row['mean']:.1f} points ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def percent(share, digits=0):
    return f"{100 * share:.{digits}f} %"


def accuracy(row):
    """As a percentage; what is not quite all is not rounded to it."""
    return "over 99.99 %" if 0.99995 <= row["mean"] < 1 else percent(row["mean"], 2)


def ratio(row, digits=2):
    return f"{row['median']:.{digits}f} ({row['lowest']:.{digits}f} to {row['highest']:.{digits}f})"


def model_row(name, model, digits, way):
    return (f"| {name} | {digits} | {accuracy(MODELS[model]['train_accuracy'])} | {accuracy(MODELS[model])} | "
            f"{WAYS[way]['seconds']['median']:.1f} s |")


def gain_row(labels, digits, *rows):
    """Images as they are, and shifted where that was tried."""
    cells = [f"{gain(row['gain'], digits).replace(' points', '')} | {percent(row['share_of_errors_removed'])}"
             for row in rows]
    return f"| {labels} | {' | '.join(cells)} |"


def loss(way, epoch, key="validation_loss"):
    return f"{WAYS[way]['curve'][epoch][key]['mean']:.3f}"


def validation_error(way, epoch):
    return percent(1 - WAYS[way]["curve"][epoch]["validation_accuracy"]["mean"], 2)


MODEL_TABLE = [model_row("base", "base", "0-6", "base"), model_row("fine-tuned", "finetune", "7-9", "once"),
               model_row("fresh", "fresh", "7-9", "fresh")]
GAIN_TABLE = [
    f"{gain_row('all', 2, MODELS)} | |", f"{gain_row('1000', 2, LABELS[1000, False])} | |",
    gain_row("100", 2, LABELS[100, False], LABELS[100, True]), gain_row("10", 1, LABELS[10, False], LABELS[10, True]),
    gain_row("5", 1, LABELS[5, False], LABELS[5, True]), gain_row("10, each at its best", 1, BEST_UNSHIFTED, BEST),
]
RATE_TABLE = [f"| {row['rate']} | " + " | ".join(percent(row[model]["mean"], 2) for model in NAMES) + " |"
              for row in SUMMARY["rates"]]
AFTER_THREE = WAYS["once"]["curve"][3]["seconds"]["mean"] / WAYS["fresh"]["curve"][5]["seconds"]["mean"]
SECONDS = TIMES["seconds"]  # how many fine-tunings save as much time as training the base takes, in each round:
BREAK_EVEN = benchmark.median_and_range([base / (fresh - once) for base, fresh, once in zip(
    SECONDS["base"], SECONDS["fresh"], SECONDS["once"])])
BACKWARD, FORWARD = SAVED["backward"], SAVED["forward"]
TIMES_FRESH = {way: f"{WAYS[way]['to_fresh']['median']:.{1 if way == 'base' else 2}f}" for way in WAYS}
IN_SHORT = [
    ("With all training images no gain", gain(MODELS["gain"], 2)),
    ("With all training images no gain", f"transfer gains {gain(LABELS[10, False]['gain'])}"),
    ("With all training images no gain", gain(BEST["gain"])),
    ("With all training images no gain", f"takes {TIMES_FRESH['once']} of the fresh model's training time"),
]
# Words that one paragraph alone has, and what it must say; or a row of a table.
REPORT = [
    *IN_SHORT, *MODEL_TABLE, *GAIN_TABLE,
    ("With all training images no gain", f"what {BREAK_EVEN['median']:.1f} fine-tunings save"),
    ("The base model recognises", f"{accuracy(MODELS['base'])} of the test images"),
    ("The base model recognises", f"from {loss('base', 3, 'train_loss')} to {loss('base', 5, 'train_loss')}"),
    ("The base model recognises", f"from {loss('base', 3)} to {loss('base', 5)}"),
    ("conv1 keeps the base's", f"recognises {accuracy(MODELS['finetune'])} of"),
    ("conv1 keeps the base's", f"is {loss('once', 1)}, the fresh model's {loss('fresh', 1)}"),
    ("conv1 keeps the base's", f"from {loss('once', 3)} after three epochs to {loss('once', 5)}"),
    ("conv1 keeps the base's", f"the training loss falls to {loss('once', 5, 'train_loss')}"),
    ("All four blocks start", f"recognises {accuracy(MODELS['fresh'])} of"),
    ("All four blocks start", f"ends at {loss('fresh', 5)}, its training loss at {loss('fresh', 5, 'train_loss')}"),
    ("**All labels.**", f"remove {percent(MODELS['gain']['high'] / (1 - MODELS['fresh']['mean']))} of the fresh"),
    ("**All labels.**", f"is {gain(ALL, 2)}, or {percent(ALL['share_of_errors_removed'])} of the errors"),
    ("**All labels.**", f"one run {ALL['better']} choices gain, {ALL['worse']} lose and {ALL['equal']} tie"),
    ("**Ten labels.**", f"lower the gain by {lost(LABELS[10, True]['gain_lost_to_shifts'])}"),
    ("**Ten labels.**", f"{signed(BEST['gain']['mean'], 1)} are left"),
    ("**Is it what the base", f"over fresh: {gain(UNTRAINED[False]['untrained_minus_fresh'])}"),
    ("**Is it what the base", f"untrained one by {lost(UNTRAINED[False]['finetune_minus_untrained'])}"),
    ("**Is it what the base", f"with shifts by {lost(UNTRAINED[True]['finetune_minus_untrained'])}"),
    ("**Where to cut.**", gain(CUTS[None, 2, 2]["gain"], 2)), ("**Where to cut.**", gain(CUTS[10, 1, 3]["gain"])),
    ("**Other digits**", f"{FEW['better']} of the {SUMMARY['number_of_choices']} choices gain in their one run"),
    ("**Other digits**", f"run, {gain(FEW)} in the mean"),
    ("**Other digits**", f"{SHIFTED['better']} gain, {gain(SHIFTED)}"),
    ("Yes: fine-tuning takes", ratio(WAYS["once"]["to_fresh"])),
    ("**Backwards.**", f"save {ratio(BACKWARD['of_fresh'])} of the fresh model's time"),
    ("**Backwards.**", f"predicts {BACKWARD['predicted_of_fresh']:.2f}, of which the larger part, "
                       f"{BACKWARD['predicted_of_fresh'] - BACKWARD['predicted_for_frozen_weights']:.2f}, is conv2's"),
    ("**Forwards.**", f"another {ratio(FORWARD['of_fresh'])}"),
    ("**Forwards.**", f"count predicts {FORWARD['predicted_of_fresh']:.2f}"),
    ("**Forwards.**", f"{percent(1 - TIMES['convolution_of_first_block']['median'])} of conv1's forward time"),
    ("**What it means.**", f"in {AFTER_THREE:.2f} of the"),
    ("**What it means.**", f"validation error is {validation_error('once', 3)}"),
    ("**What it means.**", f"takes {TIMES_FRESH['base']} times as long"),
    ("**What it means.**", f"what {ratio(BREAK_EVEN, 1)} fine-tunings save"),
    ("**What it means.**", f"take about {TIMES_FRESH['recompute']} of the fresh model's time"),
]
README = [*MODEL_TABLE, ("**All training images:**", gain(MODELS["gain"], 2)),
          ("**All training images:**", f"gains {gain(LABELS[10, False]['gain'])}"),
          ("**All training images:**", gain(BEST["gain"])),
          ("**All training images:**", f"takes {percent(WAYS['once']['to_fresh']['median'])} of the fresh model's")]
EVIDENCE = [*RATE_TABLE, ("**Where to cut.**", gain(CUTS[None, 2, 2]["gain"], 2)),
            ("**Where to cut.**", gain(CUTS[None, 3, 1]["gain"], 2))]


def missing(text, quotes):
    """The quotes that are not in their paragraphs, each of which `text` has once."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    lines, absent = text.splitlines(), []
    for quote in quotes:
        if isinstance(quote, str):
            absent += [] if quote in lines else [quote]
        else:
            words, number = quote
            holders = [paragraph for paragraph in paragraphs if words in paragraph]
            assert len(holders) == 1, f"{len(holders)} paragraphs have the words {words!r}"
            absent += [] if number in holders[0] else [f"{words} ... {number}"]
    return absent


@as_it_comes
def test_every_number_of_the_report_is_in_its_own_paragraph():
    assert missing(REPORT_TEXT, REPORT) == []


@pytest.mark.parametrize("path, quotes", [("README.md", README), ("experiments/README.md", EVIDENCE)])
def test_every_number_of_the_readmes_is_in_its_own_paragraph(path, quotes):
    assert missing((ROOT / path).read_text(encoding="utf-8"), quotes) == []


@as_it_comes
def test_the_conclusions_about_accuracy_hold():
    # All labels: no gain is shown for 7-9, and over all choices it is at most small.
    assert MODELS["gain"]["low"] <= 0 <= MODELS["gain"]["high"] and 0 < ALL["low"] and ALL["high"] < 0.0005
    # Ten labels: transfer helps at default settings and best against best, and less there.
    assert LABELS[10, False]["gain"]["low"] > 0 and 0 < BEST["gain"]["low"]
    assert BEST["gain"]["high"] < LABELS[10, False]["gain"]["mean"]
    assert abs(BEST_UNSHIFTED["gain"]["mean"] - LABELS[10, False]["gain"]["mean"]) < 0.003  # next to nothing
    assert BEST["settings"] == dict.fromkeys(("finetune", "fresh"), {"shifted": True, "steps": 800, "rate": 0.008})
    assert LABELS[10, True]["gain_lost_to_shifts"]["low"] > 0
    for model in ("fresh", "finetune"):  # shifting helps both
        assert LABELS[10, True][model]["mean"] > LABELS[10, False][model]["mean"]
    for row in UNTRAINED.values():  # the control: it is what the base has learnt
        assert row["finetune_minus_untrained"]["low"] > 0 > row["untrained_minus_fresh"]["low"]
        assert row["untrained_minus_fresh"]["high"] > 0
    assert FEW["low"] > 0 and SHIFTED["low"] > 0
    # Where to cut.
    assert CUTS[None, 2, 2]["gain"]["high"] < 0 and CUTS[None, 3, 1]["gain"]["high"] < 0
    assert all((row["gain"]["low"] > 0) == (row["frozen"] < 3) for row in CUTS.values() if row["per_digit"])


def validation_errors(way, epoch):
    """In all rounds together."""
    return round((1 - WAYS[way]["curve"][epoch]["validation_accuracy"]["mean"]) * 1806 * TIMES["rounds"])


@as_it_comes
def test_what_is_said_of_the_losses_and_the_times_holds():
    for way in ("base", "once", "fresh"):
        curve = WAYS[way]["curve"]
        assert all(row[key]["mean"] >= curve[-1][key]["mean"] for row in curve
                   for key in ("train_loss", "validation_loss"))  # lowest at the end
        gaps = [curve[epoch]["validation_loss"]["mean"] / curve[epoch]["train_loss"]["mean"] for epoch in (3, 5)]
        assert gaps[0] < gaps[1]  # the gap widens
    assert WAYS["once"]["curve"][1]["validation_loss"]["highest"] < WAYS["fresh"]["curve"][1]["validation_loss"]["mean"]
    assert WAYS["once"]["to_fresh"]["highest"] < 1 and WAYS["recompute"]["to_fresh"]["highest"] < 1
    assert BACKWARD["of_fresh"]["lowest"] > 0 and FORWARD["of_fresh"]["lowest"] > 0  # in every round
    assert validation_errors("once", 3) - validation_errors("fresh", 5) == 1  # one image in seven rounds
    assert TIMES["fresh_accuracy_reached"]["epoch"] == 5
    for part in (BACKWARD, FORWARD):  # operations explain it as far as the rounds can tell
        assert part["of_fresh"]["lowest"] <= part["predicted_of_fresh"] <= part["of_fresh"]["highest"]


def flat(value, path=""):
    """Nested results as one dictionary."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, part in items for key, leaf in flat(part, f"{path}/{name}").items()}
    return {path: value}


def test_the_study_is_whole_and_its_summary_is_that_of_its_runs():
    assert {plan.key(run) for run in plan.plan(10, 120)} == {plan.key(run) for run in RUNS}
    assert [machine["cpu"] for machine in SUMMARY["machines"]] == ["AMD EPYC, AVX512"]  # as README and Table 1 say
    expected, found = flat(SUMMARY), flat(summarise(RUNS))
    assert found.keys() == expected.keys()
    assert [key for key, value in found.items()
            if value != expected[key] and value != pytest.approx(expected[key], rel=1e-6, abs=1e-12)] == []


def test_the_benchmark_is_that_of_its_seconds():
    images = {"base": 37742, "fresh": 16259, "recompute": 16259, "once": 16259}
    assert TIMES["operations"] == benchmark.count_operations(images, TIMES["settings"]["epochs"])
    for way in images:
        assert WAYS[way]["seconds"] == benchmark.median_and_range(TIMES["seconds"][way])


def test_two_runs_of_the_study_give_the_same_again():
    """Equal where processor, threads and versions are those of their lines, elsewhere like another seed."""
    task, here = load_task(DATA, plan.EXERCISE), environment("cpu")
    for model, shifted in (("fresh", False), ("untrained", True)):
        wanted = plan.setting(model, 3, per_digit=plan.FEW, shifted=shifted)
        line = next(run for run in RUNS if plan.key(run) == plan.key(wanted))
        _, found = study.carry_out(wanted, task, None)
        if all(line[name] == here[name] for name in ("torch", "cpu", "threads")):
            assert found["outcome"] == line["outcome"]
        else:
            assert found["outcome"]["test_accuracy"] == pytest.approx(line["outcome"]["test_accuracy"], abs=0.06)
