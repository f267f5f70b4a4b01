"""Every figure, one style: direct labels, one colour per model, fonts that survive printing at half a page.

Each function takes results as they stand in results/*.json and returns a matplotlib Figure. No pyplot: it wants a
display to choose from and is slow to import.
"""

import math

import matplotlib
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from data import Task, spell_digits

COLOURS = {"base": "#0072B2", "finetune": "#D55E00", "fresh": "#009E73"}  # Okabe & Ito: safe for colour-blind eyes
LABELS = {"base": "base", "finetune": "fine-tuned", "fresh": "fresh"}
WIDTH = 6.69  # inches: the text width of the report (A4 less 20 mm margins), so that points are as printed
HALF = 0.49 * WIDTH

matplotlib.rcParams.update({
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "axes.axisbelow": True, "lines.linewidth": 1.6, "savefig.dpi": 200, "figure.constrained_layout.use": True,
})


def loss_figure(results: dict) -> Figure:
    """Training and validation loss of one model over epochs, with its training and test accuracy."""
    figure = Figure(figsize=(HALF, 2.6))
    axes = figure.subplots()
    _losses(axes, results)
    axes.set_title(f"{LABELS[results['experiment']].capitalize()} model, {_data(results)}\naccuracy: "
                   f"training {results['train_accuracy']:.2%}, test {results['test_accuracy']:.2%}", loc="left")
    axes.set_ylabel("loss (cross-entropy, nats)")
    return figure


def comparison_figure(finetune: dict, fresh: dict) -> Figure:
    """Validation loss of the fine-tuned and the fresh model, over epochs and over seconds of training."""
    figure = Figure(figsize=(WIDTH, 2.4))
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
    axes.set_ylim(low / 1.6, high)  # on a log axis: room for the lower label


def _name(name: str, verified: bool) -> str:
    """What stands on every title, so that no stand-in can pass for MNIST."""
    return name + ("" if verified else " (not MNIST)")


def _data(results: dict) -> str:
    return f"{_name(results['dataset']['name'], results['dataset']['verified'])} digits {spell_digits(results['digits'])}"


def seeds_figure(study: dict) -> Figure:
    """Test accuracy of the fine-tuned and the fresh model for each seed, lines joining those of one seed."""
    figure = Figure(figsize=(HALF, 2.15))
    axes = figure.subplots()
    outcomes = [run["outcome"] for run in study["runs"] if run["part"] == "seeds"]
    for outcome in outcomes:
        axes.plot((0, 1), [100 * outcome[name]["test_accuracy"] for name in ("fresh", "finetune")], color="0.75",
                  linewidth=0.8)
    for place, name in enumerate(("fresh", "finetune")):
        axes.plot([place] * len(outcomes), [100 * outcome[name]["test_accuracy"] for outcome in outcomes], "o",
                  color=COLOURS[name], markersize=4, alpha=0.7)
        summary = study["summary"]["seeds"][name]["test_accuracy"]
        axes.errorbar([place + (0.15 if place else -0.15)], [100 * summary["mean"]],
                      [[100 * (summary["mean"] - summary["low"])], [100 * (summary["high"] - summary["mean"])]],
                      fmt="D", color=COLOURS[name], markersize=5, capsize=3)
    axes.set_xticks((0, 1), ("fresh", "fine-tuned"))
    axes.set_xlim(-0.4, 1.4)
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{_study_name(study)}, {len(outcomes)} seeds\n(diamonds: mean, 95 % interval)", loc="left")
    return figure


