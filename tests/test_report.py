"""The report and the README: every quoted number and every claim is recomputed from the committed experiments.

A failure after new results means that a sentence is no longer true: change the sentence, not the test. Nothing here
reads what `make` rewrites.
"""

import json

import pytest
from conftest import ROOT, SCRIPTS, read_json

from experiments import study as study_script
from experiments.benchmark import fit_constants, terms

STUDY, BENCHMARK = (read_json(ROOT / "results" / f"{name}.json") for name in ("study", "benchmark"))
SEEDS, PAIRS = STUDY["summary"]["seeds"], STUDY["summary"]["pairs"]
LABELS = {row["per_digit"]: row for row in STUDY["summary"]["labels"]}
CUTS = {(row["per_digit"], row["frozen"], row["reinit"]): row for row in STUDY["summary"]["cuts"]}
WAYS, EXPLANATION = BENCHMARK["ways"], BENCHMARK["explanation"]


def words(path):
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


def signed(value, digits=2):
    """A difference of accuracies in percentage points."""
    text = f"{100 * value:+.{digits}f}"
    return text if float(text) else "0"


def gain(row, digits=2):
    return f"{signed(row['mean'], digits)} points ({signed(row['low'], digits)} to {signed(row['high'], digits)})"


def percent(row, digits=2):
    return f"{100 * row['mean']:.{digits}f} %"


def ratio(row):
    return f"{row['median']:.2f} (range {row['lowest']:.2f} to {row['highest']:.2f})"


def report_fragments():
    """What the report quotes, by a short name."""
    few, everything, constants = PAIRS["10"], PAIRS["all"], EXPLANATION["constants"]
    both = SEEDS["difference_over_seeds_and_images"]
    predicted, compared = EXPLANATION["predicted_seconds"], EXPLANATION["ratio_to_fresh"]
    fresh = next(row for row in EXPLANATION["steps"] if not row["frozen"])
    recompute, once = (next(row for row in EXPLANATION["steps"] if row["frozen"] == 1 and row["once"] == way)
                       for way in (False, True))
    held_out = [abs(row["predicted"] / row["measured"] - 1) for row in EXPLANATION["steps"] if not row["fitted"]]
    return {
        "base": percent(SEEDS["base"]), "finetune": percent(SEEDS["finetune"]), "fresh": percent(SEEDS["fresh"]),
        "difference": gain(SEEDS["difference"]), "both": f"{signed(both[0])} to {signed(both[1])}",
        **{f"labels {count}": gain(LABELS[count]["finetune_minus_fresh"]) for count in LABELS},
        "untrained": gain(LABELS[10]["untrained_minus_fresh"]), "control": gain(LABELS[10]["finetune_minus_untrained"]),
        "pairs few": gain(few), "pairs all": gain(everything, 3), "helped": f"{few['positive']} of the {few['n']}",
        "pairs lowest": signed(few["lowest"], 1), "pairs highest": signed(few["highest"], 1),
        "between": f"{100 * few['between_sd']:.1f} points", "within": f"{100 * few['within_sd']:.1f} points",
        "rank": f"rank {few['rank_of_exercise']}",
        **{f"cut {frozen} {reinit}": gain(CUTS[None, frozen, reinit]["minus_default"])
           for frozen, reinit in ((2, 2), (3, 1), (0, 2))},
        **{f"few cut {frozen} {reinit}": gain(CUTS[10, frozen, reinit]["minus_default"])
           for frozen, reinit in ((0, 2), (2, 2), (1, 0), (1, 1), (1, 3), (0, 4))},
        "once": ratio(WAYS["once_to_fresh"]), "recompute": ratio(WAYS["recompute_to_fresh"]),
        "once predicted": f"{compared['once']['predicted']:.2f}",
        "recompute predicted": f"{compared['recompute']['predicted']:.2f}",
        "c": f"{1e6 * constants['seconds_per_pass']['fitted']:.0f} microseconds",
        "F": f"{constants['flops_per_second']['fitted'] / 1e9:.0f} GFLOP/s",
        "B": f"{constants['bytes_per_second']['fitted'] / 1e9:.1f} GB/s",
        "product": f"{EXPLANATION['matrix_product_flops_per_second'] / 1e9:.0f} GFLOP/s",
        "copy": f"{EXPLANATION['copy_bytes_per_second'] / 1e9:.0f} GB/s",
        **{f"flops {name}": f"{row['flops'] / 1e6:.1f}" for name, row in (("fresh", fresh), ("once", once))},
        **{f"values {name}": f"{row['values']:,}" for name, row in (("fresh", fresh), ("once", once))},
        **{f"passes {name}": str(row["passes"]) for name, row in (("fresh", fresh), ("once", once))},
        "flops recompute": f"{recompute['flops'] / 1e6:.1f}",
        "worst": f"{100 * max(held_out):.0f} %",
        "arithmetic saved": f"{predicted['fresh']['arithmetic'] - predicted['once']['arithmetic']:.1f}",
        "memory saved": f"{predicted['fresh']['memory'] - predicted['once']['memory']:.1f}",
    }


