"""How fast: against the usual recipe, against the machine's limit, and fine-tuned against fresh (question 5).

    python benchmark.py             # about 4 minutes on 2 cores

What is compared runs in turns, round after round, each round with a seed of its own: medians and ranges.
Writes results/benchmark.json and plots/benchmark.png.
"""

import runs  # first, so that Ctrl-C during the slow imports is one line too

import copy
import math
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import profile
from torch.utils.data import DataLoader, Subset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from data import MEAN, STD, Split, Task, load_task, split_validation
from model import Frozen, build_model, divide
from training import WEIGHT_DECAY, evaluate, fine_tune, fit, now

BASE_DIGITS, DIGITS = (0, 1, 2, 3, 4, 5, 6), (7, 8, 9)
CUT = {"frozen": 1, "reinit": 2}  # finetune.py's defaults
# Fresh; fine-tuned with the frozen block computed in every step, as is usual; with its features computed once.
WAYS = ("fresh", "recompute", "once")
WORKERS = (0, 2)  # DataLoader processes of the usual recipe
MATRIX = 2048  # rows and columns: large enough for the product's full rate
SIZES = (1 / 8, 1 / 4, 1 / 2, 1)  # of the training set
LEVELS = (0.990, 0.993)  # of validation accuracy
GROUPS = {  # of operations, by what PyTorch's names for them contain; the first that fits
    "convolution": ("convolution",), "normalisation": ("batch_norm",),
    "pooling": ("max_pool", "aten::fill_"),  # its backward pass starts from an image of zeros
    "ReLU": ("clamp_min", "relu", "threshold"), "matrix product": ("aten::mm", "aten::addmm"),
    "optimiser": ("Optimizer", "adamw", "_foreach"), "picking batches": ("aten::index",),
}


def train(way: str, args, task: Task, seed: int, base: nn.Sequential | None = None, **options):
    """Train a model in one of `WAYS`, by default as the flags say; return (model, curve, feature seconds)."""
    options = {**runs.hyperparameters(args), "evaluations_per_epoch": 0, "seed": seed, **options}
    if way == "fresh":
        model = runs.new_model(seed, args.device)
        return model, fit(model, task.train, task.validation, **options), 0.0
    model = copy.deepcopy(base)
    return model, *fine_tune(model, task.train, task.validation, **CUT, recompute_frozen=way == "recompute", **options)


def throughput(args, task: Task, flops: dict) -> dict:
    """Item 1: images/s in one epoch of the base model, ours and the usual recipe's. Item 3: ours in GFLOP/s.

    The limit is what a large float32 matrix product reaches. Convolutions are another library's code and may reach
    more: the share can exceed 1.
    """
    measured = []
    for seed in rounds("throughput", args.rounds, args.seed):
        _, curve, _ = train("fresh", args, task, seed, epochs=1)
        ours, product = len(task.train.labels) / curve[-1]["seconds"], matrix_product(args.device)
        usual = {workers: usual_recipe(args, task, seed, workers) for workers in WORKERS}
        gflops = ours * flops["fresh"]["forward_and_backward"] / 1e9
        measured.append({
            "images_per_second": ours,
            **{f"usual_recipe_{workers}_workers_images_per_second": rate for workers, rate in usual.items()},
            "ratio_to_best_usual_recipe": ours / max(usual.values()),
            "gflops_per_second": gflops, "matrix_product_gflops_per_second": product,
            "share_of_matrix_product": gflops / product})
    return summarise(measured)


