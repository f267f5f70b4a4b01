"""The evidence behind the report's conclusions: many seeds, few labels, every cut, every choice of new digits.

    python -m experiments.study                         # about an hour on 2 cores
    python -m experiments.study --pairs 12 --seeds 5    # about a quarter of an hour

Every run is one model trained once. Its outcome stands in results/study.json as soon as it is known and is not
computed again: a study that was stopped goes on where it was. To repeat it from nothing, give another --out. The
summary has these parts:

    seeds     base, fine-tuned and fresh at the defaults, on the digits 7-9
    labels    fine-tuned, fresh, and fine-tuned from a base that was never trained, with few labels per digit
    cuts      every (frozen, reinit) that the network allows, with all labels and with few
    pairs     fine-tuned and fresh for every choice of three new digits; the base is trained on the other seven
    rates     learning rates, compared on validation alone: where the default comes from
"""

import io
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
from finetune import fine_tune
from model import FRESH_SEED, build_model
from results import environment, save
from training import fit

EXERCISE = (7, 8, 9)  # the new digits of the exercise
CUT = (1, 2)  # frozen, reinitialised: finetune.py's defaults
CUTS = [(frozen, reinit) for frozen in range(4) for reinit in range(5 - frozen)]  # of four blocks; (0, 4) is fresh
LABELS = (5, 10, 30, 100, 1000)  # per digit
FEW = 10  # labels per digit in the parts `cuts` and `pairs`
RATES = (0.0005, 0.002, 0.008, 0.032)
UNTRAINED_SEED = 2 * FRESH_SEED  # of base models that are never trained
# Every choice of three new digits; the exercise's own is number 0. Number n is trained with the seed n: with one seed
# for all, the noise of that seed would be the same in every pair and would not average out.
PAIRS = [tuple(sorted(new)) for new in combinations(range(9, -1, -1), 3)]
REPEATED = 15  # every 15th pair is trained with three seeds: the noise within a pair
AGAIN = (1, 2, 3)  # repetitions of the two pairs with the smallest and the largest gain


def setting(model: str, seed: int, new=EXERCISE, per_digit: int | None = None, cut=CUT, rate=cli.LEARNING_RATE) -> dict:
    """What tells a run from all others. `per_digit`: labels per new digit (None: all)."""
    cut = cut if model in ("finetune", "untrained") else (0, 4)
    return {"model": model, "new": list(new), "seed": seed, "per_digit": per_digit, "frozen": cut[0], "reinit": cut[1],
            "learning_rate": rate}


def plan(seeds: int, pairs: int, rate: float) -> list[dict]:
    """Every run of the study but those of the extreme pairs, which are known only when the others have run."""
    runs = []
    for seed in range(seeds):
        runs += [setting("base", seed, rate=rate), setting("fresh", seed, rate=rate)]
        runs += [setting(model, seed, per_digit=count, rate=rate)
                 for count in LABELS for model in ("finetune", "fresh", "untrained")]
        runs += [setting("finetune", seed, per_digit=count, cut=cut, rate=rate)
                 for count in (None, FEW) for cut in CUTS if cut != (0, 4)]
    for number, new in enumerate(spread(pairs)):
        for repetition in range(3 if number and number % REPEATED == 0 else 1):
            runs += pair(new, repetition, rate)
    runs += [setting(model, seed, rate=other)
             for seed in range(min(3, seeds)) for other in RATES for model in ("base", "finetune", "fresh")]
    return list({key(run): run for run in runs}.values())


def spread(pairs: int) -> list[tuple[int, ...]]:
    """`pairs` of the 120 choices of three new digits, evenly spread, the exercise's own first."""
    return [PAIRS[int(number)] for number in np.linspace(0, len(PAIRS) - 1, min(pairs, len(PAIRS))).round()]


def pair_seed(new: tuple[int, ...], repetition: int) -> int:
    return PAIRS.index(new) + len(PAIRS) * repetition


def pair(new: tuple[int, ...], repetition: int, rate: float, counts=(FEW, None)) -> list[dict]:
    """The runs of one choice of new digits: a base, and a fine-tuned and a fresh model for each number of labels."""
    seed = pair_seed(new, repetition)
    return [setting("base", seed, new, rate=rate)] + [
        setting(model, seed, new, count, rate=rate) for count in counts for model in ("finetune", "fresh")]


def key(run: dict) -> str:
    return json.dumps({name: value for name, value in run.items() if name != "outcome"})


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


