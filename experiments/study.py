"""Train the runs of all questions: many seeds, few labels, every cut, every choice of new digits.

    python -m experiments.study                         # two to three hours on 2 cores
    python -m experiments.study --choices 12 --seeds 3 --out small

Each run is one line of results/study.jsonl, appended as soon as it is finished, and never trained again: a study that
is stopped loses what was being trained and continues from there. Runs that share a base model are a group; one process
trains the base (once more, where the study was stopped within the group) and then each of them. Runs of another network
are other runs; for a new study after any other change of the code, name another folder with --out.
"""

import concurrent.futures
import json
import multiprocessing
import os
import signal
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import cli
from data import Task, load_task, select_digits
from experiments.evidence import MODULES
from experiments.runs import CHOICES, MACHINE, OF_OLD_DIGITS, SEEDS, Study, key, read_runs, setting, train_run
from results import environment


def plan_runs(seeds: int, choices: int, study: Study) -> list[dict]:
    """Every run of every question, each once, and the base models that they start from.

    Runs at the best settings are there once `study` has those that choose them.
    """
    runs = [run for module in MODULES for run in module.plan(SEEDS[:seeds], spread_choices(choices), study)]
    bases = [setting("base", new=tuple(run["new"])) | {"seed": run["seed"]} for run in runs]
    return list({(key(run), run["seed"]): run for run in runs + bases}.values())


def missing_runs(seeds: int, choices: int, study: Study) -> list[dict]:
    return [run for run in plan_runs(seeds, choices, study) if not study.has(run)]


def spread_choices(number: int) -> list[tuple[int, ...]]:
    """So many of the choices of three new digits, evenly spread, the exercise's own first."""
    return [CHOICES[int(place)] for place in np.linspace(0, len(CHOICES) - 1, min(number, len(CHOICES))).round()]


def train_group(runs: list[dict], path: Path, device: str) -> None:
    """In a process of the study: train the base models that `runs` share, and each run's own model, and append them."""
    new = tuple(runs[0]["new"])
    old = tuple(digit for digit in range(10) if digit not in new)
    old_task, new_task = (Task(digits, *(select_digits(split, digits) for split in _mnist[1:]))
                          for digits in (old, new))
    here = environment(device)
    where = {name: here[name] for name in MACHINE}
    models = ["base", "shuffled_base"] if any(run["model"] == "shuffled" for run in runs) else ["base"]
    shared = [setting(model, new=new) | {"seed": runs[0]["seed"]} for model in models]
    bases = {}
    for run in shared:
        bases[run["model"]], finished = train_run(run, old_task, None)
        if run in runs:
            append(finished | where, path)
    for run in (run for run in runs if run not in shared):
        task = old_task if run["model"] in OF_OLD_DIGITS else new_task
        _, finished = train_run(run, task, bases["shuffled_base" if run["model"] == "shuffled" else "base"])
        append(finished | where, path)


def append(run: dict, path: Path) -> None:
    """One line in one write, under the lock of the counter that the processes share."""
    with _finished.get_lock(), path.open("ab", buffering=0) as file:
        file.write((json.dumps(run) + "\n").encode())
        os.fsync(file.fileno())
        _finished.value += 1


def start_process(data_dir: Path, device: str, finished: Synchronized) -> None:
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
    executor = concurrent.futures.ProcessPoolExecutor(jobs, context, start_process, (data_dir, device, finished))
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


def main():
    flags = cli.mnist_parser(__doc__)
    flags.add_argument("--seeds", type=int, choices=range(2, len(SEEDS) + 1), default=len(SEEDS), metavar="N",
                       help="seeds of everything about 7-9, 2 to %(default)s (default: %(default)s)")
    flags.add_argument("--choices", type=cli.whole(2), default=len(CHOICES), metavar="N",
                       help="how many of the 120 choices of three new digits (default: %(default)s)")
    flags.add_argument("--jobs", type=cli.whole(1), default=torch.get_num_threads(), metavar="N",
                       help="processes of one thread each (default: %(default)s)")
    args = cli.parse(flags)
    load_task(args.data_dir, "7-9")  # an error in the data is found here, as one line
    path = args.out / "results" / "study.jsonl"
    with path.open("ab+") as file:  # begins a new line where a kill left half of one
        file.seek(max(0, file.tell() - 1))
        if file.read() not in (b"", b"\n"):
            file.write(b"\n")
    while missing := missing_runs(args.seeds, args.choices, Study(read_runs(path))):
        train_all(missing, path, args.jobs, args.data_dir, args.device)
    print("all runs are finished; now: python -m experiments.evidence, with the same --out")


if __name__ == "__main__":
    cli.run(main)
