"""How long training takes, and why: fine-tuned against fresh, and a training step explained by three constants.

    python -m experiments.benchmark             # three to seven minutes; nothing else should run meanwhile

What is compared runs in turns, round after round: medians and ranges. Writes results/benchmark.json and
plots/times.png.
"""

import copy
import itertools
import statistics

import torch
from scipy.optimize import nnls
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import cli
from data import Split, Task, load_task
from experiments.figures import times_figure
from finetune import FROZEN, REINIT, fine_tune
from model import FRESH_SEED, Frozen, build_model
from plotting import to_png
from results import environment, save, to_json
from training import EVALUATION_BATCH, extract_features, fit, now

BASE_DIGITS, DIGITS = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9)
# Fresh; fine-tuned with the frozen block computed in every step, as is usual; with its features computed once.
WAYS = {"fresh": (0, False), "recompute": (FROZEN, False), "once": (FROZEN, True)}  # blocks frozen, computed once
FITTED, HELD_OUT = (64, 256), (128,)  # batch sizes: the constants are fitted on some and predict the others
STEPS = 60  # of each configuration in each round
BYTES = 4  # of a float32
MATRIX = 2048  # rows and columns: large enough for the product's full rate
COPY = 2**25  # values, 128 MiB: far more than any cache


def train(way: str, args, task: Task, seed: int, base: nn.Sequential | None = None):
    """Train a model in one of `WAYS`; return (model, training seconds, feature seconds)."""
    options = {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": cli.LEARNING_RATE, "seed": seed,
               "last_row_only": True}
    if way == "fresh":
        model, feature_seconds = build_model(FRESH_SEED + seed).to(args.device), 0.0
        curve = fit(model, task.train, task.validation, **options)
    else:
        model = copy.deepcopy(base)
        curve, feature_seconds = fine_tune(model, task.train, task.validation, frozen=FROZEN, reinit=REINIT,
                                           recompute_frozen=way == "recompute", **options)
    return model, curve[-1]["seconds"], feature_seconds


def compare_ways(args, task: Task, base: nn.Sequential) -> dict:
    """Seconds of training in each of `WAYS`, and their ratios within a round."""
    measured = []
    for seed in rounds("fine-tuned against fresh", args.rounds):
        row = {}
        for way in WAYS:
            _, row[f"{way}_seconds"], row["feature_seconds"] = train(way, args, task, seed, base)
        row |= {f"{way}_to_{other}": row[f"{way}_seconds"] / row[f"{other}_seconds"]
                for way, other in (("recompute", "fresh"), ("once", "fresh"), ("once", "recompute"))}
        measured.append(row)
    return spread(measured)


