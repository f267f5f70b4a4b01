"""How long training takes, and why: fine-tuned against fresh, and a training step explained by three constants.

    python -m experiments.benchmark             # about five minutes on 2 cores; nothing else should run meanwhile

What is compared runs in turns, round after round: medians and ranges. Writes results/benchmark.json and
plots/times.png.
"""

import copy
import itertools
import statistics

import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import nn
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor
from tqdm import tqdm

import cli
from data import MEAN, STD, Split, Task, load_task, split_validation
from finetune import fine_tune
from model import FRESH_SEED, Frozen, build_model
from results import environment, save, to_json
from training import WEIGHT_DECAY, extract_features, fit, now

BASE_DIGITS, DIGITS = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9)
CUT = {"frozen": 1, "reinit": 2}  # finetune.py's defaults
# Fresh; fine-tuned with the frozen block computed in every step, as is usual; with its features computed once.
WAYS = ("fresh", "recompute", "once")
WORKERS = (0, 2)  # DataLoader processes of the usual recipe
FITTED, HELD_OUT = (64, 256), (128,)  # batch sizes: the constants are fitted on some and predict the others
STEPS = 60  # of each configuration in each round
BYTES = 4  # of a float32
MATRIX = 2048  # rows and columns: large enough for the product's full rate
COPY = 2**25  # values, 128 MiB: far more than any cache


def train(way: str, args, task: Task, seed: int, base: nn.Sequential | None = None, epochs: int | None = None):
    """Train a model in one of `WAYS`; return (model, training seconds, feature seconds)."""
    options = {"epochs": epochs or args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate,
               "seed": seed, "last_row_only": True}
    if way == "fresh":
        model, feature_seconds = build_model(FRESH_SEED + seed).to(args.device), 0.0
        curve = fit(model, task.train, task.validation, **options)
    else:
        model = copy.deepcopy(base)
        curve, feature_seconds = fine_tune(model, task.train, task.validation, **CUT,
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


def throughput(args, task: Task) -> dict:
    """Images per second in one epoch of the base model, ours and the usual recipe's."""
    measured = []
    for seed in rounds("against the usual recipe", args.rounds):
        ours = len(task.train.labels) / train("fresh", args, task, seed, epochs=1)[1]
        usual = [usual_recipe(args, task, seed, workers) for workers in WORKERS]
        measured.append({"images_per_second": ours, "usual_images_per_second": max(usual), "ratio": ours / max(usual)})
    return spread(measured)


def usual_recipe(args, task: Task, seed: int, workers: int) -> float:
    """Images per second in one epoch as tutorials train: every image decoded, transformed and collated anew.

    Network, images, batch size, optimiser and schedule are ours; the memory layout is PyTorch's default. To start
    the workers is part of the time, as it is for a user.
    """
    dataset = MNIST(args.data_dir, transform=Compose([ToTensor(), Normalize((MEAN,), (STD,))]))
    numbered, _ = split_validation(Split(torch.arange(len(dataset)), dataset.targets))
    images = numbered.images[torch.isin(numbered.labels, torch.tensor(task.digits))]
    loader = DataLoader(Subset(dataset, images.tolist()), args.batch_size, shuffle=True, num_workers=workers,
                        drop_last=True)
    model = build_model(seed).to(args.device, memory_format=torch.contiguous_format)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=len(loader),
                                                    cycle_momentum=False)
    start = now(args.device)
    for images, labels in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(images.to(args.device)), labels.to(args.device)).backward()
        optimizer.step()
        scheduler.step()
    return len(loader) * args.batch_size / (now(args.device) - start)


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
    values, passes, first = 0, 1, True
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
    """Seconds of a training step, way by way: blocks frozen 0 to 3, computed once or in every step, batch sizes."""
    ways = [(frozen, once) for frozen in range(len(base)) for once in (False, True) if frozen or not once]
    configurations, rows = [], []
    for frozen, once in ways:
        for batch_size in FITTED + HELD_OUT:
            model = copy.deepcopy(base)
            initial, trained = Frozen(model[:frozen]), model[frozen:]
            train = Split(*(values[: STEPS * batch_size] for values in task.train))
            if once:
                train, initial = extract_features(initial, train), nn.Sequential()
            counted = count(copy.deepcopy(initial), copy.deepcopy(trained), train.images[:2].clone())
            rows.append({"frozen": frozen, "once": once, "batch_size": batch_size, **counted, "seconds": []})
            configurations.append((nn.Sequential(initial, trained), train))
    validation = [Split(*(values[:2] for values in train)) for _, train in configurations]
    for seed in rounds("steps", args.rounds):
        for row, (model, train), few in zip(rows, configurations, validation):
            curve = fit(model, train, few, epochs=1, batch_size=row["batch_size"], learning_rate=args.learning_rate,
                        seed=seed, last_row_only=True)
            row["seconds"].append(curve[-1]["seconds"] / STEPS)
    return rows


