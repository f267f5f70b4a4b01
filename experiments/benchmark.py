"""How long training takes, and why: whole trainings that differ in one thing each, in turns.

    python -m experiments.benchmark             # a few minutes; nothing else should run meanwhile

Between the fresh model and the fine-tuned one stand two trainings more, so that each difference is one part of the
time: conv1's backward pass, conv2's gradient for its input, conv1's forward pass. Writes results/benchmark.json, prints
the rows of the tables about it, and draws the figures.
"""

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import cli
from data import Task, load_task
from experiments import figures, tables
from finetune import FROZEN, REINIT, fine_tune
from model import FRESH_SEED, Frozen, build_model
from results import environment, save, to_json
from training import BATCH_SIZE, EPOCHS, LEARNING_RATE, fit

# Each of the last three leaves out one thing more than the one before it: the frozen block's backward pass; the next
# block's gradient for its input; the frozen block's forward pass in the steps.
WAYS = ("base", "fresh", "input_gradient", "recompute", "once")


class AskForGradient(nn.Module):
    """Hands its input on, and has the gradient for it computed, which nobody uses."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.requires_grad_()


def train(way: str, task: Task, base: nn.Sequential | None, seed: int) -> tuple[nn.Sequential, list[dict]]:
    """One training of `task` at the default settings -> the model and its curve."""
    if way in ("recompute", "once"):
        return fine_tune(base, task.train, task.validation, recompute_frozen=way == "recompute", seed=seed)
    model = build_model(seed if way == "base" else FRESH_SEED + seed).to(task.train.labels.device)
    network = model
    if way == "input_gradient":  # as fine_tune begins, but for the gradient
        kept = len(model) - REINIT
        model[:kept].load_state_dict(base[:kept].state_dict())
        network = nn.Sequential(Frozen(model[:FROZEN]).eval(), AskForGradient(), model[FROZEN:])
    return model, fit(network, task.train, task.validation, seed=seed)


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


def savings(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What fine-tuning saves, part by part, in shares of the fresh model's time in the same round: float [rounds].

    `total` is the first three less `features`, what running the frozen block once costs.
    """
    steps = seconds["once"] - seconds["features"]
    saved = {"backward_of_frozen": seconds["fresh"] - seconds["input_gradient"],
             "input_gradient": seconds["input_gradient"] - seconds["recompute"],
             "forward_of_frozen": seconds["recompute"] - steps, "features": seconds["features"],
             "total": seconds["fresh"] - seconds["once"]}
    return {part: value / seconds["fresh"] for part, value in saved.items()}


def summarise(seconds: dict[str, np.ndarray]) -> dict:
    """Times, their ratios to fresh and what is saved: medians and ranges. Ratios are those within a round.

    `break_even`: how many fine-tunings save as much time as the base's training takes.
    """
    return {"seconds": {name: list(values) for name, values in seconds.items()},
            "times": {way: {"seconds": median_and_range(seconds[way]),
                            "to_fresh": median_and_range(seconds[way] / seconds["fresh"])} for way in WAYS},
            "saved": {part: median_and_range(shares) for part, shares in savings(seconds).items()},
            "break_even": median_and_range(seconds["base"] / (seconds["fresh"] - seconds["once"]))}


def main():
    flags = cli.mnist_parser(__doc__)
    flags.add_argument("--rounds", type=cli.whole(1), default=12, metavar="N",
                       help="how often everything is measured (default: %(default)s)")
    args = cli.parse(flags)
    base_task, new_task = (load_task(args.data_dir, digits, args.device) for digits in ("0-6", "7-9"))
    curves, base = {way: [] for way in WAYS}, None
    for seed in tqdm(range(args.rounds), "rounds", disable=None, leave=False):
        turn = 1 + seed % (len(WAYS) - 1)
        for way in ("base", *WAYS[turn:], *WAYS[1:turn]):  # the order changes from round to round
            model, curve = train(way, base_task if way == "base" else new_task, base, seed)
            curves[way].append(curve)
            if way == "base":
                base = model
    seconds = {way: np.array([curve[-1]["seconds"] for curve in curves[way]]) for way in WAYS}
    seconds["features"] = np.array([curve[0]["seconds"] for curve in curves["once"]])
    results = {"experiment": "benchmark", "rounds": args.rounds,
               "settings": {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE},
               "network": str(build_model()), **summarise(seconds),
               "curves": {way: summarise_curve(curves[way]) for way in WAYS}, "environment": environment(args.device)}
    save(args.out / "results" / "benchmark.json", to_json(results))
    print("\n".join(tables.of_benchmark(results)))
    print("saved results/benchmark.json; drew", figures.draw(args.out))


if __name__ == "__main__":
    cli.run(main)
