"""The texts say what results/evidence.md says, and that is what the code makes of the tracked runs.

After new results a failure means that a sentence is no longer true: change the sentence, not the test. Once the
participants' line of report.md is filled in, the report is somebody's own, and its numbers are not tested.
"""

import re

import pytest
from conftest import ROOT

from experiments.evidence import read_evidence, write_sheet
from experiments.runs import Study
from experiments.study import missing_runs
from training import LEARNING_RATE

SHEET = (ROOT / "results" / "evidence.md").read_text(encoding="utf-8")
TEXTS = ("report.md", "README.md", "experiments/README.md")
NUMBER = r"[+\u2212]?\d[\d,]*(?:\.\d+)?"
INTERVAL = rf"{NUMBER} \({NUMBER} to {NUMBER}\)"
DECIMAL = r"[+\u2212]?(?<![\d.])\d[\d,]*\.\d+(?!\d|\.\d)|\d+(?= %)"  # also a percentage
NO_EVIDENCE = r"(?m)^ {4}.*$|`[^`]*`|https?:\S+|\b([Pp]ython|torch|torchvision|numpy|BY-SA) [\d.]+|[\d.]+ [GM]B"
# How a sentence may put it, and what would turn it round.
BETTER, EQUAL, NO_GAIN = "better|gain|accurate|ahead|beat|win", "equal|within|as (accurate|good)", "no gain|nothing"
TAKES, SCATTERS = "tak|of it|model|time|leave", "scatter|rang|between|from|gave"
OPPOSITE = {BETTER: "worse|behind|los[es]|no gain|less accurate", EQUAL: "unequal|not (as|equal|within)"}


def read(name):
    """A text of the project: table rows, and paragraphs in one line each, behind their section's heading."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name == "report.md" and "**Participants:** _name, student number; name, student number_" not in text:
        pytest.skip("report.md has participants: its numbers are theirs")
    lines, heading = [], ""
    for line in re.sub(r"\n(?![\n|#!]|- |    )", " ", text).splitlines():
        heading = line if line.startswith("#") else heading
        lines.append(line if line.startswith(("|", "    ")) else f"{heading} {line.strip()}")
    return lines


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def value(column, *beginning):
    """The cell of the sheet in a column of the row that begins so."""
    head = []
    for line in SHEET.splitlines():
        head = [] if not line.startswith("|") else head or cells(line)
        if column in head and cells(line)[:len(beginning)] == list(beginning):
            return cells(line)[head.index(column)]
    raise LookupError(column, beginning)


def mean(*place):
    return value(*place).split(" ")[0].lstrip("+\u2212")


@pytest.mark.usefixtures("same_network")
def test_the_sheet_is_what_the_code_makes_of_the_tracked_runs_and_all_are_there():
    runs, benchmark = read_evidence(ROOT)
    assert write_sheet(runs, benchmark) == SHEET
    assert missing_runs(30, 120, Study(runs)) == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_row_interval_and_decimal_number_stands_in_the_sheet(name):
    rows = [cells(line) for line in SHEET.splitlines() if line.startswith("|")]
    known = {what: set(re.findall(what, SHEET)) for what in (INTERVAL, DECIMAL)}
    known[DECIMAL] |= {number.lstrip("+\u2212") for number in known[DECIMAL]} | set(re.findall(r"\d+(?= \()", SHEET))
    for line in read(name):
        text = re.sub(NO_EVIDENCE, "", line)
        if line.startswith("|"):
            if re.search(DECIMAL, text):
                assert any(all(cell in rest for cell in cells(line)) for rest in map(iter, rows)), line
            continue
        assert set(re.findall(INTERVAL, text)) <= known[INTERVAL], line
        assert set(re.findall(DECIMAL, re.sub(INTERVAL, "", text))) <= known[DECIMAL], line


SHARE, TUNED = "share of the fresh model's time", "10, shifted, both tuned"
ONCE, PLAIN = "fine-tuned: conv1 frozen, run once", "plain freezing: conv1 frozen, run in every step"
THREE = ("fine-tuned, 3 epochs", "fresh, 5 epochs")
SCATTER = [("[Ss]ingle|[Pp]air", value(end, "training time")) for end in ("lowest", "highest")]
BREAK_EVEN = re.search(f"{INTERVAL}(?= fine-tunings save)", SHEET)[0]
# Text; how its sentence puts it; what it must be near, and what the sheet has for that: in one paragraph, in one order.
CONCLUSIONS = [
    *(("report.md", "", [(f"{model}.* model: .*?[Tt]raining acc", value("training accuracy", model)),
                         (f"{model}.* model: .*?[Tt]est acc", value("test accuracy", model))])
      for model in ("base", "fine-tuned", "fresh")),
    ("report.md", BETTER, [("[Tt]en|10", mean("gain", "10")), ("(?<!-)tun", mean("gain", TUNED))]),
    ("report.md", BETTER, [("quarter|800", value("gain", f"{TUNED}, but a quarter of the fresh model's steps"))]),
    ("report.md", BETTER, [("conv1", value("gain", "10", "conv1")),
                           ("conv2", value("gain", "10", "conv2, on top of it"))]),
    ("report.md", NO_GAIN, [("permuted|shuffled", value("this minus fresh", "10", "with permuted labels"))]),
    ("report.md", TAKES, [("[Ff]resh", mean("seconds", "fresh") + " s"),
                          ("[Ff]ine-tun", mean("seconds", ONCE) + " s")]),
    ("report.md", TAKES, [("fine-tun", value(SHARE, ONCE)), ("usual|plain", mean(SHARE, PLAIN))]),
    ("report.md", SCATTERS, SCATTER),
    ("report.md", EQUAL, [("[Tt]hree", value("difference", *THREE)), ("time", mean("share of the time", *THREE))]),
    ("report.md", BETTER, [("[Ff]ive", value("difference", "fine-tuned, 5 epochs", "fresh, 3 epochs"))]),
    ("report.md", "", [("base", BREAK_EVEN)]),
    ("report.md", "", [("rate", f"{LEARNING_RATE:g}")]),
    ("README.md", EQUAL, [("[Aa]ll", value("gain", "all"))]),
    ("README.md", BETTER, [("[Tt]en|10", value("gain", "10")), ("(?<!-)tun", value("gain", TUNED))]),
    ("README.md", TAKES, [("fine-tun", value(SHARE, ONCE))]),
    ("README.md", SCATTERS, SCATTER),
]


def is_said(paragraph, manner, pairs):
    """All is there, each value in the order of what it belongs to, and the first value's sentence has the manner."""
    names, values = [], []
    for name, found in pairs:
        number = re.search(rf"(?<![\d.,+\u2212]){re.escape(found)}(?!\d|\.\d)", paragraph)
        matches = [match.end() for match in re.finditer(name, paragraph)]
        if not (number and matches):
            return False
        ends = [end.end() for end in re.finditer(r"[.;?] |$", paragraph)]  # of sentences: the value's own come first
        start = max([0, *(end for end in ends if end <= number.start())])
        stop = min(end for end in ends if end > number.start())
        names.append(min(matches, key=lambda end: (not start <= end <= stop, abs(end - number.start()))))
        values.append(number.start())
    sentence = next(part for part in re.split(r"(?<=[.;?]) ", paragraph) if pairs[0][1] in part)
    in_order = sorted(pairs, key=lambda pair: names[pairs.index(pair)]) == sorted(
        pairs, key=lambda pair: values[pairs.index(pair)])
    return in_order and re.search(manner, sentence) and not re.search(OPPOSITE.get(manner, "$^"), sentence)