def usual_recipe(args, task: Task, seed: int, workers: int) -> float:
    """Images/s in one epoch as tutorials train: every image decoded, transformed and collated anew.

    Network, images, batch size, optimiser and schedule are ours; the memory layout is PyTorch's default. To start
    the workers is part of the time, as it is for a user.
    """
    dataset = MNIST(args.data_dir, transform=Compose([ToTensor(), Normalize((MEAN,), (STD,))]))
    images, _ = split_validation(dataset.targets)
    images = images[torch.isin(dataset.targets[images], torch.tensor(task.digits))]
    loader = DataLoader(Subset(dataset, images.tolist()), args.batch_size, shuffle=True, num_workers=workers,
                        drop_last=len(images) > args.batch_size)  # one image left over could not be normalised
    model = runs.new_model(seed, args.device).to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.learning_rate, total_steps=len(loader),
                                                   cycle_momentum=False)
    seen, start = 0, now(args.device)
    for images, labels in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(images.to(args.device)), labels.to(args.device)).backward()
        optimizer.step()
        schedule.step()
        seen += len(labels)
    return seen / (now(args.device) - start)


def matrix_product(device: torch.device) -> float:
    """GFLOP/s of a large float32 matrix product."""
    matrix, seconds = torch.randn(MATRIX, MATRIX, device=device), []
    for _ in range(10):
        start = now(device)
        matrix @ matrix
        seconds.append(now(device) - start)
    return 2 * MATRIX**3 / statistics.median(seconds) / 1e9


def compare_ways(args, task: Task, base: nn.Sequential) -> dict:
    """Item 2: seconds of training in each of `WAYS`, and their ratios within a round."""
    measured = []
    for seed in rounds("fine-tuned against fresh", args.rounds, args.seed):
        seconds = {}
        for way in WAYS:
            _, curve, feature_seconds = train(way, args, task, seed, base)
            seconds[way] = curve[-1]["seconds"]
        measured.append({
            **{f"{way}_training_seconds": value for way, value in seconds.items()},
            "once_feature_seconds": feature_seconds,
            **{f"{way}_to_{other}": seconds[way] / seconds[other]
               for way, other in (("recompute", "fresh"), ("once", "fresh"), ("once", "recompute"))}})
    return summarise(measured)