def fit_constants(rows: list[dict], seconds: list[float]) -> dict:
    """The constants of: step = passes * c + FLOPs / F + bytes / B; least squares of relative errors, none negative."""
    shares = [[row["passes"] / time, row["batch_size"] * row["flops"] / time,
               BYTES * row["batch_size"] * row["values"] / time] for row, time in zip(rows, seconds)]
    (per_pass, per_flop, per_byte), _ = nnls(shares, [1.0] * len(shares))
    return {"seconds_per_pass": per_pass, "flops_per_second": 1 / per_flop, "bytes_per_second": 1 / per_byte}


def terms(counted: dict, batch_size: int, constants: dict) -> dict:
    """Predicted seconds of a step, by what they are spent on."""
    return {"fixed": counted["passes"] * constants["seconds_per_pass"],
            "arithmetic": batch_size * counted["flops"] / constants["flops_per_second"],
            "memory": BYTES * batch_size * counted["values"] / constants["bytes_per_second"]}


def explain(args, task: Task, base: nn.Sequential, ways: dict) -> dict:
    """Three constants of the machine, fitted on some batch sizes, and what they predict for all.

    The effective rate of memory counts activations alone; small ones stay in the processor's cache.
    """
    rows = time_steps(args, task, base)
    fitted = [row for row in rows if row["batch_size"] in FITTED]
    constants = fit_constants(fitted, [statistics.median(row["seconds"]) for row in fitted])
    by_round = [fit_constants(fitted, [row["seconds"][number] for row in fitted]) for number in range(args.rounds)]
    for row in rows:
        row |= {"measured": statistics.median(row.pop("seconds")), "fitted": row["batch_size"] in FITTED,
                "predicted": sum(terms(row, row["batch_size"], constants).values())}
    features = count(Frozen(copy.deepcopy(base[:1])), nn.Sequential(), task.train.images[:2])
    batches = len(task.train.labels) // args.batch_size
    predicted = {}
    for way, frozen, once in (("fresh", 0, False), ("recompute", 1, False), ("once", 1, True)):
        row = next(row for row in rows if (row["frozen"], row["once"]) == (frozen, once))
        size = len(task.train.labels) / batches  # images in a step
        predicted[way] = {name: value * args.epochs * batches for name, value in terms(row, size, constants).items()}
        if once:
            pass_ = terms(features, len(task.train.labels), constants)
            predicted[way]["features"] = pass_["arithmetic"] + pass_["memory"]
    whole = {way: sum(parts.values()) for way, parts in predicted.items()}
    return {"constants": {name: value | {"fitted": constants[name]} for name, value in spread(by_round).items()},
            "matrix_product_flops_per_second": matrix_product(args.device),
            "copy_bytes_per_second": copy_rate(args.device), "steps": rows, "predicted_seconds": predicted,
            "ratio_to_fresh": {way: {"predicted": whole[way] / whole["fresh"],
                                     "measured": ways[f"{way}_to_fresh"]["median"]} for way in WAYS[1:]}}


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
    """Median of the seconds that `work` takes, of ten."""
    times = [now(device)] + [(work(), now(device))[1] for _ in range(11)]
    return statistics.median(end - start for start, end in itertools.pairwise(times[1:]))


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
    results = {"experiment": "benchmark", "rounds": args.rounds, "environment": environment(args.device),
               "hyperparameters": {name: getattr(args, name) for name in ("epochs", "batch_size", "learning_rate")}}
    base, _, _ = train("fresh", args, base_task, args.seed)  # warms up too
    results["ways"] = compare_ways(args, task, base)
    results["explanation"] = explain(args, task, base, results["ways"])
    results["throughput"] = throughput(args, base_task)
    save(args.out / "results" / "benchmark.json", to_json(results))
    from experiments.figures import times_figure, to_png
    save(args.out / "plots" / "times.png", to_png(times_figure(results)))
    for way in WAYS[1:]:
        ratio = results["explanation"]["ratio_to_fresh"][way]
        print(f"{way} / fresh: measured {ratio['measured']:.2f}, predicted {ratio['predicted']:.2f}")
    print(f"wrote results/benchmark.json and plots/times.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
