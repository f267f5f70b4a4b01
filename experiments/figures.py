"""The figures of the study and the benchmark. Each takes results as they stand in results/*.json.

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

ALL_LABELS = 5420  # per digit: 16,259 training images of three digits


def losses_figure(benchmark: dict) -> Figure:
    """Training and validation loss of the three models over epochs: mean and range of the benchmark's rounds."""
    figure = Figure(figsize=(WIDTH, 2.6))
    panels = figure.subplots(1, 3, sharey=True)
    losses = ("train_loss", "validation_loss")
    for axes, (name, way) in zip(panels, {"base": "base", "finetune": "once", "fresh": "fresh"}.items()):
        curve = benchmark["curves"][way]
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
            beside = 1.1 if model == "fresh" else 0.91  # so that the bars of the two models do not hide each other
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
    axes.set_title(f"Default settings, {summary['seeds']} seeds, {summary['few_seeds']} at {FEW} labels")


def _draw_grid(axes, tuned: dict) -> None:
    lines = dict(zip(sorted({row["steps"] for row in tuned["grid"]}), ("o:", "s--", "^-")))
    for model in ("fresh", "finetune"):
        for steps, line in lines.items():
            rows = [row for row in tuned["grid"] if (row["model"], row["steps"]) == (model, steps)]
            axes.plot([row["rate"] for row in rows], [100 * (1 - row["test"]["mean"]) for row in rows], line,
                      color=COLOURS[model], label=f"{LABELS[model]}, {steps:,}")
    rates = sorted({row["rate"] for row in tuned["grid"]})
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower left", ncols=2, labelspacing=0.2, columnspacing=1, title="model, steps")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("test error (%)")
    axes.set_title(f"{FEW} labels per digit, shifted, {tuned['seeds']} other seeds")


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


def times_figure(benchmark: dict, summary: dict) -> Figure:
    """Left: training times, part by part. Right: test error over training time, each point a training of its own."""
    figure = Figure(figsize=(WIDTH, 1.9))
    left, right = figure.subplots(1, 2)
    _draw_parts(left, benchmark)
    _draw_errors(right, benchmark, summary)
    return figure


def _draw_parts(axes, benchmark: dict) -> None:
    first, second = BLOCKS[CUT[0] - 1], BLOCKS[CUT[0]]
    parts = {"fresh": "fresh", "input_gradient": f"without {first}'s\nbackward pass",
             "recompute": f"and {second}'s\ninput gradient", "once": f"{first} run\nonly once"}
    for place, way in enumerate(parts):
        time, colour = benchmark["times"][way]["to_fresh"], COLOURS["fresh" if way == "fresh" else "finetune"]
        axes.barh(place, time["median"], 0.6, color=colour, alpha=0.5 if way == "input_gradient" else 1)
        axes.errorbar(time["median"], place, fmt="none", color="black", capsize=2, linewidth=1, xerr=[
            [time["median"] - time["lowest"]], [time["highest"] - time["median"]]])
        axes.text(0.02, place, f"{time['median']:.2f}", va="center_baseline", color="white")
    axes.set_yticks(range(len(parts)), parts.values())
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set_xlabel("training time, in shares of the fresh model's")
    axes.set_title("Five epochs, medians and ranges")


def _draw_errors(axes, benchmark: dict, summary: dict) -> None:
    epochs_measured = benchmark["settings"]["epochs"]
    for model, way, beside in (("fresh", "fresh", (3, 3)), ("finetune", "once", (-7, -9))):
        features = benchmark["curves"][way][0]["seconds"]["mean"]
        an_epoch = (benchmark["times"][way]["seconds"]["median"] - features) / epochs_measured
        rows = summary["epochs"]
        seconds = [features + row["epochs"] * an_epoch for row in rows]
        errors = [100 * (1 - row[model]["mean"]) for row in rows]
        margins = [100 * (row[model]["high"] - row[model]["mean"]) for row in rows]
        axes.errorbar(seconds, errors, margins, fmt="o-", color=COLOURS[model], elinewidth=0.8, label=LABELS[model])
        for row, x, y in zip(rows, seconds, errors):
            axes.annotate(row["epochs"], (x, y), beside, textcoords="offset points", color=COLOURS[model])
    axes.legend()
    axes.set_xlim(0)
    axes.set_ylim(0)
    axes.set_xlabel("training time (s)")
    axes.set_ylabel("test error (%)")
    axes.set_title("All labels, after 1, 2, 3 and 5 epochs")


FIGURES = {"few_labels": (few_labels_figure, "summary"), "cuts": (cuts_figure, "summary"),
           "losses": (losses_figure, "benchmark"), "times": (times_figure, "benchmark", "summary")}


def draw(out: Path) -> str:
    """Each figure whose results/*.json are in `out`, into `out`/plots; their paths."""
    drawn = []
    for name, (figure, *sources) in FIGURES.items():
        paths = [out / "results" / f"{source}.json" for source in sources]
        if all(path.exists() for path in paths):
            results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
            drawn.append(out / "plots" / f"{name}.png")
            save(drawn[-1], to_png(figure, *results))
    return ", ".join(map(str, drawn)) or f"nothing: {out} has no results of the study or the benchmark"


def main():
    print("drew", draw(cli.parser(__doc__).parse_args().out))


if __name__ == "__main__":
    cli.run(main)
