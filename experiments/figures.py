"""The figures of the study and the benchmark. Each takes a summary as it stands in results/*.json.

    python -m experiments.figures               # draws them again; nothing is trained or measured
"""

import json
import math
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import cli
from experiments.plan import BLOCKS, CUT, FEW
from plotting import COLOURS, LABELS, WIDTH, draw_losses, to_png
from results import save
from training import STEPS

ALL_LABELS = 5420  # per digit: 16,259 training images of three digits


def losses_figure(results: dict) -> Figure:
    """Training and validation loss of the three models over epochs: mean and range of the benchmark's rounds."""
    figure = Figure(figsize=(WIDTH, 2.6))
    panels = figure.subplots(1, 3, sharey=True)
    losses = ("train_loss", "validation_loss")
    for axes, (name, way) in zip(panels, {"base": "base", "finetune": "once", "fresh": "fresh"}.items()):
        curve = results["ways"][way]["curve"]
        draw_losses(axes, [{"epoch": row["epoch"], **{key: row[key]["mean"] for key in losses}} for row in curve],
                    COLOURS[name])
        for key in losses:
            axes.fill_between([row["epoch"] for row in curve[1:]], [row[key]["lowest"] for row in curve[1:]],
                              [row[key]["highest"] for row in curve[1:]], color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.set_title(f"{LABELS[name]}, digits {'0-6' if name == 'base' else '7-9'}")
        axes.legend()
    panels[0].set_ylabel("cross-entropy (nats)")
    panels[0].set_ylim(bottom=0)
    return figure


def few_labels_figure(summary: dict) -> Figure:
    """Test error of both models. Left: over the number of labels. Right: of every setting tried with few labels."""
    figure = Figure(figsize=(WIDTH, 2))
    left, right = figure.subplots(1, 2)
    _draw_labels(left, summary)
    _draw_grid(right, summary["tuned"])
    return figure


def _draw_labels(axes, summary: dict) -> None:
    for model in ("fresh", "finetune"):
        for shifted in (False, True):
            rows = [row for row in summary["labels"] if row["shifted"] == shifted]
            counts = [row["per_digit"] for row in rows]
            points = [row[model] for row in rows]
            if not shifted:
                counts.append(ALL_LABELS)
                points.append(summary["models"][model])
            errors = [100 * (1 - point["mean"]) for point in points]
            margins = [100 * (point["high"] - point["mean"]) for point in points]
            beside = 1.04 if model == "fresh" else 0.96  # so that the bars of the two models do not hide each other
            axes.errorbar([beside * count for count in counts], errors, margins, color=COLOURS[model], marker="o",
                          linestyle="--" if shifted else "-", elinewidth=0.8,
                          label=f"{LABELS[model]}{', shifted' if shifted else ''}")
    axes.legend(loc="lower left", handlelength=2.4, labelspacing=0.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.05)  # room for the legend
    axes.set_xticks((5, 10, 100, 1000, ALL_LABELS), ("5", "10", "100", "1000", "all"))
    axes.set_yticks((0.1, 0.3, 1, 3, 10), ("0.1", "0.3", "1", "3", "10"))
    axes.minorticks_off()
    axes.set_xlabel("labelled images per digit of 7-9")
    axes.set_ylabel("test error (%)")
    axes.set_title(f"Digits 7-9, {summary['seeds']} seeds, {summary['tuned']['seeds']} at {FEW} labels")


def _draw_grid(axes, tuned: dict) -> None:
    for model in ("fresh", "finetune"):
        for shifted in (False, True):
            for steps, face in ((STEPS, COLOURS[model]), (4 * STEPS, "white")):
                rows = [row for row in tuned["grid"]
                        if (row["model"], row["shifted"], row["steps"]) == (model, shifted, steps)]
                axes.plot([row["rate"] for row in rows], [100 * (1 - row["test"]["mean"]) for row in rows],
                          "o--" if shifted else "o-", color=COLOURS[model], markerfacecolor=face)
    rates = sorted({row["rate"] for row in tuned["grid"]})
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("test error (%)")
    axes.set_title(f"{FEW} labels per digit; filled: {STEPS} steps, open: {4 * STEPS}")


def cuts_figure(summary: dict) -> Figure:
    """Heat maps over (frozen, reinit): gain over fresh with half its 95 % interval, all labels and few."""
    figure = Figure(figsize=(WIDTH, 2))
    blocks = len(BLOCKS)
    largest = 100 * max(abs(row["gain"]["mean"]) for row in summary["cuts"])  # points
    for axes, count in zip(figure.subplots(1, 2, sharey=True), (None, FEW)):
        grid = [[math.nan] * (blocks + 1) for _ in range(blocks)]
        for row in summary["cuts"]:
            if row["per_digit"] == count:
                place, gain = (row["reinit"], row["frozen"]), row["gain"]
                grid[row["frozen"]][row["reinit"]] = 100 * gain["mean"]
                text = f"{100 * gain['mean']:+.2f}\n\u00b1{100 * (gain['high'] - gain['mean']):.2f}"
                axes.text(*place, text.replace("-", "\u2212"), ha="center", va="center", linespacing=0.95)
        axes.text(blocks, 0, "fresh", ha="center", va="center")
        axes.text(blocks + 0.45, blocks - 0.6, "gain (points)\n\u00b1 half its\n95 % interval", ha="right", va="top")
        # Colours beyond the largest gain's would be so dark that no number on them could be read.
        axes.imshow(grid, cmap="PuOr", vmin=-1.6 * largest, vmax=1.6 * largest, aspect="auto", origin="lower")
        axes.add_patch(Rectangle((CUT[1] - 0.5, CUT[0] - 0.5), 1, 1, fill=False, linewidth=1.5))
        axes.grid(False)
        axes.set_xticks(range(blocks + 1), ("none", BLOCKS[-1], *(f"from\n{name}" for name in BLOCKS[-2:0:-1]), "all"))
        axes.set_yticks(range(blocks), ("none", BLOCKS[0], *(f"to {name}" for name in BLOCKS[1:-1])))
        axes.set_title(f"{count} labels per digit" if count else "All labels")
        axes.set_xlabel("reinitialised")
    figure.axes[0].set_ylabel("frozen")
    return figure


def times_figure(results: dict) -> Figure:
    """Left: the four training times, beside what operation counts alone predict. Right: validation error over time."""
    figure = Figure(figsize=(WIDTH, 1.9))
    left, right = figure.subplots(1, 2)
    ways, fresh = results["ways"], results["ways"]["fresh"]["seconds"]["median"]
    names = {"base": "base", "fresh": "fresh", "recompute": f"{BLOCKS[0]} in\nevery step", "once": f"{BLOCKS[0]}\nonce"}
    for place, way in enumerate(names):
        time, ratio, predicted = ways[way]["seconds"], ways[way]["to_fresh"]["median"], ways[way]["predicted_to_fresh"]
        colour = COLOURS.get(way, COLOURS["finetune"])
        left.barh(place - 0.2, time["median"], 0.4, color=colour, edgecolor=colour)
        left.errorbar([time["median"]], [place - 0.2], fmt="none", color="black", capsize=2, linewidth=1, xerr=[
            [time["median"] - time["lowest"]], [time["highest"] - time["median"]]])
        left.barh(place + 0.2, fresh * predicted, 0.4, color="white", edgecolor=colour)
        left.text(0.2, place - 0.2, f"{ratio:.2f}", va="center_baseline", color="white")
        left.text(0.2, place + 0.2, f"{predicted:.2f}", va="center_baseline")
    left.set_yticks(range(len(names)), names.values(), linespacing=0.9)
    left.invert_yaxis()
    left.grid(False, axis="y")
    left.set_xlabel("training time (s)")
    left.set_title("Filled: measured; open: counted; ratios to fresh")
    for way, name in (("fresh", "fresh"), ("once", "finetune")):
        curve = ways[way]["curve"][1:]  # before the first step nothing is known yet
        right.plot([row["seconds"]["mean"] for row in curve],
                   [100 * (1 - row["validation_accuracy"]["mean"]) for row in curve], "s-", color=COLOURS[name],
                   label=LABELS[name])
    right.legend()
    right.set_xlim(0)
    right.set_ylim(0)
    right.set_xlabel("training time (s)")
    right.set_ylabel("validation error (%)")
    right.set_title("Digits 7-9")
    return figure


FIGURES = {"summary": {"few_labels": few_labels_figure, "cuts": cuts_figure},
           "benchmark": {"losses": losses_figure, "times": times_figure}}


def draw(source: str, results: dict, out: Path) -> None:
    """The figures of `results`, as they stand in results/`source`.json, into `out`/plots."""
    for name, figure in FIGURES[source].items():
        save(out / "plots" / f"{name}.png", to_png(figure, results))


def main():
    args = cli.parser(__doc__).parse_args()
    for source, figures in FIGURES.items():
        draw(source, json.loads((args.out / "results" / f"{source}.json").read_text(encoding="utf-8")), args.out)
        print(f"saved plots/{', '.join(f'{name}.png' for name in figures)} in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
