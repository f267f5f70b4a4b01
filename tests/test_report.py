"""The report and both READMEs: every quoted number and every claim is recomputed from the tracked evidence.

A failure after new results means that a sentence is no longer true: change the sentence, not the test. Once the
participants' line of report.md is filled in, the report is somebody's own, and its sentences are not tested; with
another network in model.py, what is trained or counted again here is not either.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import DATA, ROOT, read_json

from data import load_task
from experiments import benchmark, plan, study, tables
from experiments.summary import summarise
from experiments.tables import gain, percent, points, ratio
from model import build_model, count_parameters
from results import environment
from training import LEARNING_RATE, WEIGHT_DECAY


@pytest.fixture(scope="module")
def evidence():
    """summary.json and benchmark.json, their rows by what they are about."""
    summary, times = (read_json(ROOT / "results" / f"{name}.json") for name in ("summary", "benchmark"))
    return SimpleNamespace(
        summary=summary, times=times, models=summary["models"], choices=summary["choices"], tuned=summary["tuned"],
        sources=summary["sources"], saved=times["saved"], curves=times["curves"],
        labels={(row["per_digit"], row["shifted"]): row for row in summary["labels"]},
        epochs={row["epochs"]: row for row in summary["epochs"]},
        untrained={(row["frozen"], row["shifted"]): row for row in summary["untrained"]},
        cuts={(row["per_digit"], row["frozen"], row["reinit"]): row["gain"] for row in summary["cuts"]})


@pytest.fixture(scope="module")
def runs():
    return study.read_runs(ROOT / "results" / "study.jsonl")


@pytest.fixture
def as_it_comes():
    if "**Participants:** _name, student number; name, student number_" not in read("report.md"):
        pytest.skip("report.md has participants: its sentences are theirs")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def plain(row, digits=1, sign=1):
    """A difference of which the sentence itself says the direction."""
    low, high = sorted(sign * 100 * row[end] for end in ("low", "high"))
    return f"{sign * 100 * row['mean']:.{digits}f} points ({abs(low):.{digits}f} to {high:.{digits}f})"


def with_points(row, digits=1):
    return gain(row, digits).replace(" (", " points (", 1)


def model_rows(evidence):
    rows = tables.of_models(evidence.summary)
    return [f"{rows[model]} {evidence.times['times'][way]['seconds']['median']:.1f} s |"
            for model, way in (("base", "base"), ("finetune", "once"), ("fresh", "fresh"))]


def quotes_of_report(evidence):
    """Words that one paragraph alone has, and what else it must say."""
    models, saved, ten = evidence.models, evidence.saved, evidence.labels[10, False]
    best, choices, once = evidence.tuned["best"], evidence.choices, evidence.times["times"]["once"]
    quotes = [
        ("**Answer.**", f"gains {100 * ten['gain']['mean']:.1f} percentage points, and "
                        f"{100 * best['gain']['mean']:.1f} when"),
        ("**Answer.**", f"takes {once['to_fresh']['median']:.2f} of"),
        ("**Method.**", f"rises to {LEARNING_RATE} and falls"),
        ("**Method.**", "about 5,400"),
        ("At 5, 10 and 100 labels", "With 1,000, and"),
        ("**All labels.**", "loss of over 0.1 points"),
        ("**All labels.**", gain(choices["all"], 3)),
        ("**All labels.**", f"has only {tables.error(models['fresh'])} % of errors"),
        ("**Ten labels.**", "rate (0.002 to 0.032) and steps (200 to 3,200)"),
        ("**Ten labels.**", f"{points(best['gain']['mean'], 1)} points remain"),
        ("**Ten labels.**", "model's at {rate} and {steps} steps, ".format(**best["settings"]["finetune"])
         + "the fresh one's at {rate} and {steps:,}.".format(**best["settings"]["fresh"])),
        ("**Ten labels.**", f"better by {plain(evidence.tuned['longer']['fresh'], sign=-1)}"),
        ("**Ten labels.**", "At rates up to 0.016"),
        ("**Ten labels.**", f"{gain(choices['few'])}, with shifts {gain(choices['few_shifted'])}"),
        ("**Where does the gain", f"{gain(evidence.sources['initial'])}; conv2 on top of it "
                                  f"{gain(evidence.sources['intermediate_on_top'])}"),
        ("**Where does the gain", f"{gain(evidence.untrained[1, False]['untrained_minus_fresh'])}, nor does it with "
                                  f"nothing frozen, {gain(evidence.untrained[0, False]['untrained_minus_fresh'])}"),
        ("by whole trainings", "take " + ratio(saved["backward_of_frozen"]).replace(
            "(", "of the fresh model's time (range ")),
        ("by whole trainings", f"either: {ratio(saved['input_gradient'])}"),
        ("by whole trainings", f"has only 1 % of the weights but handles the most values, {24 * 24 * 16:,} an image "
                               f"before pooling (conv2: {8 * 8 * 32:,})"),
        ("by whole trainings", f"takes {evidence.times['times']['recompute']['to_fresh']['median']:.2f} of"),
        ("by whole trainings", f"saves {ratio(saved['forward_of_frozen'])}, running it once costs "
                               f"{ratio(saved['features'])}"),
        ("by whole trainings", f"fine-tuning saves {ratio(saved['total'])}"),
        ("**Does a shorter", f"by {with_points(evidence.epochs[3]['default_finetune_minus_fresh'], 2)[1:]}: no"),
        ("**Does a shorter", "being within 0.1, a margin"),
        ("**Does transfer save", ratio(evidence.times["break_even"], 1).replace("(", "fine-tunings save (range ")),
        ("**Limits.**", "has 1,806 validation images"),
    ]
    for words, model, way, form in (
            ("model fits its training images", "base", "base", "is {:.4f}, the training loss {:.4f}:"),
            ("Initial block: conv1", "finetune", "once", "ends at {:.4f}, the training loss at {:.4f}:"),
            ("All four blocks", "fresh", "fresh", "ends at {:.4f}, the training loss at {:.4f}:")):
        last = evidence.curves[way][-1]
        quotes += [(words, f"accuracy is {percent(models[model]['train_accuracy']['mean'], 3)}, test accuracy "
                           f"{percent(models[model]['mean'])}"),
                   (words, form.format(last["validation_loss"]["mean"], last["train_loss"]["mean"]))]
    return quotes


def quotes_of_readme(evidence):
    return [("**All training images:**", f"{with_points(evidence.models['gain'], 2)[:-1]}, the 95 % interval)"),
            ("**All training images:**", f"gains {with_points(evidence.labels[10, False]['gain'])}"),
            ("**All training images:**", with_points(evidence.tuned["best"]["gain"])),
            ("**All training images:**",
             f"takes {percent(evidence.times['times']['once']['to_fresh']['median'], 0)} of the fresh model's")]


def quotes_of_experiments(evidence):
    control, choices, labels, tuned = evidence.untrained, evidence.choices, evidence.labels, evidence.tuned
    steps = {model: settings["steps"] for model, settings in tuned["best"]["settings"].items()}
    return [
        ("**Where to cut.**", with_points(evidence.cuts[None, 2, 2], 2)),
        ("**Where to cut.**", with_points(evidence.cuts[None, 3, 1], 2)),
        ("**Choices of digits.**", "{better} choices gain, {equal} tie and {worse} lose".format(**choices["all"])),
        ("**Choices of digits.**", f"all {choices['few']['better']} gain, with shifts "
                                    f"{choices['few_shifted']['worse']}"),
        ("**Choices of digits.**", with_points(choices["all"]["validation"], 2)),
        ("**Shifts.**", f"add {plain(labels[10, True]['by_shifts']['finetune'])}"),
        ("**Shifts.**", plain(labels[10, True]["by_shifts"]["fresh"])),
        ("**Shifts.**", f"{with_points(labels[5, True]['by_shifts']['finetune'])} for the fine-tuned model, "
                        f"{with_points(labels[5, True]['by_shifts']['fresh'])} for the fresh one"),
        *(("**Control.**", f"{with_points(control[frozen, False]['untrained_minus_fresh'])}, with shifts "
                           f"{with_points(control[frozen, True]['untrained_minus_fresh'])}") for frozen in (1, 0)),
        *(("**Control.**", f"by {plain(control[frozen, False]['finetune_minus_untrained'])}, with shifts by "
                           f"{plain(control[frozen, True]['finetune_minus_untrained'])}") for frozen in (1, 0)),
        ("Epochs, batch size, weight decay", f"weight decay ({WEIGHT_DECAY})"),
        ("**Tuning at ten", "rates from 0.002 to 0.032, doubling, and 200, 800 or 3,200 steps"),
        ("**Tuning at ten", "{steps} steps and {rate} for the fine-tuned model, ".format(
            **tuned["best"]["settings"]["finetune"])
         + "{steps:,} steps and {rate} for the fresh one".format(**tuned["best"]["settings"]["fresh"])),
        ("**Tuning at ten", f"There {steps['finetune']} steps instead of {steps['finetune'] // 4}, and "
                            f"{steps['fresh']:,} instead of {steps['fresh'] // 4}, add"),
        ("**Tuning at ten", f"{with_points(tuned['longer']['finetune'])} to the fine-tuned model and "
                            f"{with_points(tuned['longer']['fresh'])} to the fresh one"),
    ]


def rows_of_experiments(evidence):
    return [*tables.of_summary(evidence.summary)[9:], *tables.of_benchmark(evidence.times)[len(benchmark.WAYS):]]


NUMBER = re.compile(r"\d+\.\d+|\d,\d{3}")


@pytest.mark.parametrize("name, quotes, rows", [
    ("report.md", quotes_of_report, lambda evidence: model_rows(evidence) + tables.of_summary(evidence.summary)[3:9]),
    ("README.md", quotes_of_readme, model_rows), ("experiments/README.md", quotes_of_experiments, rows_of_experiments)])
def test_every_number_comes_from_the_results(evidence, request, name, quotes, rows):
    if name == "report.md":
        request.getfixturevalue("as_it_comes")
    text = read(name)
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    missing, left = [row for row in rows(evidence) if row not in text.splitlines()], {}
    for words, quote in quotes(evidence):
        (holder,) = (paragraph for paragraph in paragraphs if words in paragraph)
        missing += [] if quote in holder else [f"{words} ... {quote}"]
        left[holder] = left.get(holder, holder).replace(quote, "")
    assert missing == []
    if name == "report.md":  # tables, and paragraphs without a quote, have no number of their own
        left |= {paragraph: paragraph for paragraph in paragraphs if paragraph not in left and paragraph[0] != "|"}
    assert [rest for rest in left.values() if NUMBER.search(rest)] == []


@pytest.mark.usefixtures("as_it_comes")
def test_the_conclusions_about_accuracy_hold(evidence):
    models, choices, labels, tuned = evidence.models, evidence.choices, evidence.labels, evidence.tuned
    # All labels: no gain is shown for 7-9, and one of over 0.1 points is unlikely; over all choices a tiny one.
    assert -0.001 < models["gain"]["low"] <= 0 <= models["gain"]["high"] < 0.001
    assert 0 < choices["all"]["low"] and choices["all"]["high"] < 0.001 and choices["all"]["validation"]["low"] > 0
    # Up to 100 labels per digit fine-tuning is better, with 1,000 it is not shown.
    assert all((row["gain"]["low"] > 0) == (count <= 100) for (count, _), row in labels.items())
    assert tuned["best"]["gain"]["low"] > 0 and tuned["best"]["gain"]["high"] < labels[10, False]["gain"]["low"]
    assert (tuned["seeds"], tuned["best"]["seeds"], evidence.summary["few_seeds"]) == (10, 30, 30)
    assert tuned["best"]["settings"]["finetune"] == plan.TUNING_GRID[0]  # at the edge of what was tried
    assert tuned["best"]["settings"]["fresh"]["steps"] == max(row["steps"] for row in tuned["grid"])
    assert tuned["longer"]["fresh"]["high"] < 0 < tuned["longer"]["finetune"]["low"]
    for images in ("validation", "test"):
        found = {model: [row[images]["mean"] for row in tuned["grid"]
                         if row["model"] == model and (model == "fresh" or row["rate"] <= 0.016)]
                 for model in ("finetune", "fresh")}
        assert min(found["finetune"]) > max(found["fresh"])
    assert choices["few"]["low"] > 0 and choices["few_shifted"]["low"] > 0 and choices["few"]["worse"] == 0
    assert all(row["low"] > 0 for row in evidence.sources.values())  # conv1 first, conv2 on top
    for row in evidence.untrained.values():  # the control: it is what the base has learnt
        assert row["finetune_minus_untrained"]["low"] > 0
        assert row["untrained_minus_fresh"]["low"] < 0 < row["untrained_minus_fresh"]["high"]
    assert 0 < labels[10, True]["by_shifts"]["finetune"]["low"] and 0 < labels[10, True]["by_shifts"]["fresh"]["low"]
    assert all(row["low"] < 0 < row["high"] for row in labels[5, True]["by_shifts"].values())
    assert evidence.cuts[None, 2, 2]["high"] < 0 and evidence.cuts[None, 3, 1]["high"] < 0
    assert all((row["low"] > 0) == (frozen < 3) for (count, frozen, _), row in evidence.cuts.items() if count)
    # A fresh training of three epochs: no difference is shown, nor that it is within 0.1 points; with five it is.
    shorter, whole = (evidence.epochs[epochs]["default_finetune_minus_fresh"] for epochs in (3, 5))
    assert shorter["low"] < 0 < 0.001 < shorter["high"] and whole["high"] < 0.001


@pytest.mark.usefixtures("as_it_comes")
def test_what_is_said_of_the_losses_and_the_times_holds(evidence):
    curves, saved, seconds = evidence.curves, evidence.saved, evidence.times["seconds"]
    for way in ("base", "once", "fresh"):  # the base's mean losses fall in every epoch; overfitting in all three
        last = curves[way][-1]
        assert last["validation_loss"]["mean"] > last["train_loss"]["mean"]
    for name in ("train_loss", "validation_loss"):
        losses = [row[name]["mean"] for row in curves["base"]]
        assert losses == sorted(losses, reverse=True)
        for way in ("input_gradient", "recompute"):  # how conv1 is run changes no loss
            assert [row[name] for row in curves[way]] == [row[name] for row in curves["once"]]
    assert all(saved[part]["lowest"] > 0 for part in ("backward_of_frozen", "input_gradient", "forward_of_frozen"))
    assert evidence.times["rounds"] == 12 and round(evidence.times["break_even"]["median"]) == 5
    ratio_of_three_epochs = 3 / 5 / evidence.times["times"]["once"]["to_fresh"]["median"]
    assert ratio_of_three_epochs == pytest.approx(1, abs=0.1)  # about the fine-tuned model's time
    assert np.median(seconds["fresh"]) == evidence.times["times"]["fresh"]["seconds"]["median"]


def flat(value, path=""):
    """Nested results as one dictionary."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for name, part in items for key, leaf in flat(part, f"{path}/{name}").items()}
    return {path: value}