@pytest.mark.parametrize("name, manner, pairs", CONCLUSIONS)
def test_conclusions_have_their_number_and_direction(name, manner, pairs):
    assert any(is_said(paragraph, manner, pairs) for paragraph in read(name)), (
        f"{name}: no paragraph has {pairs} in this order, in a sentence with one of {manner}")


@pytest.mark.parametrize("name", TEXTS[:2])
def test_what_is_said_in_words_is_true(name):
    text = " ".join(read(name))
    assert set(re.findall(r"(?:within|below) (\d\S*)", text)) <= {"0.1"}
    for first in ("fine-tuned, 5 epochs", "fine-tuned, 3 epochs", "fresh, 3 epochs"):
        assert value("within 0.1 points", first, "fresh, 5 epochs") == "yes"
    assert "half the" not in text or abs(float(mean(SHARE, ONCE)) - 0.5) <= 0.05
    assert set(re.findall(r"about (\w+) fine-tunings", text)) <= {"four"} and BREAK_EVEN.startswith("4.")
    assert {value("seeds", "all"), value("seeds", "10"), value("seeds", TUNED)} == {"30"}  # thirty
    assert value("rounds", "base") == "12"  # twelve
    losses = {row: [float(value(f"epoch {epoch}", *row)) for epoch in range(1, 6)] for row in (
        ("base", "training"), ("base", "validation"), ("fine-tuned", "training"), ("fine-tuned", "validation"))}
    assert all(values == sorted(values, reverse=True) for values in losses.values())  # they fall in every epoch
    assert float(value("epoch 5", "fresh", "validation")) >= float(value("epoch 4", "fresh", "validation"))
