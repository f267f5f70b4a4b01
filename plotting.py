"""Every figure, one style: direct labels, one colour per model, fonts that survive printing at half a page.

Each function takes results as they stand in results/*.json and returns a matplotlib Figure. No pyplot: it wants a
display to choose from and is slow to import.
"""

import math

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from data import spell_digits

COLOURS = {"base": "#0072B2", "finetune": "#D55E00", "fresh": "#009E73"}  # Okabe & Ito: safe for colour-blind eyes
LABELS = {"base": "base", "finetune": "fine-tuned", "fresh": "fresh"}
WIDTH = 6.3  # inches: the text width of the report, so that font sizes are as printed

matplotlib.rcParams.update({
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "lines.linewidth": 1.6, "savefig.dpi": 200, "figure.constrained_layout.use": True,
})


def loss_figure(results: dict) -> Figure:
    """Training and validation loss of one model over epochs, with its training and test accuracy."""
    figure = Figure(figsize=(WIDTH * 0.6, 2.7))
    axes = figure.subplots()
    _losses(axes, results)
    axes.set_title(f"{LABELS[results['experiment']].capitalize()} model, {_data(results)}\naccuracy: "
                   f"training {results['train_accuracy']:.2%}, test {results['test_accuracy']:.2%}", loc="left")
    axes.set_ylabel("loss (cross-entropy, nats)")
    return figure


def comparison_figure(finetune: dict, fresh: dict) -> Figure:
    """Validation loss of the fine-tuned and the fresh model, over epochs and over seconds of training."""
    figure = Figure(figsize=(WIDTH, 2.5))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "epoch"), (right, "seconds")):
        for results in (finetune, fresh):
            curve, name = results["curve"], results["experiment"]
            axes.plot([row[key] for row in curve], [row["validation_loss"] for row in curve], color=COLOURS[name],
                      marker="o", markersize=3, label=LABELS[name])
        axes.set_yscale("log")
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("validation loss (nats)")
    right.set_xlabel("training time (seconds)")
    right.legend(frameon=False)
    figure.suptitle(f"Fine-tuned against fresh, {_data(fresh)}" + (
        "" if finetune["dataset"]["name"] == fresh["dataset"]["name"] else f" ({finetune['dataset']['name']})"),
        fontsize=9)
    return figure


def _losses(axes, results: dict) -> None:
    curve, colour = results["curve"], COLOURS[results["experiment"]]
    epochs = [row["epoch"] for row in curve]
    for key, style in (("train_loss", "-"), ("validation_loss", "--")):
        axes.plot(epochs, [row[key] for row in curve], style, color=colour, marker="o", markersize=3,
                  label=key.replace("train_loss", "training").replace("_loss", ""))
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def _data(results: dict) -> str:
    """What stands on every title, so that no stand-in can pass for MNIST."""
    name = results["dataset"]["name"] + ("" if results["dataset"]["verified"] else " (not MNIST)")
    return f"{name} digits {spell_digits(results['digits'])}"
