"""How long training takes, and why: the three models, and fine-tuning with the frozen block run in each step.

    python -m experiments.benchmark             # a few minutes; nothing else should run meanwhile

The four trainings run in turns, round after round, a seed each: medians and ranges. Beside their times stand the
operations that PyTorch counts for them. Writes results/benchmark.json, plots/losses.png and plots/times.png.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import cli
from data import load_task
from experiments.figures import draw
from experiments.plan import setting
from experiments.study import train
from finetune import FROZEN
from model import Frozen, build_model
from results import environment, save, to_json
from training import BATCH_SIZE, EPOCHS, LEARNING_RATE

WAYS = ("base", "fresh", "recompute", "once")  # recompute: conv1 runs in each step, as is usual; once: features once


def count(step: Callable) -> int:
    """Floating-point operations of `step`, convolutions and matrix products alone, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def count_operations(images: dict[str, int], epochs: int) -> dict:
    """Operations of a whole training in each of `WAYS`; `images`: how many training images each has.

    `features`: what of `once` is the frozen block's one run. `frozen_weight_gradient`: what of the difference between
    fresh and recompute is that block's gradient for its weights, which takes as many as its forward pass. The rest is
    the next block's gradient for its input.
    """
    batch = torch.zeros(2, 1, 28, 28)  # two images: one alone could not be normalised
    model = build_model()
    initial, trained = Frozen(model[:FROZEN]), model[FROZEN:]
    features = initial(batch)
    forward = count(lambda: initial(batch))
    step = {"fresh": count(lambda: model(batch).sum().backward()),
            "recompute": count(lambda: trained(initial(batch)).sum().backward()),
            "once": count(lambda: trained(features).sum().backward())}
    step["base"] = step["fresh"]
    operations = {way: step[way] * images[way] * epochs // len(batch) for way in WAYS}
    operations["features"] = forward * images["once"] // len(batch)
    operations["once"] += operations["features"]
    return operations | {"frozen_weight_gradient": forward * images["fresh"] * epochs // len(batch)}


def median_and_range(values: np.ndarray) -> dict:
    """Median and range over the rounds."""
    return {"median": float(np.median(values)), "lowest": float(min(values)), "highest": float(max(values))}


def summarise_curve(curves: list[list[dict]]) -> list[dict]:
    """Mean and range over the rounds of each column, epoch by epoch."""
    rows = []
    for of_epoch in zip(*curves):
        row = {"epoch": of_epoch[0]["epoch"]}
        for name in ("seconds", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"):
            values = [each[name] for each in of_epoch]
            row[name] = {"mean": float(np.mean(values)), "lowest": min(values), "highest": max(values)}
        rows.append(row)
    return rows


def savings(cost: dict) -> dict:
    """What fine-tuning saves, in shares of the fresh model's cost; `cost`: seconds or operations of each way.

    `total`, by the parts: `backward`, by not training the frozen block; `forward`, by not running it in the steps; less
    `features`, for running it once.
    """
    steps = cost["once"] - cost["features"]
    saved = {"total": cost["fresh"] - cost["once"], "backward": cost["fresh"] - cost["recompute"],
             "forward": cost["recompute"] - steps, "features": cost["features"]}
    return {part: value / cost["fresh"] for part, value in saved.items()}


def summarise(curves: dict[str, list[list[dict]]], operations: dict[str, int]) -> dict:
    """The times of the four ways, their ratios to fresh, and what is saved.

    Ratios and savings are those within a round: the machine is about as fast for all four then.
    """
    seconds = {way: np.array([curve[-1]["seconds"] for curve in curves[way]]) for way in WAYS}
    seconds["features"] = np.array([curve[0]["seconds"] for curve in curves["once"]])
    measured, predicted = savings(seconds), savings(operations)
    saved = {part: {"of_fresh": median_and_range(measured[part]), "predicted_of_fresh": predicted[part]}
             for part in measured}
    saved["backward"]["predicted_for_frozen_weights"] = operations["frozen_weight_gradient"] / operations["fresh"]
    ways = {way: {"seconds": median_and_range(seconds[way]), "curve": summarise_curve(curves[way]),
                  "to_fresh": median_and_range(seconds[way] / seconds["fresh"]),
                  "predicted_to_fresh": operations[way] / operations["fresh"]} for way in WAYS}
    return {"seconds": {name: list(values) for name, values in seconds.items()}, "operations": operations, "ways": ways,
            "saved": saved}


def main():
    flags = cli.mnist_parser(__doc__)
    flags.add_argument("--rounds", type=cli.whole(1), default=7, metavar="N",
                       help="how often everything is measured (default: %(default)s)")
    args = cli.parse(flags)
    base_task, new_task = (load_task(args.data_dir, digits, args.device) for digits in ("0-6", "7-9"))
    tasks = {way: base_task if way == "base" else new_task for way in WAYS}
    curves, base = {way: [] for way in WAYS}, None
    for seed in tqdm(range(args.rounds), "rounds", disable=None, leave=False):
        turn = seed % 3
        for way in ("base", *WAYS[1 + turn :], *WAYS[1 : 1 + turn]):  # no way always comes after the same one
            run = setting(way if way in ("base", "fresh") else "finetune", seed)
            options = {"recompute_frozen": True} if way == "recompute" else {}
            model, curve = train(run, tasks[way], base, **options)
            curves[way].append(curve)
            if way == "base":
                base = model
    operations = count_operations({way: len(tasks[way].train.labels) for way in WAYS}, EPOCHS)
    results = {"experiment": "benchmark", "rounds": args.rounds,
               "settings": {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE},
               "network": str(build_model()), **summarise(curves, operations), "environment": environment(args.device)}
    save(args.out / "results" / "benchmark.json", to_json(results))
    draw("benchmark", results, args.out)
    for way in WAYS:
        print(f"{way}: {results['ways'][way]['seconds']['median']:.2f} s, "
              f"{results['ways'][way]['to_fresh']['median']:.2f} of fresh")
    print(f"saved results/benchmark.json, plots/losses.png and plots/times.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
