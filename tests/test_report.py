"""The report and the README: every quoted number and every claim is recomputed from the committed experiments.

A failure after new results means that a sentence is no longer true: change the sentence, not the test. Nothing here
reads what `make` rewrites.
"""

import json
import re

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
