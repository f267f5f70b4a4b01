"""All that is known from more than one run, question by question: results/evidence.md, and its figures.

    python -m experiments.evidence      # seconds: nothing is trained or measured

The sheet is a function of results/study.jsonl and results/benchmark.json in --out.
"""

import inspect
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

import cli
from data import UserError
from experiments import gain, parts, times, tuning
from experiments.intervals import table
from experiments.runs import CUT, FEW, FIRST_SEEDS, MACHINE, Study, block_names, network, read_runs, setting
from plotting import WIDTH, to_png
from results import save
from training import EPOCHS, STEPS

MODULES = (gain, tuning, parts, times)
# By name: height in inches, and the panels; those of times.py need the benchmark.
FIGURES = {"few_labels": (2.2, gain.draw_labels, tuning.draw_grid), "times": (2, times.draw_parts, times.draw_errors)}
HEAD = """# The evidence

Written by `python -m experiments.evidence` from `study.jsonl` and `benchmark.json`: one section for each question.
An estimate is followed by its 95 % interval in brackets, and a bracket directly after an estimate is nothing else. A
gain is the fine-tuned model's test accuracy minus the fresh one's, in percentage points, over pairs of the same seed.
Intervals over seeds count seeds and test images as samples, those over rounds and over choices of digits are Student's.
How they are computed: `experiments/README.md`."""


def section(question: Callable, study: Study, benchmark: dict | None) -> str:
    """A question's docstring as heading and method, and below it its table; empty where the benchmark is missing."""
    lines = question(study, benchmark)
    heading, _, method = inspect.getdoc(question).partition("\n\n")
    return "\n".join([f"## {heading}", "", method, "", *lines]).rstrip() if lines else ""


def where_made(runs: list[dict], benchmark: dict | None) -> str:
    """The machines, at the end of the sheet."""
    counts = Counter(tuple(run[name] for name in MACHINE) for run in runs)
    rows = [(f"{count:,} runs", *machine) for machine, count in sorted(counts.items())]
    if benchmark:
        rows.append(("benchmark", *(benchmark["environment"][name] for name in MACHINE)))
    return "\n".join(["## Where was this made?", "", *table(("what", *MACHINE), rows)])


def write_sheet(runs: list[dict], benchmark: dict | None) -> str:
    """The whole sheet."""
    runs = [run for run in runs if run["network"] == network()]
    study = Study(runs)
    added = [seed for seed in study.seeds(setting("fresh")) if seed not in FIRST_SEEDS]
    frozen, reinitialised = (" and ".join(part) for part in (block_names()[:CUT[0]], block_names()[-CUT[1]:]))
    notes = [f"Default settings: {frozen} frozen, {reinitialised} reinitialised; {EPOCHS} epochs, "
             f"with few labels about {STEPS} steps."]
    if added:
        notes.append(f"In the project's own study the seeds {added[0]} to {added[-1]} were added after the first "
                     f"{len(FIRST_SEEDS)} had been seen; at {FEW} labels, for the control with permuted labels alone.")
    sections = [section(question, study, benchmark) for module in MODULES for question in module.QUESTIONS]
    return "\n\n".join(filter(None, [HEAD, *notes, *sections, where_made(runs, benchmark)])) + "\n"


def draw(name: str, study: Study, benchmark: dict | None) -> Figure:
    """One of FIGURES: two panels side by side."""
    height, *panels = FIGURES[name]
    figure = Figure(figsize=(WIDTH, height))
    for axes, panel in zip(figure.subplots(1, len(panels)), panels):
        panel(axes, study, benchmark)
    return figure


def read_evidence(out: Path) -> tuple[list[dict], dict | None]:
    """The runs, and the benchmark where there is one of this network. Raises UserError where there are no runs."""
    path = out / "results" / "study.jsonl"
    if not path.exists():
        raise UserError(f"there is no {path}: run experiments.study, with the same --out")
    runs, benchmark = read_runs(path), out / "results" / "benchmark.json"
    measured = json.loads(benchmark.read_text(encoding="utf-8")) if benchmark.exists() else {}
    return runs, measured if measured.get("network") == network() else None


def main():
    args = cli.parser(__doc__).parse_args()
    runs, benchmark = read_evidence(args.out)
    save(args.out / "results" / "evidence.md", write_sheet(runs, benchmark).encode())
    if not benchmark:
        print("there is no results/benchmark.json of this network: what needs it is left out")
    for name, (_, *panels) in FIGURES.items():
        if benchmark or times.draw_parts not in panels:
            save(args.out / "plots" / f"{name}.png", to_png(draw, name, Study(runs), benchmark))
    print(f"saved results/evidence.md and its figures in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