@pytest.mark.usefixtures("same_network")
def test_the_study_is_the_plan_and_its_summary_that_of_its_runs(evidence, runs):
    planned = plan.plan(10, 120, study.outcomes_by_key(runs))
    assert {plan.key(run) for run in planned} == {plan.key(run) for run in runs}
    assert [machine["cpu"] for machine in evidence.summary["machines"]] == ["AMD EPYC, AVX512"]  # as the texts say
    expected, found = flat(evidence.summary), flat(summarise(runs))
    assert found.keys() == expected.keys()
    assert [key for key, value in found.items()
            if value != expected[key] and value != pytest.approx(expected[key], rel=1e-6, abs=1e-12)] == []


@pytest.mark.usefixtures("same_network")
def test_the_benchmark_follows_from_its_seconds(evidence):
    seconds = {way: np.array(values) for way, values in evidence.times["seconds"].items()}
    found = flat(benchmark.summarise(seconds))
    assert found == pytest.approx({key: value for key, value in flat(evidence.times).items() if key in found})
    model = build_model()
    assert count_parameters(model[0]) / count_parameters(model) == pytest.approx(0.01, abs=0.001)


@pytest.mark.usefixtures("same_network")
@pytest.mark.parametrize("model", ["untrained", "fresh"])
def test_a_run_of_the_study_gives_the_same_again(runs, model):
    """Equal where processor, threads and versions are those of its line, elsewhere like another seed."""
    task, here = load_task(DATA, plan.EXERCISE), environment("cpu")
    wanted = plan.setting(model, 3, per_digit=plan.FEW, shifted=True)
    line = next(run for run in runs if plan.key(run) == plan.key(wanted))
    _, found = study.carry_out(wanted, task, None)
    if all(line[name] == here[name] for name in plan.MACHINE):
        assert found["outcome"] == line["outcome"]
    else:
        assert found["outcome"]["test_accuracy"] == pytest.approx(line["outcome"]["test_accuracy"], abs=0.06)
