"""What a run is, how it is trained, and how it is read back. A run is one model trained once.

A setting is a dictionary of all that tells one run from another but its seed; with the seed it is a run.
"""

import functools
import hashlib
import json
import math
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from torch import nn

from data import MEAN, STD, Split, Task, UserError, few_labels
from experiments.intervals import Estimate, interval
from finetune import FROZEN_BLOCKS, REINIT_BLOCKS, fine_tune
from model import FRESH_SEED, build_model
from training import BATCH_SIZE, EPOCHS, LEARNING_RATE, STEPS, count_batches, default_epochs, evaluate, fit, predict

SEEDS = range(30)  # of everything about 7-9
TUNING_SEEDS = range(30, 40)  # they choose settings, and measure nothing
FIRST_SEEDS = range(10)  # had been seen before the others were added, except at FEW labels
EXERCISE = (7, 8, 9)  # the new digits of the exercise
TEST_IMAGES = 3011  # of the digits 7-9
# Every choice of three new digits, in descending order, so that the exercise's own is number 0. Number n is trained
# with the seed n: with one seed for all, the noise of that seed would be the same everywhere and would not average out.
CHOICES = [tuple(sorted(new)) for new in combinations(range(9, -1, -1), 3)]
FEW = 10  # labels per digit where only one small number is tried
CUT = (FROZEN_BLOCKS, REINIT_BLOCKS)
SHIFT = 2  # pixels: shifted images are moved by up to two in each direction
SHIFTS = (2 * SHIFT + 1) ** 2  # of each image
SHUFFLE_SEED = 2_000_000  # added to the seed that permutes labels: it must not order the images as well
OF_OLD_DIGITS = ("base", "shuffled_base")
SETTING = ("model", "new", "per_digit", "shifted", "frozen", "reinit", "epochs", "batch_size", "learning_rate",
           "network")
MACHINE = ("torch", "device", "cpu", "threads")  # where a run was made: that tells no run from another

# Settings


@functools.cache
def block_names() -> list[str]:
    return [name for name, _ in build_model().named_children()]


@functools.cache
def network() -> str:
    """A short hash of the network: runs of another network are other runs."""
    return hashlib.sha256(str(build_model()).encode()).hexdigest()[:8]