def count(initial: nn.Module, trained: nn.Module, images: torch.Tensor) -> dict:
    """What a training step of `initial` (frozen) and `trained` does: FLOPs and values moved per image, passes per step.

    FlopCounterMode counts convolutions and matrix products; a multiplication and an addition are two. Values: forwards
    a layer reads its input and writes its output; backwards it reads its input and the output's gradient, and writes
    the input's gradient where a layer before it is trained. Passes: those through layers, and one for loss and update.
    """
    with FlopCounterMode(display=False) as counter:
        logits = trained.train()(initial(images))
        if logits.requires_grad:
            logits.sum().backward()
    values, passes, first = 0, int(logits.requires_grad), True
    for part in (initial, trained):
        for layer in part.modules():
            if isinstance(layer, nn.Sequential):
                continue
            read, images = images[0].numel(), layer(images)
            if isinstance(layer, nn.Flatten):  # moves nothing
                continue
            written = images[0].numel()
            values, passes = values + read + written, passes + 1
            if part is trained:
                values, passes = values + written + read * (1 if first else 2), passes + 1
                first = False
    return {"flops": counter.get_total_flops() // len(images), "values": values, "passes": passes}


def time_steps(args, task: Task, base: nn.Sequential) -> list[dict]:
    """Seconds of a step in every round, for 0 to 3 blocks frozen, computed once or in every step, and batch sizes."""
    rows, configurations = [], []
    for frozen, once in [(0, False), *itertools.product(range(1, len(base)), (False, True))]:
        for batch_size in FITTED + HELD_OUT:
            model = copy.deepcopy(base)
            initial, trained = Frozen(model[:frozen]), model[frozen:]
            train = Split(*(values[: STEPS * batch_size] for values in task.train))
            if once:
                train, initial = extract_features(initial, train), nn.Sequential()
            counted = count(copy.deepcopy(initial), copy.deepcopy(trained), train.images[:2].clone())
            rows.append({"frozen": frozen, "once": once, "batch_size": batch_size, **counted, "seconds": []})
            configurations.append((nn.Sequential(initial, trained), train, Split(*(values[:2] for values in train))))
    for seed in rounds("steps", args.rounds):
        for row, (model, *splits) in zip(rows, configurations):
            curve = fit(model, *splits, epochs=1, batch_size=row["batch_size"], learning_rate=cli.LEARNING_RATE,
                        seed=seed, last_row_only=True)
            row["seconds"].append(curve[-1]["seconds"] / STEPS)
    return rows


def predict(row: dict, images: float, constants: dict[str, float]) -> dict[str, float]:
    """Seconds of a step over `images` images: a fixed cost for each pass, arithmetic, and moving values."""
    numbers = {"pass": row["passes"], "flop": images * row["flops"], "byte": images * BYTES * row["values"]}
    return {cost: number * constants[cost] for cost, number in numbers.items()}


def fit_constants(rows: list[dict], times: list[float]) -> dict[str, float]:
    """Seconds per pass, per FLOP and per byte moved, none negative: least squares of the relative errors."""
    ones = {"pass": 1.0, "flop": 1.0, "byte": 1.0}
    shares = [[number / time for number in predict(row, row["batch_size"], ones).values()]
              for row, time in zip(rows, times)]
    return dict(zip(ones, nnls(shares, [1.0] * len(shares))[0].tolist()))


def explain(args, task: Task, base: nn.Sequential) -> dict:
    """Three constants of the machine, fitted on some batch sizes, and what they predict for all.

    The rate of memory is an effective one: it counts activations alone, and small ones stay in the processor's cache.
    """
    rows = time_steps(args, task, base)
    fitted = [row for row in rows if row["batch_size"] in FITTED]
    by_round = [fit_constants(fitted, [row["seconds"][number] for row in fitted]) for number in range(args.rounds)]
    for row in rows:
        row |= {"measured": statistics.median(row.pop("seconds")), "fitted": row["batch_size"] in FITTED}
    constants = fit_constants(fitted, [row["measured"] for row in fitted])
    for row in rows:
        row["predicted"] = sum(predict(row, row["batch_size"], constants).values())
    images = len(task.train.labels)
    batches = images // args.batch_size
    predicted = {}
    for way, cut in WAYS.items():
        row = next(row for row in rows if (row["frozen"], row["once"]) == cut)
        step = predict(row, images / batches, constants)
        predicted[way] = {cost: args.epochs * batches * seconds for cost, seconds in step.items()}
    features = count(Frozen(copy.deepcopy(base[:FROZEN])), nn.Sequential(), task.train.images[:2])
    predicted["once"]["features"] = images / EVALUATION_BATCH * sum(
        predict(features, EVALUATION_BATCH, constants).values())
    return {"constants": {cost: {"fitted": constants[cost], **row} for cost, row in spread(by_round).items()},
            "matrix_product_flops_per_second": matrix_product(args.device),
            "copy_bytes_per_second": copy_rate(args.device), "steps": rows, "predicted_seconds": predicted}


def matrix_product(device: torch.device) -> float:
    """FLOPs per second of a large float32 matrix product."""
    matrix = torch.randn(MATRIX, MATRIX, device=device)
    return 2 * MATRIX**3 / clock(lambda: matrix @ matrix, device)


def copy_rate(device: torch.device) -> float:
    """Bytes per second, read and written, of a large copy."""
    source = torch.randn(COPY, device=device)
    target = source.clone()
    return 2 * BYTES * COPY / clock(lambda: target.copy_(source), device)


def clock(work, device: torch.device) -> float:
    """Median of the seconds that `work` takes, of ten after a first."""
    times = [(work(), now(device))[1] for _ in range(11)]
    return statistics.median(end - start for start, end in itertools.pairwise(times))


def rounds(title: str, number: int):
    return tqdm(range(number), title, disable=None, leave=False)


def spread(measured: list[dict]) -> dict:
    """Median and range over rounds of each quantity."""
    return {key: {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
            for key in measured[0] for values in [[row[key] for row in measured]]}


def main():
    flags = cli.training_parser(__doc__)
    flags.add_argument("--rounds", type=cli.whole(1), default=5, metavar="N",
                       help="how often everything is measured (default: %(default)s)")
    args = cli.parse(flags)
    base_task, task = (load_task(args.data_dir, digits, args.device) for digits in (BASE_DIGITS, DIGITS))
    base, _, _ = train("fresh", args, base_task, seed=0)  # warms up too
    results = {"experiment": "benchmark", "rounds": args.rounds,
               "hyperparameters": {"epochs": args.epochs, "batch_size": args.batch_size,
                                   "learning_rate": cli.LEARNING_RATE},
               "ways": compare_ways(args, task, base), "explanation": explain(args, task, base),
               "environment": environment(args.device)}
    save(args.out / "results" / "benchmark.json", to_json(results))
    save(args.out / "plots" / "times.png", to_png(times_figure(results)))
    for way in ("recompute", "once"):
        print(f"{way} / fresh: {results['ways'][f'{way}_to_fresh']['median']:.2f}")
    print(f"wrote results/benchmark.json and plots/times.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
