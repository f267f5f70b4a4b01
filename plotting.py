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

from training import BATCH_SIZE, LEARNING_RATE

COLOURS = {"base": "#0072B2", "finetune": "#D55E00", "fresh": "#009E73"}  # Okabe & Ito: colour-blind safe
LABELS = {"base": "base", "finetune": "fine-tuned", "fresh": "fresh"}
WIDTH = 6.69  # inches: the text width of the report (A4 less 20 mm margins), so that points are as printed
DEFAULTS = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "device": "cpu", "per_digit": None,
            "recompute_frozen": False}

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
    single = len(results) == 1
    figure = Figure(figsize=(WIDTH / 2 if single else WIDTH, 2.6))
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (name, result) in zip(panels, results.items()):
        draw_losses(axes, result["curve"], COLOURS[name])
        title = wrap(f"{LABELS[name]}: {spell_settings(result['settings'])}", 50 if single else 35)
        title += [f"training accuracy {result['train_accuracy']:.2%}", f"test accuracy {result['test_accuracy']:.2%}"]
        axes.set_title("\n".join(title))
        axes.legend()
    panels[0].set_ylabel("cross-entropy (nats)")
    panels[0].set_ylim(bottom=0)
    return figure


def comparison_figure(finetune: dict, fresh: dict, differences: list[str]) -> Figure:
    """Validation loss of the fine-tuned and the fresh model, over epochs and over seconds of training.

    `differences` of the two apart from transfer are written on the figure.
    """
    lines = [f"fine-tuned: {spell_settings(finetune['settings'])}", f"fresh: {spell_settings(fresh['settings'])}",
             *(f"difference: {phrase}" for phrase in differences)]
    title = [part for line in lines for part in wrap(line, 105)]
    figure = Figure(figsize=(WIDTH, 2.2 + 0.13 * len(title)))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "epoch"), (right, "seconds")):
        for name, result in (("finetune", finetune), ("fresh", fresh)):
            draw_curve(axes, result["curve"], key, "validation_loss", "s-", color=COLOURS[name], label=LABELS[name])
    left.set_ylim(bottom=0)
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.set_ylabel("validation loss (nats)")
    left.legend()
    right.set_xlim(left=0)
    right.set_xlabel("training time (seconds, features included)")
    figure.suptitle("\n".join(title), fontsize=8, x=0.01, ha="left")
    return figure


def draw_losses(axes: Axes, curve: list[dict], colour: str = COLOURS["base"]) -> None:
    """One model's training and validation loss over epochs."""
    draw_curve(axes, curve, "epoch", "train_loss", "o-", color=colour, label="training")
    draw_curve(axes, curve, "epoch", "validation_loss", "s--", color=colour, label="validation")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def draw_curve(axes: Axes, curve: list[dict], x: str, y: str, line: str, **style) -> None:
    """One column over another, from the second row on: before the first step the loss is 2.3 and hides all others."""
    axes.plot([row[x] for row in curve[1:]], [row[y] for row in curve[1:]], line, clip_on=False, **style)


def wrap(text: str, width: int) -> list[str]:
    """Lines of about `width` characters, broken after commas."""
    return textwrap.wrap(text.replace(" ", "\u00a0").replace(",\u00a0", ", "), width)


def spell_settings(settings: dict) -> str:
    """Digits, seed, epochs and cut of a training, and every other setting that is not the default."""
    shown = {name: value for name, value in settings.items()
             if name != "checkpoint" and (name not in DEFAULTS or DEFAULTS[name] != value)}
    shown["digits"] = spell_digits(settings["digits"])
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def spell_digits(digits: tuple[int, ...]) -> str:
    """(7, 8, 9) -> '7-9', (1, 4, 5, 9) -> '1, 4, 5, 9'."""
    run = len(digits) > 2 and digits[-1] - digits[0] == len(digits) - 1
    return f"{digits[0]}-{digits[-1]}" if run else ", ".join(map(str, digits))
