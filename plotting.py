"""The figures of the scripts: loss curves and the comparison; and the one style of all figures.

Each function takes results as they stand in results/*.json and returns a matplotlib Figure; `to_png` draws it.
"""

import io
import textwrap
from collections.abc import Callable

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data import spell_digits

COLOURS = {"base": "#0072B2", "finetune": "#D55E00", "fresh": "#009E73"}  # Okabe & Ito: colour-blind safe
LABELS = {"base": "base", "finetune": "fine-tuned", "fresh": "fresh"}
WIDTH = 6.69  # inches: the text width of the report (A4 less 20 mm margins), so that points are as printed

# Matplotlib's default and our few settings: nothing of the reader's own matplotlibrc.
STYLE = ["default", {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.frameon": False, "legend.handlelength": 2.6, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "lines.linewidth": 1.4, "lines.markersize": 3.5, "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}]


def to_png(figure: Callable[..., Figure], *args) -> bytes:
    """Call one of the functions that return a figure, and draw what it returns, both in our style."""
    with matplotlib.style.context(STYLE):
        stream = io.BytesIO()
        figure(*args).savefig(stream, format="png")
    return stream.getvalue()


def loss_figure(results: dict[str, dict]) -> Figure:
    """Training and validation loss over epochs, a panel for each of one or more models (by experiment)."""
    figure = Figure(figsize=(WIDTH / 2 if len(results) == 1 else WIDTH, 3))
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (name, result) in zip(panels, results.items()):
        draw_curve(axes, result["curve"], "epoch", "train_loss", "o-", color=COLOURS[name], label="training")
        draw_curve(axes, result["curve"], "epoch", "validation_loss", "s--", color=COLOURS[name], label="validation")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_title("\n".join(line for phrase in describe(result) for line in textwrap.wrap(phrase, 35)))
        axes.legend()
    panels[0].set(ylabel="cross-entropy (nats)", ylim=(0, None))
    return figure


def comparison_figure(finetune: dict, fresh: dict, differences: list[str]) -> Figure:
    """Validation loss of the fine-tuned and the fresh model, over epochs and over seconds of training.

    `differences` of the two apart from transfer are written on the figure.
    """
    lines = []
    for result in (finetune, fresh):
        phrases = describe(result)
        lines += [", ".join(phrases[:3]), ", ".join(phrases[3:])]
    for difference in differences:
        lines += textwrap.wrap(f"difference: {difference}", 105)
    figure = Figure(figsize=(WIDTH, 2.2 + 0.13 * len(lines)))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "epoch"), (right, "seconds")):
        for name, result in (("finetune", finetune), ("fresh", fresh)):
            draw_curve(axes, result["curve"], key, "validation_loss", "s-", color=COLOURS[name], label=LABELS[name])
    left.set(xlabel="epoch", ylabel="validation loss (nats)", ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.legend()
    right.set(xlabel="training time (seconds, features included)", xlim=(0, None))
    figure.suptitle("\n".join(lines), fontsize=8, x=0.01, ha="left")
    return figure


def draw_curve(axes: Axes, curve: list[dict], x: str, y: str, line: str, **style) -> None:
    """One column over another, from the second row on: before the first step the loss is 2.3 and hides all others."""
    axes.plot([row[x] for row in curve[1:]], [row[y] for row in curve[1:]], line, clip_on=False, **style)


def describe(result: dict) -> list[str]:
    """A run in short phrases: digits and seed, epochs and labels, what it started from, accuracies, training time."""
    settings = result["settings"]
    labels = f", {settings['per_digit']} labels per digit" if settings["per_digit"] else ""
    start = "from random weights"
    if result["experiment"] == "finetune":
        start = f"blocks: {settings['frozen']} frozen, {settings['reinit']} reinitialised"
    return [f"{LABELS[result['experiment']]}: digits {spell_digits(settings['digits'])}, seed {settings['seed']}",
            f"epochs {settings['epochs']}{labels}", start,
            f"training accuracy {100 * result['train_accuracy']:.3f} %",
            f"test accuracy {100 * result['test_accuracy']:.2f} %",
            f"training time {result['training_seconds']:.1f} s"]
