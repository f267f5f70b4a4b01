"""The evidence behind the report's conclusions: many seeds, few labels, every place to cut.

    python study.py                 # about a quarter of an hour on 2 cores

Every run is one seed of one setting. Its outcome stands in results/study.json as soon as it is known and is not
computed again: a study that was stopped goes on where it was, a finished one only draws its figures anew. To repeat
it from nothing, delete the file or give another --out. The parts:

    seeds     base, fine-tuned and fresh at the defaults
    labels    fine-tuned, fresh, and fine-tuned from a base that was never trained, with few labels per digit
    cuts      every (frozen, reinit) that the network allows, with all labels and with few
    rates     learning rates, compared on validation alone: where the default comes from
"""

import runs  # first, so that Ctrl-C during the slow imports is one line too

import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import torch

from data import Split, Task, load_task, parse_digits
from errors import UserError
from training import evaluate, fine_tune, fit

BASE_DIGITS, NEW_DIGITS = parse_digits("0-6"), parse_digits("7-9")
FROZEN, REINIT = 1, 2  # finetune.py's defaults
LABELS = (5, 10, 30, 100, 300, 1000, None)  # per digit; None: all
FEW = 10  # labels per digit in the second half of part `cuts`
CUTS = [(frozen, reinit) for frozen in range(4) for reinit in range(5 - frozen)]  # of four blocks
RATES = (0.001, 0.002, 0.004, 0.008, 0.016)