def few_labels_figure(study: dict) -> Figure:
    """Test error over the number of labels per digit, with 95 % confidence bands over seeds."""
    figure = Figure(figsize=(HALF, 2.15))
    axes = figure.subplots()
    rows = study["summary"]["labels"]
    counts = [row["per_digit"] or 6000 for row in rows]
    styles = {"fresh": ("fresh", COLOURS["fresh"], "-"), "untrained": ("fine-tuned, base untrained", "0.4", ":"),
              "finetune": ("fine-tuned", COLOURS["finetune"], "-")}
    for place, (name, (label, colour, line)) in enumerate(styles.items()):
        error, low, high = ([100 * (1 - row[name][key]) for row in rows] for key in ("mean", "high", "low"))
        axes.plot(counts, error, line, color=colour, marker="o", markersize=3)
        axes.fill_between(counts, [max(value, 0.1) for value in low], high, color=colour, alpha=0.2, linewidth=0)
        axes.text(0.97, 0.97 - 0.11 * place, label, transform=axes.transAxes, color=colour, ha="right", va="top",
                  fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(counts, [str(row["per_digit"] or "all") for row in rows])
    axes.set_yticks((0.3, 1, 3, 10), ("0.3", "1", "3", "10"))
    axes.minorticks_off()
    axes.set_xlabel("labelled images per digit of 7-9")
    axes.set_ylabel("test error (%)")
    axes.set_title(f"{_study_name(study)}, {rows[0]['fresh']['n']} seeds\n(bands: 95 % intervals of the mean)",
                   loc="left")
    return figure


def cuts_figure(study: dict) -> Figure:
    """Heat maps over (frozen, reinit): test accuracy with all and with few labels, and time with all."""
    figure = Figure(figsize=(WIDTH, 2.0))
    rows = study["summary"]["cuts"]
    few = next(row["per_digit"] for row in rows if row["per_digit"])
    panels = (("test accuracy (%)\nall labels", None, "mean", 100, "{:.2f}", "viridis"),
              (f"test accuracy (%)\n{few} labels per digit", few, "mean", 100, "{:.1f}", "viridis"),
              ("training seconds, 1 thread\nall labels", None, "seconds", 1, "{:.1f}", "cividis_r"))
    for axes, (title, count, key, scale, form, colours) in zip(figure.subplots(1, 3), panels):
        cells = [row for row in rows if row["per_digit"] == count]
        size = max(row["reinit"] for row in cells) + 1
        grid = [[math.nan] * size for _ in range(size - 1)]
        for row in cells:
            grid[row["frozen"]][row["reinit"]] = scale * row[key]
        image = axes.imshow(grid, cmap=colours, aspect="auto", origin="lower")
        for row in cells:
            value = scale * row[key]
            red, green, blue, _ = image.cmap(image.norm(value))
            axes.text(row["reinit"], row["frozen"], form.format(value), ha="center", va="center", fontsize=7.5,
                      color="white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "black")
        axes.grid(False)
        axes.set_xticks(range(size))
        axes.set_yticks(range(size - 1))
        axes.set_title(title, fontsize=8)
        axes.set_xlabel("blocks initialised anew")
    figure.axes[0].set_ylabel("blocks frozen")
    figure.suptitle(f"Where to cut: {_study_name(study)}", fontsize=9)
    return figure


def _study_name(study: dict) -> str:
    return _data(study | {"digits": (7, 8, 9)})


def loss_curves_figure(results: dict[str, dict]) -> Figure:
    """Training and validation loss of all three models, a panel each, on common axes."""
    figure = Figure(figsize=(WIDTH, 1.9))
    for axes, (name, result) in zip(figure.subplots(1, len(results), sharey=True), results.items()):
        _losses(axes, result)
        axes.set_title(f"{LABELS[name]}, {spell_digits(result['digits'])}", loc="left")
    figure.axes[0].set_ylabel("loss (nats)")
    if not results["fresh"]["dataset"]["verified"] or not results["finetune"]["dataset"]["verified"]:
        figure.suptitle(f"{results['finetune']['dataset']['name']} (not MNIST)", fontsize=9)
    return figure


def errors_figure(task: Task, predictions: dict[str, torch.Tensor]) -> Figure:
    """Every test image that the fine-tuned or the fresh model gets wrong: those of both first, then each one's own.

    `predictions`: int64 [N] for "finetune" and "fresh".
    """
    wrong = {name: predicted != task.test.labels for name, predicted in predictions.items()}
    groups = (("both models", wrong["finetune"] & wrong["fresh"], "finetune"),
              ("fine-tuned only", wrong["finetune"] & ~wrong["fresh"], "finetune"),
              ("fresh only", wrong["fresh"] & ~wrong["finetune"], "fresh"))
    columns = 10
    rows = [(label, images, name) for label, where, name in groups
            for images in where.nonzero().squeeze(1).split(columns) if len(images)] or [("none", torch.tensor([]), "fresh")]
    figure = Figure(figsize=(WIDTH, 0.85 * len(rows) + 0.35))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    last = None
    for line, (label, images, name) in zip(grid, rows):
        for axes in line:
            axes.axis("off")
        for axes, image in zip(line, images):
            axes.imshow(-task.test.images[image, 0].numpy(), cmap="gray")
            seen = [int(predictions[model][image]) for model in ("finetune", "fresh") if wrong[model][image]]
            axes.set_title(f"{int(task.test.labels[image])} as " + "/".join(map(str, dict.fromkeys(seen))), fontsize=8, pad=2)
        if label != last:
            line[0].text(-0.35, 0.5, label, transform=line[0].transAxes, rotation=90, ha="right", va="center", fontsize=8,
                         color="black" if label == "both models" else COLOURS[name])
        last = label
    figure.suptitle(f"Wrong on the test set: {_name(task.name, task.verified)} digits {spell_digits(task.digits)} "
                    "(true digit as predicted digit)", fontsize=9)
    return figure


def filters_figure(kernels: dict[str, torch.Tensor], results: dict) -> Figure:
    """First-layer kernels of the three models, a row each. `kernels`: float32 [16, 5, 5] by experiment."""
    number = len(kernels["base"])
    figure = Figure(figsize=(WIDTH, 1.75))
    limit = max(float(weights.abs().max()) for weights in kernels.values())
    for line, (name, weights) in zip(figure.subplots(len(kernels), number), kernels.items()):
        for axes, kernel in zip(line, weights):
            axes.imshow(kernel.numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.axis("off")
        line[0].text(-0.3, 0.5, LABELS[name], transform=line[0].transAxes, ha="right", va="center", fontsize=9,
                     color=COLOURS[name])
    same = torch.equal(kernels["base"], kernels["finetune"])
    figure.suptitle(f"The {number} kernels of conv1, {_name(results['dataset']['name'], results['dataset']['verified'])}"
                    + ("; the fine-tuned model's are the base's, bit for bit" if same else ""), fontsize=9)
    return figure


OPERATIONS = {"convolution": "#56B4E9", "pooling": "#F0E442", "normalisation": "#E69F00", "ReLU": "#CC79A7",
              "all else": "0.8", "features, once": "0.6"}  # Okabe & Ito's other colours: none is a model's


def benchmark_figure(results: dict) -> Figure:
    """Training time, fresh and fine-tuned in both ways, by operations; with the times that FLOPs alone predict."""
    explanation, ways = results["explanation"], ("fresh", "recompute", "once")
    figure = Figure(figsize=(WIDTH, 2.35))
    axes = figure.subplots()
    whole = {}
    for place, way in enumerate(ways):
        seconds, end = dict.fromkeys(OPERATIONS, 0.0), 0.0
        for group, milliseconds in explanation["milliseconds_per_step"].items():
            seconds[group if group in seconds else "all else"] += milliseconds[way] * explanation["steps"] / 1000
        for group, width in seconds.items():
            axes.barh(place, width, 0.5, end, color=OPERATIONS[group], edgecolor="white", linewidth=0.5)
            if way == "fresh" and width:
                axes.annotate(group, (end + width / 2, place - 0.25), (-4, 1), textcoords="offset points", fontsize=8,
                              rotation=25, rotation_mode="anchor")
            end += width
        whole[way] = end
        ratio = explanation["ratio_to_fresh"][way]
        predicted = ratio["predicted"] * whole["fresh"]
        axes.plot(predicted, place, "D", color="black", markersize=5, markeredgecolor="white", clip_on=False)
        axes.annotate(f"{end:.2f} s" if way == "fresh" else
                      f"{end:.2f} s: {ratio['measured']:.2f} of fresh\n\u25c6 FLOPs predict {ratio['predicted']:.2f}",
                      (max(end, predicted), place), (7, 0), textcoords="offset points", va="center", fontsize=8)
    axes.annotate("features, computed once", (end - seconds["features, once"] / 2, place + 0.25), (0, -2), ha="center",
                  va="top", textcoords="offset points", fontsize=8)
    axes.set_yticks(range(3), ("fresh", "fine-tuned,\nfrozen block\nin every step", "fine-tuned,\nfeatures once"))
    for label, name in zip(axes.get_yticklabels(), ("fresh", "finetune", "finetune")):
        label.set_color(COLOURS[name])
    axes.set_ylim(2.75, -0.75)
    axes.set_xlim(0, 1.1 * max(whole.values()))
    axes.grid(False, axis="y")
    axes.set_xlabel("training time (seconds)")
    axes.set_title(f"{_data(results)}, {results['hyperparameters']['epochs']} epochs, "
                   f"{results['environment']['threads']} threads", loc="left", pad=13)
    return figure
