"""Which runs the study has. Nothing is trained here.

A run is one model trained once: a dictionary of the settings that tell it from every other. Ten seeds with all labels;
thirty with ten labels per digit, where results scatter more; every choice of three new digits in three settings.
"""

import json
import math
from itertools import combinations

import numpy as np
import torch

from finetune import FROZEN, REINIT
from model import build_model
from training import BATCH_SIZE, EPOCHS, LEARNING_RATE, STEPS

with torch.device("meta"):  # the network's shape alone: no weights are drawn
    BLOCKS = [name for name, _ in build_model().named_children()]
CUT = (FROZEN, REINIT)
FRESH_CUT = (0, len(BLOCKS))  # nothing frozen, all blocks reinitialised
CUTS = [(frozen, reinit) for frozen in range(len(BLOCKS)) for reinit in range(len(BLOCKS) + 1 - frozen)
        if (frozen, reinit) != FRESH_CUT]
EXERCISE = (7, 8, 9)  # the new digits of the exercise
# Every choice of three new digits, in descending order, so that the exercise's own is number 0. Number n is trained
# with the seed n: with one seed for all, the noise of that seed would be the same everywhere and would not average out.
CHOICES = [tuple(sorted(new)) for new in combinations(range(9, -1, -1), 3)]
CHOICES_AT = ((10, False), (10, True), (None, False))  # labels per digit, shifted
FEW = 10  # labels per digit where only one small number is tried
MORE_SEEDS = 3  # with FEW labels: so many times the seeds
LABEL_COUNTS = ((5, False), (FEW, False), (100, False), (1000, False), (5, True), (FEW, True), (100, True))
SHIFT = 2  # pixels: shifted images are moved by up to two in each direction
SHIFTS = (2 * SHIFT + 1) ** 2  # of each image
TUNING_GRID = [(shifted, steps, rate) for shifted in (False, True) for steps in (STEPS, 4 * STEPS)
               for rate in (0.001, 0.002, 0.004, LEARNING_RATE)]
RATES = (0.002, LEARNING_RATE, 0.032)  # with all labels
RATE_SEEDS = 3


def setting(model: str, seed: int, *, new: tuple[int, ...] = EXERCISE, per_digit: int | None = None,
            shifted: bool = False, cut: tuple[int, int] = CUT, rate: float = LEARNING_RATE, steps: int = STEPS) -> dict:
    """A run of `model`: base, fresh, finetune, or untrained (fine-tuned from a base that was never trained).

    `per_digit`: labels per new digit (None: all). With few labels a step takes as many images with shifts as without:
    all of them, or an equal share of at least BATCH_SIZE.
    """
    frozen, reinit = cut if model in ("finetune", "untrained") else FRESH_CUT
    epochs, batch_size = EPOCHS, BATCH_SIZE
    if per_digit is not None:
        images = per_digit * len(new)
        batch_size = images // max(1, images // BATCH_SIZE)
        epochs = math.ceil(steps / (images * (SHIFTS if shifted else 1) // batch_size))
    return {"model": model, "new": list(new), "seed": seed, "per_digit": per_digit, "shifted": shifted,
            "frozen": frozen, "reinit": reinit, "epochs": epochs, "batch_size": batch_size, "learning_rate": rate}


SETTINGS = tuple(setting("base", 0))
MACHINE = ("torch", "device", "cpu", "threads")  # where a run was made: that tells no run from another


def key(run: dict) -> str:
    return json.dumps([run[name] for name in SETTINGS])


def both(seed: int, **settings) -> list[dict]:
    """The fine-tuned and the fresh model at the same settings."""
    return [setting("finetune", seed, **settings), setting("fresh", seed, **settings)]


def plan(seeds: int, choices: int) -> list[dict]:
    """Every run, each once, of a study of so many seeds (three times as many at ten labels) and choices."""
    runs = []
    for seed in range(seeds):
        runs += both(seed)
        for count, shifted in LABEL_COUNTS:
            runs += both(seed, per_digit=count, shifted=shifted)
        runs += [setting("finetune", seed, cut=cut) for cut in CUTS]
    for seed in range(min(RATE_SEEDS, seeds)):
        for rate in RATES:
            runs += [setting("base", seed, rate=rate), *both(seed, rate=rate)]
    for seed in range(MORE_SEEDS * seeds):
        for shifted in (False, True):
            runs += both(seed, per_digit=FEW, shifted=shifted)
            runs.append(setting("untrained", seed, per_digit=FEW, shifted=shifted))  # the control
        for shifted, steps, rate in TUNING_GRID:
            runs += both(seed, per_digit=FEW, shifted=shifted, steps=steps, rate=rate)
        runs += [setting("finetune", seed, per_digit=FEW, cut=cut) for cut in CUTS]
    for new in spread(choices):
        for count, shifted in CHOICES_AT:
            runs += both(CHOICES.index(new), new=new, per_digit=count, shifted=shifted)
    bases = [setting("base", run["seed"], new=tuple(run["new"])) for run in runs]  # what they start from
    runs += bases
    return list({key(run): run for run in runs}.values())


def spread(choices: int) -> list[tuple[int, ...]]:
    """`choices` of the 120 choices of three new digits, evenly spread, the exercise's own first."""
    return [CHOICES[int(number)] for number in np.linspace(0, len(CHOICES) - 1, min(choices, len(CHOICES))).round()]