def readme_fragments():
    throughput = BENCHMARK["throughput"]
    rows = [f"| {row['learning_rate']} | " + " | ".join(
        f"{100 * row[name]:.2f} %" for name in SCRIPTS) + " |" for row in STUDY["summary"]["rates"]]
    return {name: text for name, text in report_fragments().items() if name in (
        "difference", "labels 10", "helped", "once")} | {
        "images": f"{throughput['images_per_second']['median']:,.0f}", "usual": f"{throughput['ratio']['median']:.1f}",
        "rates": "\n".join(["| learning rate | base | fine-tuned | fresh |", "|---|---|---|---|", *rows])}


@pytest.mark.parametrize("document, fragments", [("report.md", report_fragments()), ("README.md", readme_fragments())])
def test_every_quoted_number_is_that_of_the_experiments(document, fragments):
    text = words(document)
    assert [fragment for fragment in fragments.values() if " ".join(fragment.split()) not in text] == []


@pytest.mark.parametrize("name, script", SCRIPTS.items())
def test_each_script_says_what_it_gives(name, script):
    assert f"Gives {percent(SEEDS[name])} test accuracy (mean of {SEEDS[name]['n']} seeds)" in words(f"{script}.py")


def flat(value, path=""):
    """Nested results as one dictionary."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, part in items for key, leaf in flat(part, f"{path}/{name}").items()}
    return {path: value}


def test_the_study_is_whole_and_its_summary_is_that_of_its_runs():
    finished = {study_script.key(run): run for run in STUDY["runs"]}
    rate = STUDY["hyperparameters"]["learning_rate"]
    assert STUDY["seeds"] >= 10 and STUDY["pairs"] == 120
    assert {study_script.key(run) for run in study_script.plan(STUDY["seeds"], 120, rate)} <= finished.keys()
    summary = study_script.summarise(study_script.Runs(finished, rate), STUDY["seeds"], 120, 3011)
    expected, found = flat(STUDY["summary"]), flat(json.loads(json.dumps(summary)))
    assert found.keys() == expected.keys()
    assert {key: value for key, value in found.items() if value != pytest.approx(expected[key], rel=1e-6)} == {}


def test_the_constants_are_those_of_the_steps_and_predict_the_rest():
    steps, constants = EXPLANATION["steps"], EXPLANATION["constants"]
    fitted = [row for row in steps if row["fitted"]]
    found = fit_constants(fitted, [row["measured"] for row in fitted])
    assert found == pytest.approx({name: value["fitted"] for name, value in constants.items()})
    for row in steps:
        assert sum(terms(row, row["batch_size"], found).values()) == pytest.approx(row["predicted"])
    assert {row["batch_size"] for row in fitted} == {64, 256}
    assert {row["batch_size"] for row in steps if not row["fitted"]} == {128}