def count_flops() -> dict:
    """Item 3: floating-point operations per image (a multiplication and an addition are two), way by way.

    FlopCounterMode counts convolutions and matrix products; all else is a few operations a value, next to nothing.
    """
    images, model = torch.zeros(2, 1, 28, 28), build_model()  # two: batch normalisation cannot do with one
    initial, *trained = divide(model, **CUT)
    initial, trained = Frozen(initial), nn.Sequential(*trained)

    def count(part: nn.Module, images: torch.Tensor) -> dict:
        with FlopCounterMode(display=False) as forward:
            logits = part(images)
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
        forward, backward = (counter.get_total_flops() // len(images) for counter in (forward, backward))
        return {"forward": forward, "forward_and_backward": forward + backward}

    with FlopCounterMode(display=False) as counter:
        features = initial(images)
    return {"fresh": count(build_model(), images), "recompute": count(nn.Sequential(initial, trained), images),
            "once": count(trained, features), "features": {"forward": counter.get_total_flops() // len(images)}}


def explain(args, task: Task, base: nn.Sequential, flops: dict, ways: dict) -> dict:
    """Item 4: ratios to fresh, predicted as if time went with floating-point operations, and measured (of medians).

    What a group of operations adds to measured - predicted is its time less the predicted part of its time in fresh,
    over fresh's whole time; all groups together give the difference. requires_grad = False alone ("recompute") saves
    less than one expects because the frozen block's forward pass still runs in every step.
    """
    steps = args.epochs * max(1, len(task.train.labels) // args.batch_size)
    seconds, predicted = {}, {}
    for way in WAYS:
        features = ways["once_feature_seconds"]["median"] if way == "once" else 0.0
        stepping = ways[f"{way}_training_seconds"]["median"] - features
        seconds[way] = {group: share * stepping for group, share in profile_steps(way, args, task, base).items()}
        seconds[way]["features, once"] = features
        counted = flops[way]["forward_and_backward"] + (way == "once") * flops["features"]["forward"] / args.epochs
        predicted[way] = counted / flops["fresh"]["forward_and_backward"]
    fresh, whole = seconds["fresh"], {way: sum(seconds[way].values()) for way in WAYS}
    images = args.epochs * len(task.train.labels)
    rates = {way: images * flops[way]["forward_and_backward"] / 1e9
             / (seconds[way]["convolution"] + seconds[way]["matrix product"]) for way in WAYS}
    return {
        "ratio_to_fresh": {way: {"predicted": predicted[way], "measured": whole[way] / whole["fresh"]} for way in WAYS},
        "measured_less_predicted": {group: {way: (seconds[way][group] - predicted[way] * fresh[group]) / whole["fresh"]
                                            for way in WAYS[1:]} for group in fresh},
        "milliseconds_per_step": {group: {way: 1000 * seconds[way][group] / steps for way in WAYS} for group in fresh},
        "counted_operations_gflops_per_second": rates,  # in these alone: against the matrix product's, above
        "recompute_less_once_milliseconds_per_step": 1000 * (whole["recompute"] - whole["once"]) / steps,
        "steps": steps}


def profile_steps(way: str, args, task: Task, base: nn.Sequential) -> dict[str, float]:
    """Each of `GROUPS`' share, and that of all else, in the time of the second of two epochs."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler keeps a diary on standard error
    profiler, clock = profile(), []

    def follow(done: int, total: int) -> None:
        if done == total // 2:
            profiler.start()
            clock.append(now(args.device))
        elif done == total:
            clock.append(now(args.device))
            profiler.stop()

    show_progress(f"profile: {way}")
    train(way, args, task, args.seed, base, epochs=2, on_step=follow)
    show_progress()
    whole = clock[1] - clock[0]
    shares = dict.fromkeys(GROUPS, 0.0)
    for event in profiler.key_averages():
        group = next((group for group, names in GROUPS.items() if any(name in event.key for name in names)), None)
        if group and event.device_type == DeviceType.CPU:  # a GPU's kernels stand under the operation's name too
            own = event.self_cpu_time_total if args.device.type == "cpu" else event.self_device_time_total
            shares[group] += own / 1e6 / whole  # from microseconds
    return {**shares, "other": 1 - sum(shares.values())}  # with the time that Python takes


def scaling(args, task: Task) -> dict:
    """Item 5: seconds of one epoch of the base model over the number of training images, and a straight line."""
    counts, measured = [int(size * len(task.train.labels)) for size in SIZES], []
    for seed in rounds("scaling", args.rounds, args.seed):
        parts = [task._replace(train=Split(task.train.images[:n], task.train.labels[:n])) for n in counts]
        curves = [train("fresh", args, part, seed, epochs=1)[1] for part in parts]
        measured.append({f"{n}_images_seconds": curve[-1]["seconds"] for n, curve in zip(counts, curves)})
    seconds = summarise(measured)
    return {**seconds, "straight_line": straight_line(counts, [value["median"] for value in seconds.values()])}


def straight_line(images: list[float], seconds: list[float]) -> dict:
    """The least-squares line; R^2; the largest distance of a measurement from it as a share of the line's value."""
    slope, intercept = statistics.linear_regression(images, seconds)
    off = [abs(value / (slope * count + intercept) - 1) for count, value in zip(images, seconds)]
    return {"seconds_per_image": slope, "intercept_seconds": intercept,
            "r_squared": statistics.correlation(images, seconds) ** 2, "largest_relative_deviation": max(off)}


def time_to_accuracy(args, base_task: Task, task: Task, base: nn.Sequential) -> dict:
    """Item 6: training seconds until each of `LEVELS`, and those of the whole schedule with its test accuracy.

    The flags' schedule is measured in every second round: evaluating takes several times as long as training.
    """
    results = {}
    schedules = {args.epochs: (4, -(-args.rounds // 2)), 1: (8, args.rounds)}
    for epochs, (evaluations, count) in schedules.items():
        measured = {"base": [], "finetune": [], "fresh": []}
        for seed in rounds(f"time to accuracy, epochs: {epochs}", count, args.seed):
            for name, way, its in (("base", "fresh", base_task), ("finetune", "once", task), ("fresh", "fresh", task)):
                model, curve, _ = train(way, args, its, seed, base, epochs=epochs, evaluations_per_epoch=evaluations)
                measured[name].append({
                    **{f"seconds_to_{100 * level:.1f}_percent": seconds_to(level, curve) for level in LEVELS},
                    "training_seconds": curve[-1]["seconds"], "test_accuracy": evaluate(model, its.test)[1]})
        results[f"epochs_{epochs}"] = {name: summarise(values) for name, values in measured.items()}
    return results


def seconds_to(level: float, curve: list[dict]) -> float | None:
    """Training seconds when the validation accuracy first was `level`; None if it never was."""
    return next((row["seconds"] for row in curve if row["validation_accuracy"] >= level), None)


def summarise(measured: list[dict]) -> dict:
    """Median and range over rounds of each quantity. None, which never came, is later than all else."""
    results = {}
    for key in measured[0]:
        values = [math.inf if one[key] is None else one[key] for one in measured]
        spread = {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
        results[key] = {name: None if value == math.inf else value for name, value in spread.items()}
    return results


def rounds(title: str, count: int, seed: int) -> Iterator[int]:
    """The seeds of `count` rounds; on a terminal, says which round it is."""
    for number in range(count):
        show_progress(f"{title}: round {number + 1} of {count}")
        yield seed + number
    show_progress()


def show_progress(text: str = "") -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def show(results: dict, indent: str = "  ") -> None:
    """Print nested results, the numbers of one dictionary on one line."""
    for key, value in results.items():
        value = value if isinstance(value, dict) else {"": value}
        if any(isinstance(inner, dict) for inner in value.values()):
            print(indent + key.replace("_", " "))
            show(value, indent + "  ")
        else:
            cells = "  ".join(f"{name.replace('_', ' ')} {spell(number):<7}" for name, number in value.items())
            print(f"{indent + key.replace('_', ' '):<50}{cells}".rstrip(), flush=True)


def spell(number: float | None) -> str:
    return "never" if number is None else f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def main():
    flags = runs.parser(__doc__)
    flags.add_argument("--rounds", type=runs.whole(1), default=5, metavar="N",
                       help="how often everything is measured (default: %(default)s)")
    args = runs.start(flags)
    base_task, task = (load_task(args.data_dir, digits, args.device) for digits in (BASE_DIGITS, DIGITS))
    environment = runs.environment(args.device)
    results = {"experiment": "benchmark", "base_digits": list(BASE_DIGITS), "digits": list(DIGITS),
               "dataset": {"name": task.name, "verified": task.verified, "base_train": len(base_task.train.labels),
                           "train": len(task.train.labels)},
               "rounds": args.rounds, "hyperparameters": runs.hyperparameters(args), "environment": environment}
    print(f"{task.name}; rounds: {args.rounds}; {environment['device']}, {environment['threads']} threads, "
          f"{environment['cpu']}" + ("" if task.verified else f"\nThis is {task.name}, not MNIST."), flush=True)

    show_progress("base model, and warming up")
    base, _, _ = train("fresh", args, base_task, args.seed)
    for item, measure in {
        "flops_per_image": count_flops,
        "throughput": lambda: throughput(args, base_task, results["flops_per_image"]),
        "ways": lambda: compare_ways(args, task, base),
        "explanation": lambda: explain(args, task, base, results["flops_per_image"], results["ways"]),
        "scaling": lambda: scaling(args, base_task),
        "time_to_accuracy": lambda: time_to_accuracy(args, base_task, task, base),
    }.items():
        results[item] = measure()
        show({item: results[item]}, indent="")

    from plotting import benchmark_figure  # here: matplotlib is slow to import, and bad input should not wait for it
    runs.save(args.out, {"results/benchmark.json": runs.to_json(results),
                         "plots/benchmark.png": runs.to_png(benchmark_figure(results))})
    print(f"wrote results/benchmark.json and plots/benchmark.png in {Path(args.out).resolve()}")


if __name__ == "__main__":
    main()
