"""The report and the README: every quoted number and every claim is recomputed from the committed experiments.

A failure after new results means that a sentence is no longer true: change the sentence, not the test. Nothing here
reads what `make` rewrites.
"""

import json

import pytest
from conftest import ROOT, SCRIPTS, read_json
from scipy import stats

from experiments import study as study_script
from experiments.benchmark import fit_constants, predict

STUDY, BENCHMARK = (read_json(ROOT / "results" / f"{name}.json") for name in ("study", "benchmark"))
SUMMARY = STUDY["summary"]
SEEDS, FEW_PAIRS, ALL_PAIRS = SUMMARY["seeds"], SUMMARY["pairs"]["10"], SUMMARY["pairs"]["all"]
LABELS = {row["per_digit"]: row["difference"] for row in SUMMARY["labels"]}
CUTS = {(row["per_digit"], row["frozen"], row["reinit"]): row["minus_default"] for row in SUMMARY["cuts"]}
GAINS = study_script.Runs({study_script.key(run): run for run in STUDY["runs"]}).gains(range(STUDY["seeds"]))
WAYS, EXPLANATION = BENCHMARK["ways"], BENCHMARK["explanation"]
CONSTANTS, STEPS, PREDICTED = EXPLANATION["constants"], EXPLANATION["steps"], EXPLANATION["predicted_seconds"]
HELD_OUT = [row for row in STEPS if not row["fitted"]]
WORST = max(abs(row["predicted"] / row["measured"] - 1) for row in HELD_OUT if row["measured"] > 0.001)


def words(path):
    return " ".join((ROOT / path).read_text(encoding="utf-8").split())


def signed(value, digits):
    """A difference of accuracies in percentage points."""
    text = f"{100 * value:+.{digits}f}"
    return text.replace("-", "\u2212") if float(text) else "0"


def gain(row, digits=1):
    return f"{signed(row['mean'], digits)} points ({signed(row['low'], digits)} to {signed(row['high'], digits)})"


def percent(row):
    return f"{100 * row['mean']:.2f} %"


def by_digit(extreme):
    """The digit whose choices gain most or least on average with few labels."""
    digit, mean = extreme(FEW_PAIRS["by_digit"].items(), key=lambda item: item[1])
    return f"with a {digit} ({signed(mean, 1)} points)"


def predicted_ratio(way):
    return sum(PREDICTED[way].values()) / sum(PREDICTED["fresh"].values())


def rate(cost, unit):
    """A rate with its range over rounds; where a round found no cost at all, it has no upper end."""
    low, middle, high = (1e-9 / CONSTANTS[cost][name] if CONSTANTS[cost][name] else None
                         for name in ("highest", "fitted", "lowest"))
    return f"{middle:.0f} {unit} ({low:.0f} " + (f"to {high:.0f})" if high else "or more)")


def time_row(name, way, frozen, once):
    """A line of the report's table of times."""
    row = next(row for row in STEPS if (row["frozen"], row["once"]) == (frozen, once))
    ratio = "1 | 1" if way == "fresh" else (f"{predicted_ratio(way):.2f} | {WAYS[f'{way}_to_fresh']['median']:.2f} ("
                                            "{lowest:.2f} to {highest:.2f})".format(**WAYS[f"{way}_to_fresh"]))
    return f"| {name} | {row['passes']} | {row['flops'] / 1e6:.1f} | {row['values']:,} | {ratio} |"


def report_fragments():
    """What the report quotes, by a short name."""
    return {
        "base": percent(SEEDS["base"]), "finetune": percent(SEEDS["finetune"]), "fresh": percent(SEEDS["fresh"]),
        "difference": gain(SEEDS["difference"], 2),
        "both": "{} to {}".format(*(signed(SEEDS["difference_over_seeds_and_images"][end], 2)
                                    for end in ("low", "high"))),
        "reversed": f"{sum(value < 0 for value in GAINS)} of the ten seeds",
        "labels10": gain(LABELS[10]), "labels100": gain(LABELS[100], 2),
        "labels1000": gain(LABELS[1000], 2),
        "untrained": gain(SUMMARY["untrained"]["minus_fresh"]),
        "control": gain(SUMMARY["untrained"]["finetune_minus_untrained"]),
        "pairs_few": gain(FEW_PAIRS), "pairs_all": gain(ALL_PAIRS, 2),
        "helped": f"{FEW_PAIRS['positive']} of the {FEW_PAIRS['n']}",
        "sd": f"{100 * FEW_PAIRS['sd']:.1f} points", "within": f"{100 * FEW_PAIRS['within_sd']:.1f} points",
        "most": by_digit(max), "least": by_digit(min),
        "rank": f"rank {FEW_PAIRS['rank_of_exercise']} of {FEW_PAIRS['n']}",
        "cut22": gain(CUTS[None, 2, 2], 2), "cut31": gain(CUTS[None, 3, 1]),
        **{f"few{frozen}{reinit}": gain(CUTS[10, frozen, reinit])
           for frozen, reinit in ((2, 2), (1, 0), (1, 3))},
        "once": f"{WAYS['once_to_fresh']['median']:.2f}", "recompute": f"{WAYS['recompute_to_fresh']['median']:.2f}",
        "c": "{fitted:.2f} ms ({lowest:.2f} to {highest:.2f})".format(
            **{name: 1e3 * value for name, value in CONSTANTS["pass"].items()}),
        "f": rate("flop", "GFLOP/s"), "b": rate("byte", "GB/s"),
        "product": f"{EXPLANATION['matrix_product_flops_per_second'] / 1e9:.0f} GFLOP/s",
        "copy": f"{EXPLANATION['copy_bytes_per_second'] / 1e9:.0f} GB/s",
        "worst": f"{100 * WORST:.0f} %",
        "rows": "\n".join([time_row("fresh", "fresh", 0, False),
                           time_row("fine-tuned, conv1 in each step", "recompute", 1, False),
                           time_row("fine-tuned, features once", "once", 1, True)]),
    }


