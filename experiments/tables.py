"""Rows of the tables in README.md, report.md and experiments/README.md, in Markdown, from results/*.json."""

from plotting import LABELS

DIGITS = {"base": "0-6", "finetune": "7-9", "fresh": "7-9"}
PARTS = {"backward_of_frozen": "conv1's backward pass", "input_gradient": "conv2's gradient for its input",
         "forward_of_frozen": "conv1's forward pass in the steps", "features": "conv1 run once", "total": "together"}


def percent(value: float, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f} %"


def points(value: float, digits: int) -> str:
    """A difference of accuracies in percentage points."""
    return f"{100 * value:+.{digits}f}".replace("-", "\u2212")


def gain(row: dict, digits: int = 1) -> str:
    """A difference of accuracies with its interval, in percentage points."""
    return f"{points(row['mean'], digits)} ({points(row['low'], digits)} to {points(row['high'], digits)})"


def ratio(row: dict, digits: int = 2) -> str:
    """A median with its range."""
    numbers = [f"{row[name]:.{digits}f}".replace("-", "\u2212") for name in ("median", "lowest", "highest")]
    return "{} ({} to {})".format(*numbers)


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def error(accuracy: dict, digits: int = 2) -> str:
    """A test error in percent."""
    return f"{100 * (1 - accuracy['mean']):.{digits}f}"


def comparison(part: dict, digits: int) -> list[str]:
    """Test error of the fine-tuned and of the fresh model in percent, and the gain in points."""
    return [error(part["finetune"], digits), error(part["fresh"], digits), gain(part["gain"], digits)]


def of_models(summary: dict) -> dict[str, str]:
    """Accuracies of the three models, by model."""
    return {model: row(LABELS[model], DIGITS[model], percent(summary["models"][model]["train_accuracy"]["mean"], 3),
                       percent(summary["models"][model]["mean"])) for model in ("base", "finetune", "fresh")}


def of_summary(summary: dict) -> list[str]:
    """The three models; both models over labels, and tuned; over epochs; and over learning rates."""
    rows = list(of_models(summary).values())
    rows.append(row("all", *comparison(summary["models"], 2), "", "", ""))
    labels = {(each["per_digit"], each["shifted"]): each for each in summary["labels"]}
    for count, digits in ((1000, 2), (100, 2), (10, 1), (5, 1)):
        shifted = comparison(labels[count, True], digits) if (count, True) in labels else ["", "", ""]
        rows.append(row(str(count), *comparison(labels[count, False], digits), *shifted))
    rows.append(row("10, each tuned", "", "", "", *comparison(summary["tuned"]["best"], 1)))
    for each in summary["epochs"]:
        rows.append(row(str(each["epochs"]), *comparison(each, 2), gain(each["default_finetune_minus_fresh"], 2)))
    for each in summary["rates"]:
        rows.append(row(f"{each['rate']:g}", *(percent(each[model]["mean"]) for model in DIGITS)))
    return rows


def of_benchmark(results: dict) -> list[str]:
    """The training times of all ways; and what fine-tuning saves of the fresh model's time, part by part."""
    rows = [row(way, f"{time['seconds']['median']:.1f} s", ratio(time["to_fresh"]))
            for way, time in results["times"].items()]
    for part, name in PARTS.items():
        saved = results["saved"][part]
        if part == "features":  # a cost
            saved = {"median": -saved["median"], "lowest": -saved["highest"], "highest": -saved["lowest"]}
        rows.append(row(name, ratio(saved)))
    return rows
