"""Which runs the study has. Nothing is trained here.

A run is one model trained once: a dictionary of the settings that tell it from every other. Ten seeds with all labels;
thirty with ten labels per digit, where results scatter more; ten others for tuning there; every choice of three new
digits in three settings.
"""

import hashlib
import json
import math
from itertools import combinations

import numpy as np
import torch

from finetune import FROZEN, REINIT
from model import build_model
from training import BATCH_SIZE, EPOCHS, LEARNING_RATE, STEPS

with torch.device("meta"):  # the network's shape alone: no weights are drawn
    _model = build_model()
BLOCKS = [name for name, _ in _model.named_children()]
NETWORK = hashlib.sha256(str(_model).encode()).hexdigest()[:8]  # runs of another network are other runs
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
# With FEW labels, shifted, each model is tuned on seeds of its own; its best settings are then measured on the others.
TUNING_GRID = [{"per_digit": FEW, "shifted": True, "steps": steps, "rate": rate}
               for steps in (STEPS, 4 * STEPS, 16 * STEPS) for rate in (0.002, 0.004, LEARNING_RATE, 0.016, 0.032)]
TUNING_SEEDS = range(30, 40)
EPOCH_COUNTS = (1, 2, 3, EPOCHS)  # with all labels
CONTROL_CUTS = (CUT, (0, REINIT))
RATES = (0.002, LEARNING_RATE, 0.032)  # with all labels
RATE_SEEDS = 3


def setting(model: str, seed: int, *, new: tuple[int, ...] = EXERCISE, per_digit: int | None = None,
            shifted: bool = False, cut: tuple[int, int] = CUT, rate: float = LEARNING_RATE, epochs: int = EPOCHS,
            steps: int = STEPS) -> dict:
    """A run of `model`: base, fresh, finetune, or untrained (fine-tuned from the base before its training).

    `per_digit`: labels per new digit (None: all); `epochs` counts with all labels, `steps` with few. With few a step
    takes as many images with shifts as without: all of them, or an equal share of at least BATCH_SIZE.
    """
    frozen, reinit = cut if model in ("finetune", "untrained") else FRESH_CUT
    batch_size = BATCH_SIZE
    if per_digit is not None:
        images = per_digit * len(new)
        batch_size = images // max(1, images // BATCH_SIZE)
        epochs = math.ceil(steps / (images * (SHIFTS if shifted else 1) // batch_size))
    return {"model": model, "new": list(new), "seed": seed, "per_digit": per_digit, "shifted": shifted,
            "frozen": frozen, "reinit": reinit, "epochs": epochs, "batch_size": batch_size, "learning_rate": rate,
            "network": NETWORK}


SETTINGS = tuple(setting("base", 0))
MACHINE = ("torch", "device", "cpu", "threads")  # where a run was made: that tells no run from another


def key(run: dict) -> str:
    return json.dumps([run[name] for name in SETTINGS])


def both(seed: int, **settings) -> list[dict]:
    """The fine-tuned and the fresh model at the same settings."""
    return [setting("finetune", seed, **settings), setting("fresh", seed, **settings)]


def best_settings(outcomes: dict[str, dict]) -> dict[str, dict]:
    """For each model, those of TUNING_GRID with the highest mean validation accuracy.

    `outcomes` of finished runs, by key; the mean is over the tuning seeds whose whole grid is among them.
    """
    seeds = [seed for seed in TUNING_SEEDS if all(key(run) in outcomes for run in tuning_runs(seed))]
    best = {}
    for model in ("finetune", "fresh"):
        sums = [sum(outcomes[key(setting(model, seed, **settings))]["validation_accuracy"] for seed in seeds)
                for settings in TUNING_GRID]
        best[model] = TUNING_GRID[sums.index(max(sums))]
    return best


def tuning_runs(seed: int) -> list[dict]:
    return [run for settings in TUNING_GRID for run in both(seed, **settings)]


def tuned_seeds(seeds: int) -> range:
    """The seeds on which the best settings are measured, in a study of so many: none of them is a tuning seed."""
    return range(min(MORE_SEEDS * seeds, TUNING_SEEDS.start))


def plan(seeds: int, choices: int, outcomes: dict[str, dict]) -> list[dict]:
    """Every run, each once, of a study of so many seeds (three times as many at ten labels) and choices.

    The runs at the best settings, and at a quarter of their steps, are there once the tuning runs have `outcomes`.
    """
    runs = []
    for seed in range(seeds):
        for epochs in EPOCH_COUNTS:
            runs += both(seed, epochs=epochs)
        for count, shifted in LABEL_COUNTS:
            runs += both(seed, per_digit=count, shifted=shifted)
        runs += [setting("finetune", seed, cut=cut) for cut in CUTS]
    for seed in range(min(RATE_SEEDS, seeds)):
        for rate in RATES:
            runs += [setting("base", seed, rate=rate), *both(seed, rate=rate)]
    for seed in range(MORE_SEEDS * seeds):
        for shifted in (False, True):
            runs += both(seed, per_digit=FEW, shifted=shifted)
            for cut in CONTROL_CUTS:
                runs += [setting(model, seed, per_digit=FEW, shifted=shifted, cut=cut)
                         for model in ("untrained", "finetune")]
        runs += [setting("finetune", seed, per_digit=FEW, cut=cut) for cut in CUTS]
    tuning = [run for seed in TUNING_SEEDS[:seeds] for run in tuning_runs(seed)]
    runs += tuning
    if all(key(run) in outcomes for run in tuning):
        for model, settings in best_settings(outcomes).items():
            for steps in (settings["steps"], settings["steps"] // 4):
                runs += [setting(model, seed, **settings | {"steps": steps}) for seed in tuned_seeds(seeds)]
    for new in spread(choices):
        for count, shifted in CHOICES_AT:
            runs += both(CHOICES.index(new), new=new, per_digit=count, shifted=shifted)
    bases = [setting("base", run["seed"], new=tuple(run["new"])) for run in runs]  # what they start from
    runs += bases
    return list({key(run): run for run in runs}.values())


def spread(choices: int) -> list[tuple[int, ...]]:
    """`choices` of the 120 choices of three new digits, evenly spread, the exercise's own first."""
    return [CHOICES[int(number)] for number in np.linspace(0, len(CHOICES) - 1, min(choices, len(CHOICES))).round()]