class Worker:
    """One process: MNIST in memory, the tasks of the last run, and the folder of the base models."""

    def __init__(self, data_dir: str, bases: Path, epochs: int, batch_size: int, device: torch.device):
        self.splits = *split_validation(load_mnist(data_dir, train=True)), load_mnist(data_dir, train=False)
        self.bases, self.epochs, self.batch_size, self.device = bases, epochs, batch_size, device
        self.tasks = {}

    def task(self, digits: tuple[int, ...]) -> Task:
        if digits not in self.tasks:
            if len(self.tasks) > 1:  # an old and a new task; runs come in the order of their pairs
                self.tasks.clear()
            self.tasks[digits] = Task(digits, *(select_digits(split, digits, self.device) for split in self.splits))
        return self.tasks[digits]

    def run(self, run: dict) -> dict:
        """Train one model, and return what is kept of it."""
        base = run["model"] == "base"
        task = self.task(tuple(digit for digit in range(10) if (digit in run["new"]) != base))
        model, curve = (self.train_base if base else self.train_new)(task, run)
        outcome = {name: curve[-1][name] for name in ("train_accuracy", "validation_accuracy")}
        wrong = predict(model, task.test.images) != task.test.labels
        outcome["test_accuracy"] = 1 - int(wrong.sum()) / len(wrong)
        if run["per_digit"] is None and tuple(run["new"]) == EXERCISE:
            outcome["wrong"] = wrong.nonzero().squeeze(1).tolist()
        return outcome

    def train_base(self, task: Task, run: dict) -> tuple[nn.Sequential, list[dict]]:
        model = build_model(run["seed"]).to(self.device)
        curve = fit(model, task.train, task.validation, epochs=self.epochs, batch_size=self.batch_size,
                    learning_rate=run["learning_rate"], seed=run["seed"], last_row_only=True)
        checkpoint = io.BytesIO()
        torch.save(model.state_dict(), checkpoint)
        save(self.base_file(run), checkpoint.getvalue())
        return model, curve

    def train_new(self, task: Task, run: dict) -> tuple[nn.Sequential, list[dict]]:
        seed = run["seed"]
        train = few_labels(task.train, run["per_digit"], seed)
        steps = self.epochs * (len(task.train.labels) // self.batch_size)  # with few labels at least as many
        options = {"epochs": math.ceil(steps / max(1, len(train.labels) // self.batch_size)), "seed": seed,
                   "batch_size": self.batch_size, "learning_rate": run["learning_rate"], "last_row_only": True}
        if run["model"] == "fresh":
            model = build_model(FRESH_SEED + seed).to(self.device)
            return model, fit(model, train, task.validation, **options)
        model = build_model(UNTRAINED_SEED + seed).to(self.device)
        if run["model"] == "finetune":
            file = self.base_file(run)
            if not file.exists():  # somebody deleted checkpoints/
                self.run(setting("base", seed, run["new"], rate=run["learning_rate"]))
            model.load_state_dict(torch.load(file, map_location=self.device, weights_only=True))
        curve, _ = fine_tune(model, train, task.validation, frozen=run["frozen"], reinit=run["reinit"], **options)
        return model, curve

    def base_file(self, run: dict) -> Path:
        return self.bases / f"base-without-{''.join(map(str, run['new']))}-{run['seed']}-{run['learning_rate']:g}.pt"


def carry_out(runs: list[dict], finished: dict[str, dict], jobs: int, options: tuple, done) -> None:
    """Carry out those of `runs` that are not `finished`, base models first; call done(run) as each ends.

    `jobs` processes of one thread each: networks as small as this one gain little from a second core.
    """
    pending = [run for run in runs if key(run) not in finished]
    pending.sort(key=lambda run: run["new"])  # so that a process rarely changes its tasks
    if not pending:
        return
    with multiprocessing.get_context("spawn").Pool(jobs, begin, options) as pool, \
            tqdm(total=len(pending), desc="study", unit="run", disable=None) as bar:
        for base in (True, False):
            part = [run for run in pending if (run["model"] == "base") == base]
            for run in pool.imap_unordered(carry_out_one, part):
                done(run)
                bar.update()


def begin(*options) -> None:
    """In each process of the pool: one thread, and Ctrl-C left to the parent, which ends its processes."""
    global worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own lock is a semaphore, which would be left over when the pool ends
    worker = Worker(*options)


def carry_out_one(run: dict) -> dict:
    return run | {"outcome": worker.run(run)}


def interval(values: list[float]) -> dict:
    """Mean, standard deviation, and 95 % confidence interval and two-sided p of "the mean is 0" (Student's t)."""
    test = stats.ttest_1samp(values, 0)
    low, high = test.confidence_interval(0.95)
    return {"n": len(values), "mean": float(np.mean(values)), "sd": float(np.std(values, ddof=1)),
            "low": float(low), "high": float(high), "p": float(test.pvalue)}


class Runs:
    """The finished runs, to be asked for."""

    def __init__(self, finished: dict[str, dict], rate: float):
        self.finished, self.rate = finished, rate

    def outcomes(self, model: str, seeds, what: str = "test_accuracy", **wanted) -> list:
        runs = (setting(model, seed, **{"rate": self.rate, **wanted}) for seed in seeds)
        return [self.finished[key(run)]["outcome"][what] for run in runs]

    def gains(self, seeds, **wanted) -> list[float]:
        """Test accuracy of fine-tuned less fresh, for each seed."""
        return minus(self.outcomes("finetune", seeds, **wanted), self.outcomes("fresh", seeds, **wanted))

    def pair_gains(self, new: tuple[int, ...], count: int | None, repetitions=(0,)) -> list[float]:
        return self.gains([pair_seed(new, repetition) for repetition in repetitions], new=new, per_digit=count)


def minus(first: list[float], second: list[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=True)]


def bootstrap(differences: np.ndarray, samples: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean of float [seeds, images], both seeds and images drawn again (percentiles)."""
    generator = np.random.default_rng(0)
    seeds, images = (generator.multinomial(n, np.full(n, 1 / n), samples) / n for n in differences.shape)
    low, high = np.percentile(((seeds @ differences) * images).sum(1), (2.5, 97.5))
    return float(low), float(high)


def summarise(runs: Runs, seeds: int, pairs: int, test_images: int) -> dict:
    """The parts of the summary. Accuracies and their differences are fractions; differences are paired by seed."""
    every = range(seeds)

    def accuracy(model: str, **wanted) -> list[float]:
        return runs.outcomes(model, every, **wanted)

    wrong = {model: np.zeros((seeds, test_images)) for model in ("finetune", "fresh")}
    for model, table in wrong.items():
        for row, images in zip(table, runs.outcomes(model, every, "wrong")):
            row[images] = 1
    cuts = {(count, cut): accuracy("fresh" if cut == (0, 4) else "finetune", per_digit=count, cut=cut)
            for count in (None, FEW) for cut in CUTS}
    return {
        "seeds": {**{model: interval(accuracy(model)) for model in ("base", "finetune", "fresh")},
                  "difference": interval(runs.gains(every)),
                  "difference_over_seeds_and_images": bootstrap(wrong["fresh"] - wrong["finetune"])},
        "labels": [
            {"per_digit": count, **{model: interval(accuracy(model, per_digit=count))
                                    for model in ("finetune", "fresh", "untrained")},
             **{f"{first}_minus_{second}": interval(minus(accuracy(first, per_digit=count),
                                                          accuracy(second, per_digit=count)))
                for first, second in combinations(("finetune", "untrained", "fresh"), 2)},
             "lowest_train_accuracy": min(min(runs.outcomes(model, every, "train_accuracy", per_digit=count))
                                          for model in ("finetune", "fresh", "untrained"))}
            for count in LABELS],
        "cuts": [{"per_digit": count, "frozen": cut[0], "reinit": cut[1], **interval(values),
                  "minus_default": interval(minus(values, cuts[count, CUT])) if cut != CUT else None}
                 for (count, cut), values in cuts.items()],
        "pairs": {"all" if count is None else str(count): summarise_pairs(runs, seeds, pairs, count)
                  for count in (FEW, None)},
        "extremes": [{"new": list(new), "first_gain": runs.pair_gains(new, FEW)[0],
                      "again": interval(runs.pair_gains(new, FEW, AGAIN))} for new in extreme_pairs(runs, pairs)],
        "rates": [{"learning_rate": rate, **{
            model: float(np.mean(runs.outcomes(model, range(min(3, seeds)), "validation_accuracy", rate=rate)))
            for model in ("base", "finetune", "fresh")}} for rate in RATES],
    }


def summarise_pairs(runs: Runs, seeds: int, pairs: int, count: int | None) -> dict:
    """The gain of transfer (fine-tuned less fresh) over the choices of new digits, each with seed 0.

    The pairs overlap, so they are described and not tested. What is uncertain about their mean is the noise of each
    pair's one seed: `within_sd`, pooled over the pairs that were repeated with other seeds.
    """
    gains = {new: runs.pair_gains(new, count)[0] for new in spread(pairs)}
    values = list(gains.values())
    repeated = [runs.pair_gains(new, count, range(3)) for new in spread(pairs)[REPEATED::REPEATED]]
    repeated.append(runs.gains(range(seeds), per_digit=count))
    freedom = sum(len(group) - 1 for group in repeated)
    within = sum((len(group) - 1) * np.var(group, ddof=1) for group in repeated) / freedom
    margin = stats.t.ppf(0.975, freedom) * math.sqrt(within / len(values))
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    return {"n": len(values), "mean": mean, "low": float(mean - margin), "high": float(mean + margin), "sd": sd,
            "within_sd": math.sqrt(within), "between_sd": math.sqrt(max(0, sd**2 - within)),
            "lowest": min(values), "highest": max(values), "positive": sum(value > 0 for value in values),
            "negative": sum(value < 0 for value in values),
            "rank_of_exercise": 1 + sum(value > gains[EXERCISE] for value in values),
            "by_digit": [float(np.mean([gain for new, gain in gains.items() if digit in new] or [math.nan]))
                         for digit in range(10)],
            "gains": [{"new": list(new), "gain": gain} for new, gain in gains.items()]}


def extreme_pairs(runs: Runs, pairs: int) -> list[tuple[int, ...]]:
    """The pairs whose gain with few labels was smallest and largest."""
    ranked = sorted(spread(pairs), key=lambda new: runs.pair_gains(new, FEW)[0])
    return [ranked[0], ranked[-1]]


def read_runs(path: Path, hyperparameters: dict) -> dict[str, dict]:
    """The finished runs in `path`, by their settings. Raises UserError if they are of another study."""
    if not path.exists():
        return {}
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        finished = {key(run): run for run in study["runs"]}
        if study["hyperparameters"] == hyperparameters:
            return finished
        reason = f"holds a study with {study['hyperparameters']}"
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = "is not a study's results"
    raise UserError(f"{path} {reason}: give another --out, or delete it to begin anew")


def to_json(study: dict, finished: dict[str, dict]) -> bytes:
    """A run a line, in the order of their settings: whether the study was stopped on the way leaves no trace."""
    rows = ",\n".join(json.dumps(finished[name]) for name in sorted(finished))
    return (json.dumps(study | {"runs": []}, indent=1)[:-3] + f"\n{rows}\n]}}\n").encode()


def main():
    flags = cli.training_parser(__doc__)
    flags.add_argument("--seeds", type=cli.whole(3), default=10, metavar="N",
                       help="seeds of all parts but pairs (default: %(default)s)")
    flags.add_argument("--pairs", type=cli.whole(2), default=120, metavar="N",
                       help="how many of the 120 choices of three new digits (default: %(default)s)")
    flags.add_argument("--jobs", type=cli.whole(1), default=os.cpu_count(), metavar="N",
                       help="processes of one thread each (default: one a core, %(default)s)")
    args = cli.parse(flags)
    if args.seed:
        raise UserError("--seed: the study takes the seeds 0 to N-1; say how many with --seeds N")
    hyperparameters = {name: getattr(args, name) for name in ("epochs", "batch_size", "learning_rate")}
    load_mnist(args.data_dir, train=True)  # damaged files are found here, by one process
    test = load_mnist(args.data_dir, train=False)
    path = args.out / "results" / "study.json"
    finished = read_runs(path, hyperparameters)
    study = {"experiment": "study", "seeds": args.seeds, "pairs": args.pairs, "hyperparameters": hyperparameters,
             "environment": environment(args.device)}

    def done(run: dict) -> None:
        finished[key(run)] = run
        save(path, to_json(study, finished))

    runs, rate = Runs(finished, args.learning_rate), args.learning_rate
    options = (args.data_dir, args.out / "checkpoints" / "study", args.epochs, args.batch_size, args.device)
    carry_out(plan(args.seeds, args.pairs, rate), finished, args.jobs, options, done)
    again = [pair(new, repetition, rate, [FEW]) for new in extreme_pairs(runs, args.pairs) for repetition in AGAIN]
    carry_out(sum(again, []), finished, args.jobs, options, done)
    images = sum(int((test.labels == digit).sum()) for digit in EXERCISE)
    study["summary"] = summarise(runs, args.seeds, args.pairs, images)
    save(path, to_json(study, finished))
    from experiments.figures import cuts_figure, labels_figure, pairs_figure, to_png
    for name, figure in (("labels", labels_figure), ("cuts", cuts_figure), ("pairs", pairs_figure)):
        save(args.out / "plots" / f"{name}.png", to_png(figure(study["summary"])))
    print(f"wrote results/study.json and plots/labels.png, cuts.png and pairs.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
