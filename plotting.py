"""The figures of the scripts: loss curves and the comparison.

Each function takes results as they stand in results/*.json and returns a matplotlib Figure; `to_png` draws it. The
style is set in these functions alone, not in the process.
"""

import io

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = {"base": "#0072B2", "finetune": "#D55E00", "fresh": "#009E73"}  # Okabe & Ito: colour-blind safe
LABELS = {"base": "base", "finetune": "fine-tuned", "fresh": "fresh"}
WIDTH = 6.69  # inches: the text width of the report (A4 less 20 mm margins), so that points are as printed
HALF = 0.49 * WIDTH

style = matplotlib.rc_context({
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "lines.linewidth": 1.6, "savefig.dpi": 200, "figure.constrained_layout.use": True,
})


@style
def to_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


@style
def loss_figure(results: dict) -> Figure:
    """Training and validation loss of one model over epochs, with its training and test accuracy."""
    figure = Figure(figsize=(HALF, 2.6))
    axes = figure.subplots()
    _losses(axes, results)
    cut = f"\n{spell_cut(results)}" if results["experiment"] == "finetune" else ""
    axes.set_title(f"{LABELS[results['experiment']].capitalize()} model, {spell_run(results)}{cut}\n"
                   f"accuracy: training {results['train_accuracy']:.2%}, test {results['test_accuracy']:.2%}",
                   loc="left", fontsize=8)
    axes.set_ylabel("loss (cross-entropy, nats)")
    return figure


@style
def loss_curves_figure(results: dict[str, dict]) -> Figure:
    """Training and validation loss of all three models, a panel each, on common axes."""
    figure = Figure(figsize=(WIDTH, 1.5))
    for axes, (name, result) in zip(figure.subplots(1, len(results), sharey=True), results.items()):
        _losses(axes, result)
        axes.set_title(f"{LABELS[name]}, {spell_digits(result['digits'])}, seed {result['seed']}", loc="left")
    figure.axes[0].set_ylabel("loss (nats)")
    return figure


@style
def comparison_figure(finetune: dict, fresh: dict, not_alike: list[str]) -> Figure:
    """Validation loss of the fine-tuned and the fresh model, over epochs and over seconds of training.

    `not_alike`: what differs between the two apart from the model, written on the figure.
    """
    figure = Figure(figsize=(WIDTH, 2.5 + 0.15 * len(not_alike)))
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, key in ((left, "epoch"), (right, "seconds")):
        for results in (finetune, fresh):
            name = results["experiment"]
            axes.plot([row[key] for row in results["curve"]], [row["validation_loss"] for row in results["curve"]],
                      color=COLOURS[name], marker="o", markersize=3, label=LABELS[name])
        _log_scale(axes)
        _label_ends(axes)
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("validation loss (nats)")
    right.set_xlabel("training time (seconds)")
    title = [f"Fine-tuned: {spell_run(finetune)}, {spell_cut(finetune)}", f"Fresh: {spell_run(fresh)}"]
    figure.suptitle("\n".join([*title, *(f"not alike: {phrase}" for phrase in not_alike)]), fontsize=8)
    return figure


def spell_run(results: dict) -> str:
    """The settings that a figure of one run names."""
    epochs = results["hyperparameters"]["epochs"]
    return (f"digits {spell_digits(results['digits'])}, seed {results['seed']}, "
            f"{epochs} epoch{'s' if epochs > 1 else ''}")


def spell_cut(finetune: dict) -> str:
    """What the fine-tuned model's parts were."""
    model, recomputed = finetune["model"], finetune["hyperparameters"]["recompute_frozen"]
    return (f"blocks frozen: {model['frozen']}{' (run in each step)' if recomputed else ''}, "
            f"reinitialised: {model['reinit']}")


def spell_digits(digits: tuple[int, ...]) -> str:
    """(7, 8, 9) -> '7-9', (1, 4, 5, 9) -> '1, 4, 5, 9'."""
    run = len(digits) > 2 and digits[-1] - digits[0] == len(digits) - 1
    return f"{digits[0]}-{digits[-1]}" if run else ", ".join(map(str, digits))


def _losses(axes, results: dict) -> None:
    curve, colour = results["curve"], COLOURS[results["experiment"]]
    epochs = [row["epoch"] for row in curve]
    for label, key, line in (("training", "train_loss", "-"), ("validation", "validation_loss", "--")):
        axes.plot(epochs, [row[key] for row in curve], line, color=colour, marker="o", markersize=3, label=label)
    _log_scale(axes)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _label_ends(axes)


def _log_scale(axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")  # not powers of ten: their exponents would print too small


def _label_ends(axes) -> None:
    """Write each of two lines' label at its end: above the upper one, below the lower one."""
    upper, lower = sorted(axes.lines, key=lambda line: -line.get_ydata()[-1])
    for line, offset, side in ((upper, 4, "bottom"), (lower, -4, "top")):
        axes.annotate(line.get_label(), (line.get_xdata()[-1], line.get_ydata()[-1]), (0, offset), ha="right", va=side,
                      textcoords="offset points", color=line.get_color(), fontsize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(low / 2.5, high)  # on a log axis: room for the lower label
