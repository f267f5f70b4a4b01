"""The figures of the study and the benchmark. Each takes a summary as it stands in results/*.json."""

import math

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from plotting import COLOURS, HALF, WIDTH, style


@style
def labels_figure(summary: dict) -> Figure:
    """Test error over the number of labels per digit, with 95 % confidence bands over seeds."""
    figure = Figure(figsize=(HALF, 1.8))
    axes = figure.subplots()
    rows = summary["labels"]
    counts = [*(row["per_digit"] for row in rows), 5420]  # all labels: 16,259 training images of three digits
    for place, (model, label) in enumerate((("fresh", "fresh"), ("finetune", "fine-tuned"))):
        points = [row[model] for row in rows] + [summary["seeds"][model]]
        error, most, least = ([100 * (1 - point[key]) for point in points] for key in ("mean", "low", "high"))
        axes.plot(counts, error, color=COLOURS[model], marker="o", markersize=3)
        axes.fill_between(counts, [max(value, 0.1) for value in least], most, color=COLOURS[model], alpha=0.2,
                          linewidth=0)
        axes.text(0.97, 0.97 - 0.1 * place, label, transform=axes.transAxes, color=COLOURS[model], ha="right", va="top",
                  fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [*map(str, counts[:-1]), "all"])
    axes.set_yticks((0.3, 1, 3, 10), ("0.3", "1", "3", "10"))
    axes.minorticks_off()
    axes.set_xlabel("labelled images per digit of 7-9")
    axes.set_ylabel("test error (%)")
    axes.set_title(f"Digits 7-9, {rows[0]['fresh']['n']} seeds", loc="left")
    return figure


@style
def pairs_figure(summary: dict) -> Figure:
    """What transfer gains for each choice of three new digits: with all labels (x) and with few (y)."""
    figure = Figure(figsize=(HALF, 1.8))
    axes = figure.subplots()
    (few_name, few), (_, everything) = summary["pairs"].items()
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.axvline(0, color="0.5", linewidth=0.8)
    for x, y in zip(everything["gains"], few["gains"], strict=True):
        exercise = x["new"] == [7, 8, 9]
        axes.plot(100 * x["gain"], 100 * y["gain"], "D" if exercise else "o", markersize=5 if exercise else 3,
                  color=COLOURS["finetune"] if exercise else "0.35", alpha=1 if exercise else 0.6, zorder=2 + exercise)
        if exercise:
            axes.annotate("7-9", (100 * x["gain"], 100 * y["gain"]), (5, 3), textcoords="offset points",
                          color=COLOURS["finetune"], fontsize=8)
    axes.errorbar([100 * everything["mean"]], [100 * few["mean"]], [100 * few["within_sd"]],
                  [100 * everything["within_sd"]], color="black", capsize=2, linewidth=1, marker="s", markersize=4)
    axes.set_xlabel("gain, all labels (points)")
    axes.set_ylabel(f"gain, {few_name} labels (points)")
    axes.set_title(f"{few['n']} choices of three new digits", loc="left")
    return figure


@style
def cuts_figure(summary: dict) -> Figure:
    """Heat maps over (frozen, reinit): mean test accuracy and half its 95 % interval, all labels and few."""
    figure = Figure(figsize=(WIDTH, 1.65))
    counts = sorted({row["per_digit"] for row in summary["cuts"]}, key=lambda count: -(count or math.inf))
    for axes, count in zip(figure.subplots(1, len(counts)), counts):
        cells = [row for row in summary["cuts"] if row["per_digit"] == count]
        size = max(row["reinit"] for row in cells) + 1
        grid = [[math.nan] * size for _ in range(size - 1)]
        for row in cells:
            grid[row["frozen"]][row["reinit"]] = 100 * row["mean"]
        image = axes.imshow(grid, cmap="viridis", aspect="auto", origin="lower")
        for row in cells:
            red, green, blue, _ = image.cmap(image.norm(100 * row["mean"]))
            digits = 1 if count else 2
            axes.text(row["reinit"], row["frozen"], f"{100 * row['mean']:.{digits}f}\u00b1"
                      f"{50 * (row['high'] - row['low']):.{digits}f}", ha="center", va="center", fontsize=6.6,
                      color="white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "black")
            if not row["minus_default"]:
                axes.add_patch(Rectangle((row["reinit"] - 0.5, row["frozen"] - 0.5), 1, 1, fill=False, linewidth=1.5))
        axes.grid(False)
        axes.set_xticks(range(size))
        axes.set_yticks(range(size - 1))
        axes.set_title(f"{f'{count} labels per digit' if count else 'all labels'}: test accuracy (%)", loc="left")
        axes.set_xlabel("last blocks reinitialised")
    figure.axes[0].set_ylabel("first blocks frozen")
    return figure


COSTS = {"pass": ("fixed costs", "0.75"), "flop": ("arithmetic", "#56B4E9"),  # no model's colours
         "byte": ("moving values", "#E69F00"), "features": ("features, once", "#CC79A7")}
WAYS = {"fresh": "fresh", "recompute": "fine-tuned,\nconv1 in each step", "once": "fine-tuned,\nfeatures once"}


@style
def times_figure(results: dict) -> Figure:
    """Left: predicted against measured time of a step. Right: predicted training time by cost, and the measured one."""
    figure = Figure(figsize=(WIDTH, 1.7))
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    steps = results["explanation"]["steps"]
    for row in steps:
        left.plot(1000 * row["measured"], 1000 * row["predicted"], "D" if row["once"] else "o", markersize=4,
                  color=COLOURS["finetune" if row["frozen"] else "fresh"],
                  markerfacecolor=None if row["fitted"] else "white")
    ends = [f(1000 * row[key] for row in steps for key in ("measured", "predicted")) for f in (min, max)]
    left.plot(ends, ends, color="0.5", linewidth=0.8, zorder=0)
    left.set_xscale("log")
    left.set_yscale("log")
    for axis in (left.xaxis, left.yaxis):
        axis.set_major_formatter("{x:g}")
    left.set_xlabel("measured step (ms)")
    left.set_ylabel("predicted step (ms)")
    left.set_title("filled: fitted; hollow: held out", loc="left")
    labelled = set()
    for place, way in enumerate(WAYS):
        parts, end = results["explanation"]["predicted_seconds"][way], 0.0
        for cost, seconds in parts.items():
            label, colour = COSTS[cost]
            right.barh(place, seconds, 0.5, end, color=colour, edgecolor="white", linewidth=0.5)
            if cost not in labelled and seconds > 0.05 * sum(parts.values()):
                right.annotate(label, (end + seconds / 2, place - 0.27), ha="center", va="bottom", fontsize=7.5)
                labelled.add(cost)
            end += seconds
        time = results["ways"][f"{way}_seconds"]
        right.errorbar([time["median"]], [place], fmt="o", color="black", markersize=4, capsize=2, xerr=[
            [time["median"] - time["lowest"]], [time["highest"] - time["median"]]])
    right.set_yticks(range(len(WAYS)), WAYS.values())
    for label, way in zip(right.get_yticklabels(), WAYS):
        label.set_color(COLOURS["fresh" if way == "fresh" else "finetune"])
    right.set_ylim(2.5, -0.7)
    right.set_xlim(0)
    right.grid(False, axis="y")
    right.set_xlabel("training time (s); black: measured, range")
    right.set_title("bars: predicted", loc="left")
    return figure
