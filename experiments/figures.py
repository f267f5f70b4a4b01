"""The figures of the study and the benchmark. Each takes a summary as it stands in results/*.json."""

import math

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from finetune import FROZEN, REINIT
from plotting import COLOURS, HALF, LABELS, WIDTH, style

ALL_LABELS = 5420  # per digit: 16,259 training images of three digits


@style
def labels_figure(summary: dict) -> Figure:
    """Test error over the number of labels per digit, with 95 % confidence bands: images as they are, and shifted."""
    figure = Figure(figsize=(HALF, 1.85))
    axes = figure.subplots()
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
                          markersize=3, linestyle="--" if shifted else "-", linewidth=1.3, elinewidth=0.8,
                          label=f"{LABELS[model]}{', shifted' if shifted else ''}")
    axes.legend(fontsize=7.5, frameon=False, loc="lower left", handlelength=2.4, labelspacing=0.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks((5, 10, 100, 1000, ALL_LABELS), ("5", "10", "100", "1000", "all"))
    axes.set_yticks((0.1, 0.3, 1, 3, 10), ("0.1", "0.3", "1", "3", "10"))
    axes.minorticks_off()
    axes.set_ylim(0.05, 20)
    axes.set_xlabel("labelled images per digit of 7-9")
    axes.set_ylabel("test error (%)")
    axes.set_title(f"Digits 7-9, {summary['seeds']} seeds", loc="left")
    return figure


@style
def choices_figure(summary: dict) -> Figure:
    """The fine-tuned model's test error over the fresh one's, for each choice of three new digits."""
    figure = Figure(figsize=(HALF, 1.85))
    axes = figure.subplots()
    ends = (0.5, 20)
    axes.plot(ends, ends, color="0.4", linewidth=0.8)
    axes.plot(ends, [end / 2 for end in ends], color="0.4", linewidth=0.8, linestyle=":")
    for part, label, colour, marker in (("few", "ten labels", "black", "o"),
                                        ("few_shifted", "ten labels, shifted", "#AA3377", "^")):
        rows = summary["choices"][part]["by_choice"]
        fresh = [100 * row["fresh_error"] for row in rows]
        finetune = [100 * (row["fresh_error"] - row["gain"]) for row in rows]
        axes.plot(fresh, finetune, marker, color=colour, markersize=3, alpha=0.6, markeredgewidth=0, label=label)
        for row, x, y in zip(rows, fresh, finetune):
            if row["new"] == [7, 8, 9]:
                axes.plot(x, y, marker, color=colour, markersize=8, markerfacecolor="none", markeredgewidth=1.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks((0.3, 1, 3, 10), ("0.3", "1", "3", "10"))
    axes.minorticks_off()
    axes.set_xlim(ends)
    axes.set_ylim(0.15, 12)
    axes.text(0.55, 1.05, "no gain", fontsize=7.5, color="0.4")
    axes.text(0.55, 0.19, "half the errors", fontsize=7.5, color="0.4")
    axes.legend(fontsize=7.5, frameon=False, loc="upper left", handlelength=1, borderaxespad=0.2)
    axes.set_xlabel("fresh: test error (%)")
    axes.set_ylabel("fine-tuned: error (%)")
    axes.set_title(f"{summary['number_of_choices']} choices of new digits", loc="left")
    return figure


@style
def cuts_figure(summary: dict) -> Figure:
    """Heat maps over (frozen, reinit): gain over fresh with half its 95 % interval, all labels and few.

    Bold: differs from fresh after Bonferroni's correction for all comparisons in the figure.
    """
    figure = Figure(figsize=(WIDTH, 1.65))
    comparisons = len(summary["cuts"]) - 2  # fresh itself is a cell of either map
    for axes, count in zip(figure.subplots(1, 2), (None, 10)):
        cells = [row for row in summary["cuts"] if row["per_digit"] == count]
        grid = [[math.nan] * 5 for _ in range(4)]
        for row in cells:
            grid[row["frozen"]][row["reinit"]] = 100 * row["minus_fresh"]["mean"]
        axes.imshow(grid, cmap="PuOr", vmin=-6, vmax=6, aspect="auto", origin="lower")
        for row in cells:
            place, gain = (row["reinit"], row["frozen"]), row["minus_fresh"]
            margin = 100 * (gain["high"] - gain["mean"])
            text = f"{100 * gain['mean']:+.2f}\n\u00b1{margin:.2f}".replace("-", "\u2212") if margin else "fresh"
            axes.text(*place, text, ha="center", va="center", fontsize=6.8, linespacing=0.95,
                      fontweight="bold" if comparisons * gain["p"] < 0.05 else "normal")
            if (row["frozen"], row["reinit"]) == (FROZEN, REINIT):
                axes.add_patch(Rectangle((place[0] - 0.5, place[1] - 0.5), 1, 1, fill=False, linewidth=1.5))
        axes.grid(False)
        axes.set_xticks(range(5), ("none", "fc2", "fc1, fc2", "from conv2", "all"), fontsize=7)
        axes.set_yticks(range(4), ("none", "conv1", "to conv2", "to fc1"), fontsize=7.5)
        axes.set_title(f"{f'{count} labels per digit' if count else 'All labels'}: gain (points)", loc="left")
        axes.set_xlabel("reinitialised")
    figure.axes[0].set_ylabel("frozen")
    return figure


WAYS = {"base": "base (0-6)", "fresh": "fresh", "recompute": "fine-tuned,\nconv1 each step",
        "once": "fine-tuned,\nfeatures once"}


@style
def times_figure(results: dict) -> Figure:
    """Left: the four training times, beside what operation counts alone predict. Right: validation error over time."""
    figure = Figure(figsize=(WIDTH, 1.6))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    ways, fresh = results["ways"], results["ways"]["fresh"]
    colours = {way: COLOURS.get(way, COLOURS["finetune"]) for way in WAYS}
    for place, way in enumerate(WAYS):
        time, colour = ways[way]["seconds"], colours[way]
        left.barh(place - 0.17, time["median"], 0.32, color=colour)
        left.errorbar([time["median"]], [place - 0.17], fmt="none", color="black", capsize=2, linewidth=1, xerr=[
            [time["median"] - time["lowest"]], [time["highest"] - time["median"]]])
        operations = ways[way]["operations"]["total"] / fresh["operations"]["total"]
        left.barh(place + 0.17, fresh["seconds"]["median"] * operations, 0.32, color="white", edgecolor=colour)
        ratio = ways[way]["to_fresh"]["median"]
        left.text(max(time["highest"], fresh["seconds"]["median"] * operations), place,
                  f"  {ratio:.2f} of fresh ({operations:.2f})", va="center", fontsize=7.5)
    left.set_yticks(range(len(WAYS)), WAYS.values(), fontsize=7, linespacing=0.9)
    for label, way in zip(left.get_yticklabels(), WAYS):
        label.set_color(colours[way])
    left.invert_yaxis()
    left.grid(False, axis="y")
    left.set_xlabel("training time (s)")
    left.set_xlim(0, 1.4 * ways["base"]["seconds"]["highest"])
    left.set_title("filled: measured; open: by operations", loc="left")
    for way, label in (("fresh", "fresh"), ("once", "fine-tuned")):
        curve = ways[way]["curve"][1:]  # before the first step nothing is known yet
        right.plot([row["seconds"] for row in curve], [100 * (1 - row["validation_accuracy"]) for row in curve],
                   color=colours[way], marker="o", markersize=3, label=label)
    right.legend(fontsize=8, frameon=False)
    right.set_xlim(0)
    right.set_ylim(0)
    right.set_xlabel("training time (s)")
    right.set_title("validation error (%)", loc="left")
    return figure
