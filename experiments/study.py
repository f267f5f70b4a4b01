"""The evidence behind the report's conclusions: many seeds, few labels, every cut, every choice of new digits.

    python -m experiments.study                         # one to two hours on 2 cores
    python -m experiments.study --pairs 12 --seeds 5    # a quarter of that

Every run is one model trained once. Its outcome stands in results/study.json as soon as its group (a base model and
all that starts from it) is finished, and is not computed again: a study that was stopped goes on where it was. To
repeat it from nothing, give another --out. The summary has these parts:

    seeds     base, fine-tuned and fresh at the defaults, on the digits 7-9
    labels    fine-tuned and fresh with few labels per digit
    untrained  fine-tuned from a base that was never trained, with few labels
    cuts      every (frozen, reinit) that the network allows, with all labels and with few
    pairs     fine-tuned and fresh for every choice of three new digits; the base is trained on the other seven
    rates     learning rates, compared on validation alone: where the default comes from
"""

import copy
import json
import math
import multiprocessing
import os
import signal
import threading
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import nn
from tqdm import tqdm

import cli
from compare import predict
from data import Split, Task, UserError, load_mnist, select_digits, split_validation
from experiments.figures import cuts_figure, labels_figure, pairs_figure
from finetune import FROZEN, REINIT, fine_tune
from model import FRESH_SEED, build_model
from plotting import to_png
from results import environment, save
from training import fit

EXERCISE = (7, 8, 9)  # the new digits of the exercise
CUT = (FROZEN, REINIT)
CUTS = [(frozen, reinit) for frozen in range(4) for reinit in range(5 - frozen)]  # of four blocks; (0, 4) is fresh
LABELS = (5, 10, 100, 1000)  # per digit
FEW = 10  # labels per digit in the parts `cuts` and `pairs`
RATES = (0.002, 0.008, 0.032)
RATE_SEEDS = 3
# Every choice of three new digits; the exercise's own is number 0. Number n is trained with the seed n: with one seed
# for all, the noise of that seed would be the same in every pair and would not average out.
PAIRS = [tuple(sorted(new)) for new in combinations(range(9, -1, -1), 3)]
REPEATED = 20  # every 20th pair is trained with three seeds: the noise within a pair
UNTRAINED_SEED = 2 * FRESH_SEED  # of base models that are never trained


# Which runs there are


def setting(model: str, seed: int, new=EXERCISE, per_digit: int | None = None, cut=CUT, rate=cli.LEARNING_RATE) -> dict:
    """What tells a run from all others. `per_digit`: labels per new digit (None: all)."""
    cut = cut if model in ("finetune", "untrained") else (0, 4)
    return {"model": model, "new": list(new), "seed": seed, "per_digit": per_digit, "frozen": cut[0], "reinit": cut[1],
            "learning_rate": rate}


def key(run: dict) -> str:
    return json.dumps({name: value for name, value in run.items() if name != "outcome"})


def plan(seeds: int, pairs: int) -> list[dict]:
    """Every run of the study."""
    runs = [setting(model, seed, rate=rate)
            for seed in range(RATE_SEEDS) for rate in RATES for model in ("base", "finetune", "fresh")]
    for seed in range(seeds):
        runs += [setting("base", seed), setting("fresh", seed), setting("untrained", seed, per_digit=FEW)]
        runs += [setting(model, seed, per_digit=count) for count in LABELS for model in ("finetune", "fresh")]
        runs += [setting("finetune", seed, per_digit=count, cut=cut)
                 for count in (None, FEW) for cut in CUTS if cut != (0, 4)]
    for new in spread(pairs):
        for repetition in range(3 if new in repeated(pairs) else 1):
            seed = pair_seed(new, repetition)
            runs += [setting("base", seed, new)] + [
                setting(model, seed, new, count) for count in (FEW, None) for model in ("finetune", "fresh")]
    return list({key(run): run for run in runs}.values())


def spread(pairs: int) -> list[tuple[int, ...]]:
    """`pairs` of the 120 choices of three new digits, evenly spread, the exercise's own first."""
    return [PAIRS[int(number)] for number in np.linspace(0, len(PAIRS) - 1, min(pairs, len(PAIRS))).round()]


