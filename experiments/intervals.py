"""Means with their 95 % intervals, and how they are written: `+3.6 (+3.0 to +4.3)`."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def write(self, decimals: int, scale: float = 1, sign: str = "") -> str:
        """`sign` is "+" for a difference; what has no sign by nature is written without one."""
        mean, low, high = (f"{scale * value:{sign}.{decimals}f}".replace("-", "\u2212") for value in self)
        return f"{mean} ({low} to {high})"

    def write_points(self, decimals: int) -> str:
        """A difference of accuracies, in percentage points."""
        return self.write(decimals, 100, "+")


def interval(values: np.ndarray) -> Estimate:
    """The mean of float [seeds, images], seeds and test images both being samples, crossed.

    Two-way random effects with one value a cell (Cornfield & Tukey 1956): what varies with the seed and what varies
    with the image are added; both contain the residual, so it is subtracted once. Student's t has
    Satterthwaite's (1946) degrees of freedom for that sum of mean squares.
    """
    seeds, images = values.shape
    mean, by_seed, by_image = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    squares = np.array([images * by_seed.var(ddof=1), seeds * by_image.var(ddof=1),
                        ((values - by_seed - by_image + mean) ** 2).sum() / ((seeds - 1) * (images - 1))])
    freedoms = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    total = max(squares[0] + squares[1] - squares[2], squares[2])
    if total == 0:  # every value is the same
        return Estimate(mean, mean, mean)
    margin = stats.t.ppf(0.975, total**2 / (squares**2 / freedoms).sum()) * math.sqrt(total / values.size)
    return Estimate(mean, mean - margin, mean + margin)


def student(values: np.ndarray) -> Estimate:
    """The mean of float [n], with Student's interval: these are the only sample."""
    margin = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return Estimate(values.mean(), values.mean() - margin, values.mean() + margin)


def table(head: tuple, rows: list[tuple]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(map(str, cells))} |" for cells in (head, ["---"] * len(head), *rows)]