def setting(model: str, *, new: tuple[int, ...] = EXERCISE, per_digit: int | None = None, shifted: bool = False,
            cut: tuple[int, int] = CUT, rate: float = LEARNING_RATE, epochs: int = EPOCHS, steps: int = STEPS) -> dict:
    """`model`: base, fresh, finetune; or for the control untrained (fine-tuned from the base before its training),
    shuffled_base (a base trained on permuted labels) and shuffled (fine-tuned from that).

    `per_digit`: labels per new digit (None: all). `epochs` counts with all labels; few are trained as the scripts do by
    default, and with shifts for `steps`. A step takes as many images with shifts as without: all of them, or an equal
    share of at least BATCH_SIZE.
    """
    frozen, reinit = cut if model in ("finetune", "untrained", "shuffled") else (0, len(block_names()))
    batch_size = BATCH_SIZE
    if per_digit is not None:
        images = per_digit * len(new)
        batch_size = images // count_batches(images, BATCH_SIZE)
        epochs = math.ceil(steps / (SHIFTS * images // batch_size)) if shifted else default_epochs(images)
    return {"model": model, "new": list(new), "per_digit": per_digit, "shifted": shifted, "frozen": frozen,
            "reinit": reinit, "epochs": epochs, "batch_size": batch_size, "learning_rate": rate, "network": network()}


def both(**settings) -> list[dict]:
    """The fine-tuned and the fresh model at the same settings."""
    return [setting("finetune", **settings), setting("fresh", **settings)]


def with_seeds(settings: Iterable[dict], seeds: Iterable[int]) -> list[dict]:
    """The runs of all `settings` with all `seeds`."""
    seeds = list(seeds)
    return [each | {"seed": seed} for each in settings for seed in seeds]


def key(settings: dict) -> str:
    """What tells a setting from every other: the same for a run, whatever its seed and outcome."""
    return json.dumps([settings[name] for name in SETTING])


# Training


def train_run(run: dict, task: Task, base: nn.Sequential | None) -> tuple[nn.Sequential, dict]:
    """Train the model of `run` on its few labels or on all; return it and the run with its outcome.

    `base` is what a fine-tuned model starts from.
    """
    if run["per_digit"] is not None:
        task = task._replace(train=few_labels(task.train, run["per_digit"], run["seed"]))
    if run["shifted"]:
        task = task._replace(train=shift_images(task.train))
    if run["model"] == "shuffled_base":
        task = task._replace(train=permute_labels(task.train, run["seed"]))
    options = {name: run[name] for name in ("epochs", "batch_size", "learning_rate", "seed")} | {"rows": 1}
    if run["model"] in ("fresh", *OF_OLD_DIGITS):
        model = build_model(run["seed"] + (FRESH_SEED if run["model"] == "fresh" else 0)).to(task.train.labels.device)
        curve = fit(model, task.train, task.validation, **options)
    else:
        if run["model"] == "untrained":
            base = build_model(run["seed"])  # the base before its training
        model, curve = fine_tune(base, task.train, task.validation, frozen=run["frozen"], reinit=run["reinit"],
                                 **options)
    outcome = {"train_accuracy": evaluate(model, task.train)[1],
               "validation_accuracy": curve[-1]["validation_accuracy"],
               "test_accuracy": evaluate(model, task.test)[1]}
    if tuple(run["new"]) == EXERCISE and run["model"] != "shuffled_base":  # nothing else is compared image by image
        wrong = predict(model, task.test.images) != task.test.labels
        outcome["wrong"] = wrong.nonzero().squeeze(1).tolist()
    return model, run | {"outcome": outcome}


def shift_images(split: Split) -> Split:
    """Every image in its 25 shifts by up to two pixels, background moving in: float32 [25 N, 1, 28, 28]."""
    padded = F.pad(split.images, (SHIFT, SHIFT, SHIFT, SHIFT), value=-MEAN / STD)
    height, width = split.images.shape[2:]
    places = range(2 * SHIFT + 1)
    images = torch.cat([padded[:, :, top : top + height, left : left + width] for top in places for left in places])
    return Split(images, split.labels.repeat(SHIFTS))


def permute_labels(split: Split, seed: int) -> Split:
    """The same images and the same labels, but no longer together."""
    generator = torch.Generator().manual_seed(SHUFFLE_SEED + seed)
    order = torch.randperm(len(split.labels), generator=generator).to(split.labels.device)
    return Split(split.images, split.labels[order])


# Reading


def read_runs(path: Path) -> list[dict]:
    """The finished runs in `path`. Skips other lines, such as one that was cut short, and prints how many."""
    runs, others = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            run = json.loads(line)
        except ValueError:
            run = None
        if isinstance(run, dict) and {*SETTING, "seed", "outcome", *MACHINE} <= run.keys():
            runs.append(run)
        else:
            others += 1
    if others:
        print(f"passed over {others} of the lines of {path}: no finished runs")
    return runs


class Comparison(NamedTuple):
    """Test accuracies of two models over the same seeds, and the first minus the second: all fractions."""

    first: Estimate
    second: Estimate
    gain: Estimate
    removed: Estimate  # the share of the second model's errors that the first does not make
    seeds: int

    def cells(self, decimals: int) -> tuple:
        """Both test errors in %, the gain in percentage points, the errors removed in %, and how many seeds."""
        errors = (f"{100 * (1 - accuracy.mean):.{decimals}f}" for accuracy in (self.first, self.second))
        return (*errors, self.gain.write_points(decimals), self.removed.write(0, 100), self.seeds)


HEAD = ("fine-tuned", "fresh", "gain", "errors removed (%)", "seeds")  # of a table of Comparison.cells


class Study:
    """The outcomes of finished runs, by setting and seed."""

    def __init__(self, runs: list[dict]):
        self.outcomes = {}
        for run in runs:
            self.outcomes.setdefault(key(run), {})[run["seed"]] = run["outcome"]

    def has(self, run: dict) -> bool:
        return run["seed"] in self.outcomes.get(key(run), {})

    def seeds(self, *settings: dict, among: Iterable[int] = SEEDS) -> list[int]:
        """The seeds that all `settings` have. Raises UserError where there are fewer than two."""
        seeds = [seed for seed in among if all(self.has(each | {"seed": seed}) for each in settings)]
        if len(seeds) < 2:
            raise UserError("the study is not far enough: start experiments.study again; it goes on where it was")
        return seeds

    def accuracy(self, split: str, settings: dict, seeds: list[int]) -> np.ndarray:
        """Each seed's accuracy on the train, validation or test images: float [seeds]."""
        return np.array([self.outcomes[key(settings)][seed][f"{split}_accuracy"] for seed in seeds])

    def correct(self, settings: dict, seeds: list[int]) -> np.ndarray:
        """1 where a seed's model is right on a test image of the new digits 7-9, else 0: float [seeds, images]."""
        correct = np.ones((len(seeds), TEST_IMAGES))
        for row, seed in zip(correct, seeds):
            row[self.outcomes[key(settings)][seed]["wrong"]] = 0
        return correct

    def compare(self, first: dict, second: dict, among: Iterable[int] = SEEDS) -> Comparison:
        """Two settings over the seeds that have both."""
        seeds = self.seeds(first, second, among=among)
        firsts, seconds = self.correct(first, seeds), self.correct(second, seeds)
        gain, error = firsts - seconds, 1 - seconds.mean()
        removed = gain.mean() / error
        around = removed + (gain - removed * (1 - seconds)) / error  # a ratio varies as this mean, to first order
        return Comparison(*map(interval, (firsts, seconds, gain, around)), len(seeds))


def plot_errors(axes: Axes, xs: list[float], accuracies: list[Estimate], line: str, **style) -> None:
    """Test errors in % over `xs`, with their intervals."""
    axes.errorbar(xs, [100 * (1 - accuracy.mean) for accuracy in accuracies],
                  [100 * (accuracy.high - accuracy.mean) for accuracy in accuracies], fmt=line, elinewidth=0.8, **style)
