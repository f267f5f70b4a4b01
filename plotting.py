"""The figures of the scripts: loss curves and the comparison; and the one style of all figures.

Each function takes results as they stand in results/*.json and returns a matplotlib Figure; `to_png` draws it.
"""

import io
import textwrap

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from training import BATCH_SIZE, LEARNING_RATE

COLOURS = {"base": "#0072B2", "finetune": "#D55E00", "fresh": "#009E73"}  # Okabe & Ito: colour-blind safe
LABELS = {"base": "base", "finetune": "fine-tuned", "fresh": "fresh"}
WIDTH = 6.69  # inches: the text width of the report (A4 less 20 mm margins), so that points are as printed
DEFAULTS = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "device": "cpu", "recompute_frozen": False}

# Matplotlib's default and our few settings: nothing of the reader's own matplotlibrc, and nothing set in the process.
style = matplotlib.style.context(["default", {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.frameon": False, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "lines.linewidth": 1.4, "lines.markersize": 3, "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}])


@style
def to_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


@style
def loss_figure(results: dict[str, dict]) -> Figure:
    """Training and validation loss over epochs, a panel for each of one or more models (by experiment)."""
    single = len(results) == 1
    figure = Figure(figsize=(WIDTH / 2 if single else WIDTH, 2.4))
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (name, result) in zip(panels, results.items()):
        draw_losses(axes, result["curve"], COLOURS[name])
        axes.set_title(textwrap.fill(f"{LABELS[name]}: {spell_settings(result['settings'])}", 42 if single else 31)
                       + f"\ntraining accuracy {result['train_accuracy']:.2%}"
                       + f"\ntest accuracy {result['test_accuracy']:.2%}")
    panels[0].set_ylabel("cross-entropy (nats)")
    label_ends(figure)
    return figure


@style
def comparison_figure(finetune: dict, fresh: dict, not_alike: list[str]) -> Figure:
    """Validation loss of the fine-tuned and the fresh model, over epochs and over seconds of training.

    `not_alike`: what differs between the two apart from the model, written on the figure.
    """
    lines = [f"fine-tuned: {spell_settings(finetune['settings'])}", f"fresh: {spell_settings(fresh['settings'])}",
             *(f"not alike: {phrase}" for phrase in not_alike)]
    title = [part for line in lines for part in textwrap.wrap(line, 105)]
    figure = Figure(figsize=(WIDTH, 2.2 + 0.13 * len(title)))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "epoch"), (right, "seconds")):
        for name, result in (("finetune", finetune), ("fresh", fresh)):
            axes.plot([row[key] for row in result["curve"]], [row["validation_loss"] for row in result["curve"]], "o-",
                      color=COLOURS[name], label=LABELS[name])
        log_scale(axes)
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("validation loss (nats)")
    right.set_xlabel("training time (seconds, features included)")
    figure.suptitle("\n".join(title), fontsize=8, x=0.01, ha="left")
    label_ends(figure, [left])
    return figure


def draw_losses(axes, curve: list[dict], colour: str = COLOURS["base"]) -> None:
    """One model's training and validation loss over epochs."""
    for label, key, line in (("training", "train_loss", "o-"), ("validation", "validation_loss", "o--")):
        axes.plot([row["epoch"] for row in curve], [row[key] for row in curve], line, color=colour, label=label)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    log_scale(axes)


def log_scale(axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=8))  # every power of ten, if these are not too many
    axes.yaxis.set_major_formatter("{x:g}")  # not powers of ten: their exponents would print too small


def label_ends(figure: Figure, panels=None) -> None:
    """Write the labels of each panel's two lines right of it, at the height of their ends: no line is there.

    To be called when all is drawn: only then are the heights known.
    """
    figure.draw_without_rendering()
    for axes in panels or figure.axes:
        lower, upper = sorted(axes.lines, key=lambda line: line.get_ydata()[-1])
        low, high = (axes.transData.transform((0, line.get_ydata()[-1]))[1] for line in (lower, upper))
        apart = max(0, 9 - (high - low) * 72 / figure.dpi) / 2  # points: the labels need 9 between them
        for line, move in ((lower, -apart), (upper, apart)):
            axes.annotate(line.get_label(), (1, line.get_ydata()[-1]), (3, move), color=line.get_color(), va="center",
                          xycoords=axes.get_yaxis_transform(), textcoords="offset points")


def spell_settings(settings: dict) -> str:
    """Digits, seed, epochs and cut of a training, and every other setting that is not the default."""
    told = {name: value for name, value in settings.items() if name not in DEFAULTS or DEFAULTS[name] != value}
    told["digits"] = spell_digits(settings["digits"])
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items())


def spell_digits(digits: tuple[int, ...]) -> str:
    """(7, 8, 9) -> '7-9', (1, 4, 5, 9) -> '1, 4, 5, 9'."""
    run = len(digits) > 2 and digits[-1] - digits[0] == len(digits) - 1
    return f"{digits[0]}-{digits[-1]}" if run else ", ".join(map(str, digits))