def plan(seeds: int) -> list[dict]:
    """Every run of the study: the settings that tell it from all others."""
    half = max(2, seeds // 2)  # of the seeds, for what costs most and is read as a map
    return (
        [{"part": "seeds", "seed": seed} for seed in range(seeds)]
        + [{"part": "labels", "seed": seed, "model": model, "per_digit": count}
           for seed in range(seeds) for count in LABELS for model in ("finetune", "fresh", "untrained")]
        + [{"part": "cuts", "seed": seed, "frozen": frozen, "reinit": reinit, "per_digit": count}
           for count, number in ((None, half), (FEW, seeds)) for seed in range(number) for frozen, reinit in CUTS]
        + [{"part": "rates", "seed": seed, "learning_rate": rate} for seed in range(min(3, seeds)) for rate in RATES]
    )


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


def epochs_for(images: int, task: Task, epochs: int, batch_size: int) -> int:
    """As many epochs over `images` as make at least the steps that all labels take in `epochs`."""
    return math.ceil(epochs * max(1, len(task.train.labels) // batch_size) / max(1, images // batch_size))


class Worker:
    """What one process needs to carry out runs: both tasks in memory, options, and the base models' folder."""

    def __init__(self, data_dir: str, checkpoints: Path, options: dict, device: torch.device):
        self.old, self.new = (load_task(data_dir, digits, device) for digits in (BASE_DIGITS, NEW_DIGITS))
        self.checkpoints, self.options, self.device = checkpoints, options, device

    def run(self, settings: dict) -> dict:
        return getattr(self, f"_{settings['part']}")(**{key: settings[key] for key in settings if key != "part"})

    def base(self, seed: int) -> torch.nn.Sequential:
        """The base model of `seed`, as part `seeds` left it."""
        model = runs.new_model(seed, self.device)
        model.load_state_dict(torch.load(self.checkpoints / f"base-{seed}.pt", map_location=self.device,
                                         weights_only=True))
        return model

    def train_base(self, seed: int, **options) -> tuple[torch.nn.Sequential, dict]:
        model = runs.new_model(seed, self.device)
        curve = fit(model, self.old.train, self.old.validation, seed=seed, evaluations_per_epoch=0,
                    **{**self.options, **options})
        return model, self._outcome(model, curve, self.old)

    def train_new(self, model: torch.nn.Sequential | None, seed: int, per_digit: int | None = None,
                  frozen: int = FROZEN, reinit: int = REINIT, **options) -> dict:
        """Train on the new digits: fine-tune `model`, or a fresh one (None), with `per_digit` labels."""
        train = few_labels(self.new.train, per_digit, seed)
        options = {**self.options, "seed": seed, "evaluations_per_epoch": 0, **options}
        options["epochs"] = epochs_for(len(train.labels), self.new, options["epochs"], options["batch_size"])
        if model is None:
            model = runs.new_model(seed, self.device)
            curve = fit(model, train, self.new.validation, **options)
        else:
            curve, _ = fine_tune(model, train, self.new.validation, frozen=frozen, reinit=reinit, **options)
        return self._outcome(model, curve, self.new)

    def _outcome(self, model: torch.nn.Sequential, curve: list[dict], task: Task) -> dict:
        return {"test_accuracy": evaluate(model, task.test)[1],
                "validation_accuracy": curve[-1]["validation_accuracy"],
                "train_accuracy": curve[-1]["train_accuracy"], "training_seconds": curve[-1]["seconds"]}

    def _seeds(self, seed: int) -> dict:
        base, outcome = self.train_base(seed)
        runs.save(self.checkpoints, {f"base-{seed}.pt": runs.to_checkpoint(base.state_dict())})
        before = outcome["test_accuracy"]
        outcomes = {"base": outcome}
        for name in ("finetune", "fresh") if seed % 2 else ("fresh", "finetune"):  # in turns: both go first as often
            outcomes[name] = self.train_new(base if name == "finetune" else None, seed)
        return outcomes | {"old_digits": {"before": before, "after": evaluate(base, self.old.test)[1]}}

    def _labels(self, seed: int, model: str, per_digit: int | None) -> dict:
        start = {"finetune": lambda: self.base(seed), "fresh": lambda: None,
                 "untrained": lambda: runs.new_model(10_000 + seed, self.device)}  # not the draw of the final part
        return self.train_new(start[model](), seed, per_digit)

    def _cuts(self, seed: int, frozen: int, reinit: int, per_digit: int | None) -> dict:
        return self.train_new(self.base(seed), seed, per_digit, frozen, reinit)

    def _rates(self, seed: int, learning_rate: float) -> dict:
        base, outcome = self.train_base(seed, learning_rate=learning_rate)
        outcomes = {"base": outcome, "finetune": self.train_new(base, seed, learning_rate=learning_rate),
                    "fresh": self.train_new(None, seed, learning_rate=learning_rate)}
        return {name: outcome["validation_accuracy"] for name, outcome in outcomes.items()}


def carry_out(pending: list[dict], args, done) -> None:
    """Run all of `pending`; call done(settings, outcome) as each ends.

    Part `seeds` runs alone with every core, because its times are quoted. The rest is spread over `args.jobs`
    processes of one thread each: networks as small as this one gain little from a second core.
    """
    common = args.data_dir, Path(args.out, "checkpoints", "study"), args.options, args.device
    needed = {run["seed"] for run in pending if run["part"] in ("labels", "cuts")}
    missing = [seed for seed in sorted(needed) if not (common[1] / f"base-{seed}.pt").exists()]
    seeds = {run["seed"]: run for run in pending if run["part"] == "seeds"}
    if seeds or missing:
        worker = Worker(*common)
        for seed in sorted(seeds.keys() | set(missing)):
            outcome = worker.run({"part": "seeds", "seed": seed})
            if seed in seeds:
                done(seeds[seed], outcome)
    rest = [run for run in pending if run["part"] != "seeds"]
    rest.sort(key=lambda run: run["part"] != "rates")  # the longest first, so that no core waits at the end
    if not rest:
        return
    pool = ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn"), _begin, common)
    try:
        futures = {pool.submit(_run, run): run for run in rest}
        for future in as_completed(futures):
            done(futures[future], future.result())
    except BaseException:
        for process in list(pool._processes.values()):  # a stop is a stop: nothing that runs is of use any more
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(*common) -> None:
    """In each process of the pool: one thread, Ctrl-C left to the parent, and an end when the parent ends."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(1)
    _worker = Worker(*common)


def _run(settings: dict) -> dict:
    return _worker.run(settings)


def interval(values: list[float]) -> dict:
    """Mean, standard deviation, and the 95 % confidence interval and two-sided p of 'the mean is 0' (Student's t)."""
    n, mean, deviation = len(values), float(np.mean(values)), float(np.std(values, ddof=1))
    error = deviation / math.sqrt(n)
    # With t = sqrt(n - 1) tan(angle), P(|T| < t) is the integral of cos(angle) ** (n - 2).
    angles = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angles) ** (n - 2)
    inside = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    inside /= inside[-1]
    t = math.sqrt(n - 1) * math.tan(np.interp(0.95, inside, angles))
    p = 1 - float(np.interp(math.atan(abs(mean) / error / math.sqrt(n - 1)), angles, inside)) if error else float(mean == 0)
    return {"n": n, "mean": mean, "sd": deviation, "low": mean - t * error, "high": mean + t * error, "p": p}


def summarise(finished: list[dict]) -> dict:
    """What the finished runs say: `finished` are runs of `plan`, each with its `outcome`; incomplete parts are left out."""
    def values(key: str = "test_accuracy", **wanted) -> list[float]:
        return [run["outcome"][key] for run in sorted(finished, key=lambda run: run["seed"])
                if all(run.get(name, ...) == value for name, value in wanted.items())]

    def paired(first: list[float], second: list[float]) -> dict:
        return interval([a - b for a, b in zip(first, second, strict=True)])

    seeds = {name: {key: [outcome[key] for outcome in values(name, part="seeds")]
                    for key in ("test_accuracy", "training_seconds")} for name in ("base", "finetune", "fresh")}
    accuracy, seconds = ({name: seeds[name][key] for name in seeds} for key in ("test_accuracy", "training_seconds"))
    old = values("old_digits", part="seeds")
    return {
        "seeds": {
            **{name: {key: interval(series) for key, series in seeds[name].items()} for name in seeds},
            "difference": {"test_accuracy": paired(accuracy["finetune"], accuracy["fresh"]),
                           "training_seconds": paired(seconds["finetune"], seconds["fresh"])},
            "time_ratio": interval([a / b for a, b in zip(seconds["finetune"], seconds["fresh"])]),
            "old_digits": {when: interval([outcome[when] for outcome in old]) for when in ("before", "after")},
        },
        "labels": [
            {"per_digit": count, **{name: interval(values(part="labels", model=name, per_digit=count))
                                    for name in ("finetune", "fresh", "untrained")},
             **{f"finetune_minus_{other}": paired(values(part="labels", model="finetune", per_digit=count),
                                                  values(part="labels", model=other, per_digit=count))
                for other in ("fresh", "untrained")},
             "lowest_train_accuracy": min(values("train_accuracy", part="labels", per_digit=count))}
            for count in LABELS],
        "cuts": [
            {"per_digit": count, "frozen": frozen, "reinit": reinit,
             **interval(values(part="cuts", frozen=frozen, reinit=reinit, per_digit=count)),
             "seconds": float(np.median(values("training_seconds", part="cuts", frozen=frozen, reinit=reinit,
                                               per_digit=count)))}
            for count in (None, FEW) for frozen, reinit in CUTS],
        "rates": [{"learning_rate": rate, **{name: float(np.mean(values(name, part="rates", learning_rate=rate)))
                                             for name in ("base", "finetune", "fresh")}} for rate in RATES],
    }


def print_table(summary: dict) -> None:
    def show(name: str, value: dict) -> None:
        print(f"  {name:<28} {100 * value['mean']:7.3f} %   sd {100 * value['sd']:.3f}   "
              f"95 % interval [{100 * value['low']:.3f}, {100 * value['high']:.3f}]")

    seeds = summary["seeds"]
    print(f"test accuracy over {seeds['base']['test_accuracy']['n']} seeds")
    for name in ("base", "finetune", "fresh"):
        show(name, seeds[name]["test_accuracy"])
    show("finetune - fresh (paired)", seeds["difference"]["test_accuracy"])
    print(f"  p = {seeds['difference']['test_accuracy']['p']:.3f}; training time, fine-tuned / fresh: "
          f"{seeds['time_ratio']['mean']:.2f}\ntest accuracy with few labels per digit of 7-9")
    for row in summary["labels"]:
        count = "all" if row["per_digit"] is None else row["per_digit"]
        print(f"  {count:>5}: " + ", ".join(f"{name} {row[name]['mean']:.2%}" for name in ("finetune", "fresh", "untrained"))
              + f"; finetune - fresh {100 * row['finetune_minus_fresh']['mean']:+.2f} (p = {row['finetune_minus_fresh']['p']:.3f})")


def main():
    flags = runs.parser(__doc__)
    flags.add_argument("--seeds", type=runs.whole(3), default=10, metavar="N", help="seeds (default: %(default)s)")
    flags.add_argument("--jobs", type=runs.whole(1), default=os.cpu_count(), metavar="N",
                       help="processes of one thread each (default: one a core, %(default)s)")
    args = runs.start(flags)
    args.options = {key: value for key, value in runs.hyperparameters(args).items() if key != "seed"}
    if args.seed:
        raise UserError("--seed: the study takes the seeds 0 to N-1; say how many with --seeds N")
    new = load_task(args.data_dir, NEW_DIGITS)  # bad data are said here, by one process
    study = {"experiment": "study", "dataset": {"name": new.name, "verified": new.verified},
             "hyperparameters": args.options, "seeds": args.seeds,
             "steps_with_few_labels": args.epochs * max(1, len(new.train.labels) // args.batch_size)}
    finished = earlier_runs(Path(args.out, "results", "study.json"), study)
    study["environment"] = runs.environment(args.device)
    order = [json.dumps(run) for run in plan(args.seeds)]
    pending = [run for run in plan(args.seeds) if json.dumps(run) not in finished]
    began, shown = time.monotonic(), sys.stderr.isatty()

    def write() -> None:
        study["runs"] = [finished[key] for key in sorted(finished, key=order.index)]
        runs.save(args.out, {"results/study.json": runs.to_json(study)})

    def done(settings: dict, outcome: dict) -> None:
        finished[json.dumps(settings)] = settings | {"outcome": outcome}
        write()
        new_ones = len(finished) - len(order) + len(pending)
        left = (time.monotonic() - began) / new_ones * (len(pending) - new_ones)
        if shown:
            sys.stderr.write(f"\r\033[K  run {len(finished)} of {len(order)}, about {left / 60:.0f} min left")
            sys.stderr.flush()
        elif len(finished) % 50 == 0:
            print(f"run {len(finished)} of {len(order)}", flush=True)

    if len(order) > len(pending):
        print(f"{len(order) - len(pending)} of {len(order)} runs are in results/study.json already", flush=True)
    carry_out(pending, args, done)
    if shown and pending:
        sys.stderr.write("\r\033[K")
    study["summary"] = summarise(list(finished.values()))
    write()
    from plotting import cuts_figure, few_labels_figure, seeds_figure
    runs.save(args.out, {"plots/seeds.png": runs.to_png(seeds_figure(study)),
                         "plots/few_labels.png": runs.to_png(few_labels_figure(study)),
                         "plots/cuts.png": runs.to_png(cuts_figure(study))})
    print_table(study["summary"])


def earlier_runs(path: Path, study: dict) -> dict[str, dict]:
    """The finished runs in `path`, by their settings. Raises UserError if they are of another study than `study`."""
    if not path.exists():
        return {}
    mend = f"delete {path} to begin anew, or give another --out"
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        same = all(earlier[key] == study[key] for key in ("dataset", "hyperparameters"))
        known = {json.dumps(run) for run in plan(max(study["seeds"], earlier["seeds"]))}
        finished = {json.dumps({key: run[key] for key in run if key != "outcome"}): run for run in earlier["runs"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is not a study's results: {mend}") from None
    if not same or not finished.keys() <= known:
        raise UserError(f"{path} holds a study with other settings or data: {mend}")
    wanted = {json.dumps(run) for run in plan(study["seeds"])}
    return {key: run for key, run in finished.items() if key in wanted}


if __name__ == "__main__":
    main()