def repeated(pairs: int) -> list[tuple[int, ...]]:
    """Those of them that are trained with three seeds; the exercise's own has the seeds of the other parts."""
    return [new for new in spread(pairs)[1:] if PAIRS.index(new) % REPEATED == 0]


def pair_seed(new: tuple[int, ...], repetition: int) -> int:
    return PAIRS.index(new) + len(PAIRS) * repetition


def few_labels(split: Split, per_digit: int | None, seed: int) -> Split:
    """`per_digit` images of each digit (None: all), drawn by `seed`; a larger draw contains every smaller one."""
    if per_digit is None:
        return split
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for digit in split.labels.unique():
        images = (split.labels == digit).nonzero().squeeze(1)
        chosen.append(images[torch.randperm(len(images), generator=generator)[:per_digit]])
    chosen = torch.cat(chosen)
    return Split(split.images[chosen], split.labels[chosen])


# Carrying them out


class Worker:
    """What a process of the pool keeps: MNIST, and the settings that all runs share."""

    def __init__(self, data_dir: str, epochs: int, batch_size: int, device: torch.device):
        self.splits = *split_validation(load_mnist(data_dir, train=True)), load_mnist(data_dir, train=False)
        self.epochs, self.batch_size, self.device = epochs, batch_size, device

    def group(self, runs: list[dict]) -> list[dict]:
        """Train the base model that these runs share, then each run's own model; return the runs with outcomes."""
        new = runs[0]["new"]
        old_task, new_task = (Task(digits, *(select_digits(split, digits, self.device) for split in self.splits))
                              for digits in (tuple(digit for digit in range(10) if digit not in new), tuple(new)))
        base_run = setting("base", runs[0]["seed"], new, rate=runs[0]["learning_rate"])
        base, outcome = self.train(base_run, old_task)
        return [base_run | {"outcome": outcome}] + [run | {"outcome": self.train(run, new_task, base)[1]}
                                                    for run in runs if run["model"] != "base"]

    def train(self, run: dict, task: Task, base: nn.Sequential | None = None) -> tuple[nn.Sequential, dict]:
        """Train the model of one run; return it, and what is kept of it."""
        seed = run["seed"]
        train = few_labels(task.train, run["per_digit"], seed)
        steps = self.epochs * (len(task.train.labels) // self.batch_size)  # with few labels at least as many
        options = {"epochs": math.ceil(steps / max(1, len(train.labels) // self.batch_size)), "seed": seed,
                   "batch_size": self.batch_size, "learning_rate": run["learning_rate"], "last_row_only": True}
        if run["model"] == "finetune":
            model = copy.deepcopy(base)
        else:
            model = build_model({"base": 0, "fresh": FRESH_SEED, "untrained": UNTRAINED_SEED}[run["model"]] + seed)
            model.to(self.device)
        if run["model"] in ("base", "fresh"):
            curve = fit(model, train, task.validation, **options)
        else:
            curve, _ = fine_tune(model, train, task.validation, frozen=run["frozen"], reinit=run["reinit"], **options)
        wrong = predict(model, task.test.images) != task.test.labels
        outcome = {"train_accuracy": curve[-1]["train_accuracy"],
                   "validation_accuracy": curve[-1]["validation_accuracy"],
                   "test_accuracy": 1 - int(wrong.sum()) / len(wrong)}
        if run["per_digit"] is None and tuple(run["new"]) == EXERCISE:
            outcome["wrong"] = wrong.nonzero().squeeze(1).tolist()  # places in the test set of the task
        return model, outcome


def begin(*options) -> None:
    """In each process of the pool: one thread, and Ctrl-C left to the parent, which ends its processes."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore, which would be left over when the pool ends
    worker = Worker(*options)


def carry_out_group(runs: list[dict]) -> list[dict]:
    return worker.group(runs)


def carry_out(runs: list[dict], finished: dict[str, dict], jobs: int, options: tuple, save_study) -> None:
    """Add those of `runs` to `finished` that are not there yet, group by group.

    `jobs` processes of one thread each: networks as small as this one gain little from a second core.
    """
    groups = {}
    for run in runs:
        if key(run) not in finished:
            groups.setdefault((*run["new"], run["seed"], run["learning_rate"]), []).append(run)
    if not groups:
        return
    with multiprocessing.get_context("spawn").Pool(jobs, begin, options) as pool, \
            tqdm(total=sum(map(len, groups.values())), desc="study", unit="run", disable=None) as bar:
        for group in pool.imap_unordered(carry_out_group, groups.values()):
            finished.update((key(run), run) for run in group)
            save_study()
            bar.update(len(group))


# What they say


def interval(values: list[float]) -> dict:
    """Mean, standard deviation, and 95 % confidence interval of the mean (Student's t)."""
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return {"n": len(values), "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)),
            "low": float(low), "high": float(high)}


def minus(first: list[float], second: list[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def bootstrap(differences: np.ndarray, samples: int = 2000) -> dict:
    """95 % interval of the mean of float [seeds, images], both seeds and images drawn again (percentiles)."""
    generator = np.random.default_rng(0)
    seeds, images = (generator.multinomial(n, np.full(n, 1 / n), samples) / n for n in differences.shape)
    low, high = np.percentile(((seeds @ differences) * images).sum(1), (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


class Runs:
    """The finished runs, to be asked for."""

    def __init__(self, finished: dict[str, dict]):
        self.finished = finished

    def outcomes(self, model: str, seeds, what: str = "test_accuracy", **wanted) -> list:
        return [self.finished[key(setting(model, seed, **wanted))]["outcome"][what] for seed in seeds]

    def gains(self, seeds, **wanted) -> list[float]:
        """Test accuracy of fine-tuned less fresh, for each seed."""
        return minus(self.outcomes("finetune", seeds, **wanted), self.outcomes("fresh", seeds, **wanted))

    def pair_gains(self, new: tuple[int, ...], count: int | None, repetitions=(0,)) -> list[float]:
        return self.gains([pair_seed(new, repetition) for repetition in repetitions], new=new, per_digit=count)


def summarise(runs: Runs, seeds: int, pairs: int, test_images: int) -> dict:
    """The parts of the summary. Accuracies and their differences are fractions; differences are paired by seed."""
    every = range(seeds)
    wrong = {model: np.zeros((seeds, test_images)) for model in ("finetune", "fresh")}
    for model, table in wrong.items():
        for row, images in zip(table, runs.outcomes(model, every, "wrong")):
            row[images] = 1
    untrained = runs.outcomes("untrained", every, per_digit=FEW)
    cuts = {(count, cut): runs.outcomes("fresh" if cut == (0, 4) else "finetune", every, per_digit=count, cut=cut)
            for count in (None, FEW) for cut in CUTS}
    return {
        "seeds": {**{model: interval(runs.outcomes(model, every)) for model in ("base", "finetune", "fresh")},
                  "difference": interval(runs.gains(every)),
                  "difference_over_seeds_and_images": bootstrap(wrong["fresh"] - wrong["finetune"])},
        "labels": [{"per_digit": count, "difference": interval(runs.gains(every, per_digit=count)),
                    **{model: interval(runs.outcomes(model, every, per_digit=count)) for model in wrong},
                    "lowest_train_accuracy": min(min(runs.outcomes(model, every, "train_accuracy", per_digit=count))
                                                 for model in wrong)} for count in LABELS],
        "untrained": {"per_digit": FEW, **interval(untrained),
                      "minus_fresh": interval(minus(untrained, runs.outcomes("fresh", every, per_digit=FEW))),
                      "finetune_minus_untrained": interval(minus(
                          runs.outcomes("finetune", every, per_digit=FEW), untrained))},
        "cuts": [{"per_digit": count, "frozen": cut[0], "reinit": cut[1], **interval(values),
                  "minus_default": interval(minus(values, cuts[count, CUT])) if cut != CUT else None}
                 for (count, cut), values in cuts.items()],
        "pairs": {"all" if count is None else str(count): summarise_pairs(runs, seeds, pairs, count)
                  for count in (FEW, None)},
        "rates": [{"learning_rate": rate, **{
            model: float(np.mean(runs.outcomes(model, range(RATE_SEEDS), "validation_accuracy", rate=rate)))
            for model in ("base", "finetune", "fresh")}} for rate in RATES],
    }


def summarise_pairs(runs: Runs, seeds: int, pairs: int, count: int | None) -> dict:
    """The gain of transfer (fine-tuned less fresh) over the choices of new digits.

    The pairs overlap, so they are described and not tested. What is uncertain about their mean is the noise of each
    pair's one seed: `within_sd`, pooled over the pairs that were repeated with other seeds.
    """
    gains = {new: runs.pair_gains(new, count)[0] for new in spread(pairs)}
    values = list(gains.values())
    groups = [runs.pair_gains(new, count, range(3)) for new in repeated(pairs)]
    groups.append(runs.gains(range(seeds), per_digit=count))
    freedom = sum(len(group) - 1 for group in groups)
    within = sum((len(group) - 1) * np.var(group, ddof=1) for group in groups) / freedom
    margin = stats.t.ppf(0.975, freedom) * math.sqrt(within / len(values))
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    return {"n": len(values), "mean": mean, "low": float(mean - margin), "high": float(mean + margin), "sd": sd,
            "within_sd": math.sqrt(within), "between_sd": math.sqrt(max(0, sd**2 - within)),
            "lowest": min(values), "highest": max(values), "positive": sum(value > 0 for value in values),
            "rank_of_exercise": 1 + sum(value > gains[EXERCISE] for value in values),
            "by_digit": {str(digit): float(np.mean([gain for new, gain in gains.items() if digit in new]))
                         for digit in sorted(set(sum(gains, ())))},
            "gains": [{"new": list(new), "gain": gain} for new, gain in gains.items()]}


# Files


def read_runs(path: Path, hyperparameters: dict) -> dict[str, dict]:
    """The finished runs in `path`, by their settings. Raises UserError if they are of another study."""
    if not path.exists():
        return {}
    study = json.loads(path.read_text(encoding="utf-8"))
    if study["hyperparameters"] != hyperparameters:
        raise UserError(f"{path} holds a study with {study['hyperparameters']}: give another --out, or delete the file")
    return {key(run): run for run in study["runs"]}


def to_json(study: dict, finished: dict[str, dict]) -> bytes:
    """A run a line, in the order of their settings: whether the study was stopped on the way leaves no trace."""
    rows = ",\n".join(json.dumps(finished[name]) for name in sorted(finished))
    return (json.dumps(study | {"runs": []}, indent=1)[:-3] + f"\n{rows}\n]}}\n").encode()


def main():
    flags = cli.training_parser(__doc__)
    flags.add_argument("--seeds", type=cli.whole(3), default=10, metavar="N",
                       help="seeds of all parts but pairs (default: %(default)s)")
    flags.add_argument("--pairs", type=cli.whole(2), default=len(PAIRS), metavar="N",
                       help="how many of the 120 choices of three new digits (default: %(default)s)")
    flags.add_argument("--jobs", type=cli.whole(1), default=os.cpu_count(), metavar="N",
                       help="processes of one thread each (default: one a core, %(default)s)")
    args = cli.parse(flags)
    hyperparameters = {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": cli.LEARNING_RATE}
    load_mnist(args.data_dir, train=True)  # damaged files are found here, by one process
    test = load_mnist(args.data_dir, train=False)
    path = args.out / "results" / "study.json"
    finished = read_runs(path, hyperparameters)
    study = {"experiment": "study", "seeds": args.seeds, "pairs": args.pairs, "hyperparameters": hyperparameters,
             "environment": environment(args.device)}

    def save_study() -> None:
        save(path, to_json(study, finished))

    options = args.data_dir, args.epochs, args.batch_size, args.device
    carry_out(plan(args.seeds, args.pairs), finished, args.jobs, options, save_study)
    images = sum(int((test.labels == digit).sum()) for digit in EXERCISE)
    study["summary"] = summarise(Runs(finished), args.seeds, args.pairs, images)
    save_study()
    for name, figure in (("labels", labels_figure), ("cuts", cuts_figure), ("pairs", pairs_figure)):
        save(args.out / "plots" / f"{name}.png", to_png(figure(study["summary"])))
    print(f"wrote results/study.json and plots/labels.png, cuts.png and pairs.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
