"""How long training takes, and why: the three models, and fine-tuning with conv1 run in each step.

    python -m experiments.benchmark             # a few minutes; nothing else should run meanwhile

The four trainings run in turns, round after round: medians and ranges. Beside them stand the operations of each, by
block. Writes results/benchmark.json and plots/times.png.
"""

import copy
import statistics

from torch import nn
from tqdm import tqdm

import cli
from data import Task, load_task
from experiments.figures import times_figure
from finetune import FROZEN, REINIT, fine_tune
from model import FRESH_SEED, build_model
from plotting import to_png
from results import environment, save, to_json
from training import fit

BASE_DIGITS, DIGITS = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9)
WAYS = ("base", "fresh", "recompute", "once")  # recompute: conv1 runs in each step, as is usual; once: features once
FORWARD = {  # floating-point operations for one image: a multiplication and an addition are two
    "conv1": 2 * (24 * 24 * 16) * (5 * 5 * 1),  # values of the output, times weights that each of them takes
    "conv2": 2 * (8 * 8 * 32) * (5 * 5 * 16),
    "fc1": 2 * 64 * (32 * 4 * 4),
    "fc2": 2 * 10 * 64,
}


def count_operations(way: str, images: int, epochs: int) -> dict:
    """Floating-point operations of a whole training, by block and purpose; convolutions and matrix products alone.

    Forward, gradient for the weights and gradient for the input take the same number each. The first block
    that is trained needs no gradient for its input, and a frozen block none at all.
    """
    frozen = ["conv1"] if way in ("recompute", "once") else []
    first_trained = "conv2" if frozen else "conv1"
    blocks = {}
    for block, forward in FORWARD.items():
        blocks[block] = {
            "forward": forward * images * (1 if block in frozen and way == "once" else epochs),
            "weight_gradient": 0 if block in frozen else forward * images * epochs,
            "input_gradient": 0 if block in (*frozen, first_trained) else forward * images * epochs,
        }
    return {"blocks": blocks, "total": sum(sum(block.values()) for block in blocks.values())}


def train(way: str, task: Task, base: nn.Sequential | None, options: dict) -> tuple[nn.Sequential, list[dict]]:
    """Train a model in one of `WAYS`; return it and its curve."""
    if way in ("base", "fresh"):
        model = build_model(options["seed"] + (FRESH_SEED if way == "fresh" else 0)).to(task.train.labels.device)
        return model, fit(model, task.train, task.validation, **options)
    model = copy.deepcopy(base)
    curve, _ = fine_tune(model, task.train, task.validation, frozen=FROZEN, reinit=REINIT,
                         recompute_frozen=way == "recompute", **options)
    return model, curve


def median_and_range(values: list[float]) -> dict:
    """Median and range over the rounds."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def summarise(curves: dict[str, list[list[dict]]], operations: dict[str, dict]) -> dict:
    """The times of the four ways, their ratios to fresh, and what is saved between fresh, recompute and once.

    Ratios and savings are those within a round: the machine is about as fast for all four then.
    """
    seconds = {way: [curve[-1]["seconds"] for curve in curves[way]] for way in WAYS}
    fresh = seconds["fresh"]
    ways = {way: {"seconds": median_and_range(seconds[way]), "operations": operations[way],
                  "to_fresh": median_and_range([time / other for time, other in zip(seconds[way], fresh)]),
                  "curve": [{"epoch": rows[0]["epoch"], **{name: statistics.fmean(row[name] for row in rows)
                                                          for name in ("seconds", "validation_accuracy")}}
                            for rows in zip(*curves[way])]} for way in WAYS}
    saved = {}
    for name, before, after in (("no_backward_through_conv1", "fresh", "recompute"),
                                ("conv1_forward_once", "recompute", "once")):
        of_fresh = [(a - b) / other for a, b, other in zip(seconds[before], seconds[after], fresh)]
        saved[name] = {
            "of_fresh": median_and_range(of_fresh),
            "predicted_of_fresh": ((operations[before]["total"] - operations[after]["total"])
                                   / operations["fresh"]["total"]),
            "of_saving": median_and_range([(a - b) / (all_before - all_after) for a, b, all_before, all_after in zip(
                seconds[before], seconds[after], fresh, seconds["once"])])}
    return {"seconds": seconds, "ways": ways, "saved": saved}


def main():
    flags = cli.parser(__doc__)
    flags.add_argument("--rounds", type=cli.whole(1), default=7, metavar="N",
                       help="how often everything is measured (default: %(default)s)")
    args = cli.parse(flags)
    device = cli.choose_device("auto")
    base_task, new_task = (load_task(args.data_dir, digits, device) for digits in (BASE_DIGITS, DIGITS))
    tasks = {"base": base_task, "fresh": new_task, "recompute": new_task, "once": new_task}
    options = {"epochs": cli.EPOCHS, "batch_size": cli.BATCH_SIZE, "learning_rate": cli.LEARNING_RATE}
    curves, base = {way: [] for way in WAYS}, None
    for seed in tqdm(range(args.rounds), "rounds", disable=None, leave=False):
        turn = seed % 3
        for way in ("base", *WAYS[1 + turn :], *WAYS[1 : 1 + turn]):  # no way always comes after the same one
            model, curve = train(way, tasks[way], base, {**options, "seed": seed})
            curves[way].append(curve)
            if way == "base":
                base = model
    operations = {way: count_operations(way, len(tasks[way].train.labels), cli.EPOCHS) for way in WAYS}
    results = {"experiment": "benchmark", "rounds": args.rounds, "hyperparameters": options,
               **summarise(curves, operations), "environment": environment(device)}
    save({args.out / "results" / "benchmark.json": to_json(results),
          args.out / "plots" / "times.png": to_png(times_figure(results))})
    for way in WAYS:
        print(f"{way}: {results['ways'][way]['seconds']['median']:.2f} s, "
              f"{results['ways'][way]['to_fresh']['median']:.2f} of fresh")
    print(f"saved results/benchmark.json and plots/times.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