def readme_fragments():
    rates = [f"| {row['learning_rate']} | " + " | ".join(f"{100 * row[name]:.2f} %" for name in SCRIPTS) + " |"
             for row in SUMMARY["rates"]]
    return {name: text for name, text in report_fragments().items()
            if name in ("difference", "labels10", "pairs_few", "once")} | {"rates": "\n".join(rates)}


@pytest.mark.parametrize("document, fragments", [("report.md", report_fragments()), ("README.md", readme_fragments())])
def test_every_quoted_number_is_that_of_the_experiments(document, fragments):
    text = words(document)
    assert [fragment for fragment in fragments.values() if " ".join(fragment.split()) not in text] == []


def zero_is_in(row):
    return row["low"] <= 0 <= row["high"]


def test_the_conclusions_of_the_report_hold():
    # All labels: no difference is shown, and another seed can reverse the order.
    assert zero_is_in(SEEDS["difference"]) and zero_is_in(SEEDS["difference_over_seeds_and_images"])
    assert min(GAINS) < 0 < max(GAINS)
    # Few labels: transfer helps, most of it is what the base has learnt, and the models fit their images.
    assert min(LABELS[5]["low"], LABELS[10]["low"], LABELS[100]["low"]) > 0
    control = SUMMARY["untrained"]["finetune_minus_untrained"]
    assert control["low"] > 0 and control["mean"] > LABELS[10]["mean"] / 2
    assert min(row["lowest_train_accuracy"] for row in SUMMARY["labels"]) > 0.995
    # Other digits: the same, and they differ by more than noise.
    assert FEW_PAIRS["low"] > 0 and FEW_PAIRS["positive"] > 110
    assert stats.f.sf((FEW_PAIRS["sd"] / FEW_PAIRS["within_sd"]) ** 2, 119, 9 + 5 * 2) < 0.05
    # Cuts, with few labels: the base's convolutions help, its last layers hinder.
    assert CUTS[10, 1, 0]["high"] < 0 and CUTS[10, 1, 3]["high"] < 0
    # Times: the constants predict the ratios; most of what is saved is arithmetic, most of that conv2's input gradient.
    saved = {cost: PREDICTED["fresh"][cost] - PREDICTED["once"][cost] for cost in CONSTANTS}
    assert saved["flop"] > sum(saved.values()) / 2
    for way in ("recompute", "once"):
        assert predicted_ratio(way) == pytest.approx(WAYS[f"{way}_to_fresh"]["median"], rel=0.1)
    fresh, once = (next(row["flops"] for row in STEPS if (row["frozen"], row["once"]) == way)
                   for way in ((0, False), (1, True)))
    assert 2 * 25 * 16 * 32 * 8 * 8 > (fresh - once) / 2
    assert 0.5 < 1 / CONSTANTS["flop"]["fitted"] / EXPLANATION["matrix_product_flops_per_second"] < 2


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
    assert STUDY["seeds"] >= 10 and STUDY["pairs"] == 120
    assert {study_script.key(run) for run in study_script.plan(STUDY["seeds"], 120)} <= finished.keys()
    summary = study_script.summarise(study_script.Runs(finished), STUDY["seeds"], 120, 3011)
    expected, found = flat(SUMMARY), flat(json.loads(json.dumps(summary)))
    assert found.keys() == expected.keys()
    wrong = {key for key, value in found.items()
             if value != expected[key] and value != pytest.approx(expected[key], rel=1e-6)}
    assert wrong == set()


def test_the_constants_are_those_of_the_steps_and_predict_the_rest():
    fitted = [row for row in STEPS if row["fitted"]]
    found = fit_constants(fitted, [row["measured"] for row in fitted])
    assert found == pytest.approx({cost: value["fitted"] for cost, value in CONSTANTS.items()})
    for row in STEPS:
        assert sum(predict(row, row["batch_size"], found).values()) == pytest.approx(row["predicted"])
    assert {row["batch_size"] for row in fitted} == {64, 256} and {row["batch_size"] for row in HELD_OUT} == {128}
