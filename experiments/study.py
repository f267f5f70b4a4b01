"""The runs behind the report's conclusions: many seeds, few labels, every cut, every choice of new digits.

    python -m experiments.study                         # about two hours on 2 cores
    python -m experiments.study --choices 12 --seeds 3 --out small

Each run of the plan is one line of results/study.jsonl, appended as soon as it is finished, and never trained again: a
study that is stopped loses what was being trained and continues from there. Runs that share a base model are a group;
one process trains the base (once more, where the study was stopped within the group) and then each of them. The runs at
the best settings follow when these are known. What the runs say is for experiments.summary. Runs of another network
are other runs; for a new study after any other change of the code, name another folder with --out.
"""

import concurrent.futures
import json
import multiprocessing
import os
import signal
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

import cli
from data import MEAN, STD, Split, Task, few_labels, load_task, select_digits
from experiments.plan import CHOICES, EXERCISE, MACHINE, SETTINGS, SHIFT, SHIFTS, key, plan, setting
from finetune import fine_tune
from model import FRESH_SEED, build_model
from results import environment
from training import evaluate, fit, predict

# One run


def train(run: dict, task: Task, base: nn.Sequential | None, **options) -> tuple[nn.Sequential, list[dict]]:
    """Train the model of `run` on all training images of `task`; return it and its curve.

    `base` is what a fine-tuned model starts from. `options` go to `fit` or `fine_tune`.
    """
    options |= {name: run[name] for name in ("epochs", "batch_size", "learning_rate", "seed")}
    if run["model"] in ("base", "fresh"):
        model = build_model(run["seed"] + (FRESH_SEED if run["model"] == "fresh" else 0)).to(task.train.labels.device)
        return model, fit(model, task.train, task.validation, **options)
    if run["model"] == "untrained":
        base = build_model(run["seed"])  # the base before its training
    return fine_tune(base, task.train, task.validation, frozen=run["frozen"], reinit=run["reinit"], **options)


def shift_images(split: Split) -> Split:
    """Every image in its 25 shifts by up to two pixels, background moving in: float32 [25 N, 1, 28, 28]."""
    padded = F.pad(split.images, (SHIFT, SHIFT, SHIFT, SHIFT), value=-MEAN / STD)
    height, width = split.images.shape[2:]
    places = range(2 * SHIFT + 1)
    images = torch.cat([padded[:, :, top : top + height, left : left + width] for top in places for left in places])
    return Split(images, split.labels.repeat(SHIFTS))


def carry_out(run: dict, task: Task, base: nn.Sequential | None) -> tuple[nn.Sequential, dict]:
    """Train the model of `run` on its few labels or on all; return it and the run with its outcome."""
    if run["per_digit"] is not None:
        task = task._replace(train=few_labels(task.train, run["per_digit"], run["seed"]))
    if run["shifted"]:
        task = task._replace(train=shift_images(task.train))
    model, curve = train(run, task, base, rows=1)
    outcome = {"train_accuracy": evaluate(model, task.train)[1],
               "validation_accuracy": curve[-1]["validation_accuracy"],
               "test_accuracy": evaluate(model, task.test)[1]}
    if tuple(run["new"]) == EXERCISE:  # elsewhere no difference is quoted for a single choice
        wrong = predict(model, task.test.images) != task.test.labels
        outcome["wrong"] = wrong.nonzero().squeeze(1).tolist()
    return model, run | {"outcome": outcome}


# All runs


def train_group(runs: list[dict], path: Path, device: str) -> None:
    """In a process of the study: train the base model that `runs` share, and each run's own model, and append them."""
    new = tuple(runs[0]["new"])
    old = tuple(digit for digit in range(10) if digit not in new)
    old_task, new_task = (Task(digits, *(select_digits(split, digits) for split in _mnist[1:]))
                          for digits in (old, new))
    here = environment(device)
    where = {name: here[name] for name in MACHINE}
    base_run = setting("base", runs[0]["seed"], new=new)
    base, finished = carry_out(base_run, old_task, None)
    if base_run in runs:
        append(finished | where, path)
    for run in runs:
        if run != base_run:
            _, finished = carry_out(run, old_task if run["model"] == "base" else new_task, base)
            append(finished | where, path)


def append(run: dict, path: Path) -> None:
    """One line in one write, under the lock of the counter that the processes share."""
    with _finished.get_lock(), path.open("ab", buffering=0) as file:
        file.write((json.dumps(run) + "\n").encode())
        os.fsync(file.fileno())
        _finished.value += 1


def begin(data_dir: Path, device: str, finished: Synchronized) -> None:
    """In each process: MNIST, loaded once; one thread; Ctrl-C is for the process that started it."""
    global _mnist, _finished
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _mnist, _finished = load_task(data_dir, "0-9", device), finished


def train_all(runs: list[dict], path: Path, jobs: int, data_dir: Path, device: str) -> None:
    """Train `runs`, group by group, and append each to `path` when it is finished.

    `jobs` processes of one thread each: networks as small as this one gain little from a second core.
    """
    groups = {}
    for run in runs:
        groups.setdefault((*run["new"], run["seed"]), []).append(run)
    context = multiprocessing.get_context("spawn")
    finished = context.Value("i", 0)
    executor = concurrent.futures.ProcessPoolExecutor(jobs, context, begin, (data_dir, device, finished))
    try:
        with tqdm(total=len(runs), desc="study", unit="run", disable=None) as bar:
            waiting = {executor.submit(train_group, group, path, device) for group in groups.values()}
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, timeout=1)
                bar.update(finished.value - bar.n)
                for future in done:
                    future.result()
    finally:
        for process in multiprocessing.active_children():  # idle, or the study was stopped
            process.terminate()
        executor.shutdown(cancel_futures=True)


# The file


def read_runs(path: Path) -> list[dict]:
    """The finished runs in `path`. Skips other lines, such as one that was cut short, and prints how many."""
    runs, others = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            run = json.loads(line)
        except ValueError:
            run = None
        if isinstance(run, dict) and {*SETTINGS, "outcome", *MACHINE} <= run.keys():
            runs.append(run)
        else:
            others += 1
    if others:
        print(f"passed over {others} of the lines of {path}: no finished runs")
    return runs


def outcomes_by_key(runs: list[dict]) -> dict[str, dict]:
    return {key(run): run["outcome"] for run in runs}


def main():
    flags = cli.mnist_parser(__doc__)
    flags.add_argument("--seeds", type=cli.whole(3), default=10, metavar="N",
                       help="seeds of the parts about 7-9; three times as many at ten labels (default: %(default)s)")
    flags.add_argument("--choices", type=cli.whole(2), default=len(CHOICES), metavar="N",
                       help="how many of the 120 choices of three new digits (default: %(default)s)")
    flags.add_argument("--jobs", type=cli.whole(1), default=torch.get_num_threads(), metavar="N",
                       help="processes of one thread each (default: %(default)s)")
    args = cli.parse(flags)
    load_task(args.data_dir, "7-9")  # an error in the data is found here, as one line
    path = args.out / "results" / "study.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab+") as file:  # begins a new line where a kill left half of one
        file.seek(max(0, file.tell() - 1))
        if file.read() not in (b"", b"\n"):
            file.write(b"\n")
    outcomes = outcomes_by_key(read_runs(path))
    while runs := [run for run in plan(args.seeds, args.choices, outcomes) if key(run) not in outcomes]:
        train_all(runs, path, args.jobs, args.data_dir, args.device)
        outcomes = outcomes_by_key(read_runs(path))
    print(f"all runs are finished; now: python -m experiments.summary --out {args.out}")


if __name__ == "__main__":
    cli.run(main)
