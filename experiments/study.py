"""The runs behind the report's conclusions: many seeds, few labels, every cut, every choice of new digits.

    python -m experiments.study                         # an hour and a half on 2 cores
    python -m experiments.study --choices 12 --seeds 5 --out small

What the runs say is for experiments.summary. A run is one model trained once, and one line of results/study.jsonl. Runs
that share a base model are a group: one process trains the base and all of them. What is in the file is never trained
again, so a study that was stopped goes on where it was. For a new study, after a change of the code too, name another
folder with --out.
"""

import concurrent.futures
import copy
import functools
import json
import math
import multiprocessing
import os
import signal
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

import cli
from data import MEAN, STD, Split, Task, UserError, load_mnist, select_digits, split_validation
from finetune import FROZEN, REINIT, fine_tune
from model import FRESH_SEED, build_model
from results import environment
from training import EVALUATION_BATCH, evaluate, fit

EXERCISE = (7, 8, 9)  # the new digits of the exercise
# Every choice of three new digits, in descending order, so that the exercise's own is number 0. Number n is trained
# with the seed n: with one seed for all, the noise of that seed would be the same everywhere and would not average out.
CHOICES = [tuple(sorted(new)) for new in combinations(range(9, -1, -1), 3)]
CHOICES_AT = ((10, False), (10, True), (None, False))  # labels per digit, shifted
REPEATED = 20  # every 20th choice is trained with three seeds: the noise within a choice
CUT = (FROZEN, REINIT)
FRESH_CUT = (0, 4)  # nothing frozen, all four blocks reinitialised
CUTS = [(frozen, reinit) for frozen in range(4) for reinit in range(5 - frozen)]
FEW = 10  # labels per digit where only one small number is tried
FEW_LABELS = ((5, False), (10, False), (100, False), (1000, False), (5, True), (10, True), (100, True))
STEPS = 200  # of every run with few labels, in whole epochs; fixed in a trial on validation images
STEPS_TRIED = (100, 200, 400)
STEPS_TRIED_AT = ((FEW, False), (FEW, True), (1000, False))
RATES = (0.002, 0.008, 0.032)  # with all labels
RATE_SEEDS = 3
TUNED = {10: 28, 100: 10}  # labels per digit: seeds; with fewer labels results scatter more
TUNED_RATES = (0.001, 0.002, 0.004, 0.008, 0.016)
SHIFT = 2  # pixels: shifted images are moved by up to two in each direction, which makes 25 of each
UNTRAINED_SEED = 2 * FRESH_SEED  # of base models that are never trained
SETTINGS = ("model", "new", "seed", "per_digit", "shifted", "frozen", "reinit", "epochs", "batch_size", "learning_rate")


# Which runs there are


def setting(model: str, seed: int, new: tuple[int, ...] = EXERCISE, per_digit: int | None = None, shifted: bool = False,
            cut: tuple[int, int] = CUT, rate: float = cli.LEARNING_RATE, steps: int = STEPS) -> dict:
    """What tells a run from all others. `per_digit`: labels per new digit (None: all)."""
    frozen, reinit = cut if model in ("finetune", "untrained") else FRESH_CUT
    epochs = cli.EPOCHS
    if per_digit is not None:
        images = per_digit * len(new) * ((2 * SHIFT + 1) ** 2 if shifted else 1)
        epochs = math.ceil(steps / max(1, images // cli.BATCH_SIZE))
    return {"model": model, "new": list(new), "seed": seed, "per_digit": per_digit, "shifted": shifted,
            "frozen": frozen, "reinit": reinit, "epochs": epochs, "batch_size": cli.BATCH_SIZE, "learning_rate": rate}


def key(run: dict) -> str:
    return json.dumps([run[name] for name in SETTINGS])


def both(seed: int, **settings) -> list[dict]:
    """The fine-tuned and the fresh model at the same settings."""
    return [setting("finetune", seed, **settings), setting("fresh", seed, **settings)]


def plan(seeds: int, choices: int) -> list[dict]:
    """Every run of a study of so many seeds and choices of new digits, each once."""
    runs = []
    for seed in range(seeds):
        runs += both(seed)
        for count, shifted in FEW_LABELS:
            runs += both(seed, per_digit=count, shifted=shifted)
        for shifted in (False, True):  # the control
            runs.append(setting("untrained", seed, per_digit=FEW, shifted=shifted))
        for cut in CUTS:
            if cut != FRESH_CUT:
                runs += [setting("finetune", seed, cut=cut), setting("finetune", seed, per_digit=FEW, cut=cut)]
        for count, shifted in STEPS_TRIED_AT:
            for steps in STEPS_TRIED:
                runs += both(seed, per_digit=count, shifted=shifted, steps=steps)
    for seed in range(min(RATE_SEEDS, seeds)):
        for rate in RATES:
            runs += [setting("base", seed, rate=rate), *both(seed, rate=rate)]
    for count in TUNED:
        for seed in range(tuned_seeds(count, seeds)):
            for rate in TUNED_RATES:
                runs += both(seed, per_digit=count, rate=rate) + both(seed, per_digit=count, rate=rate, shifted=True)
    for new in spread(choices):
        for seed in choice_seeds(new):
            for count, shifted in CHOICES_AT:
                runs += both(seed, new=new, per_digit=count, shifted=shifted)
    runs += [setting("base", run["seed"], tuple(run["new"])) for run in runs]  # what they start from
    return list({key(run): run for run in runs}.values())


def tuned_seeds(per_digit: int, seeds: int) -> int:
    """How many seeds are tuned in a study of `seeds` seeds: in proportion to the full study of ten."""
    return round(TUNED[per_digit] * seeds / 10)


def spread(choices: int) -> list[tuple[int, ...]]:
    """`choices` of the 120 choices of three new digits, evenly spread, the exercise's own first."""
    return [CHOICES[int(number)] for number in np.linspace(0, len(CHOICES) - 1, min(choices, len(CHOICES))).round()]


def choice_seeds(new: tuple[int, ...]) -> list[int]:
    """The seeds of a choice; the exercise's own is repeated with the seeds of the other parts already."""
    number = CHOICES.index(new)
    repeats = 3 if number % REPEATED == 0 and new != EXERCISE else 1
    return [number + len(CHOICES) * repeat for repeat in range(repeats)]


# Carrying them out


def few_labels(split: Split, per_digit: int | None, seed: int) -> Split:
    """`per_digit` images of each digit (None: all), drawn by `seed`; a larger draw contains every smaller one.

    Images stay in the order of the data set: `fit` takes every nth of them for its curve.
    """
    if per_digit is None:
        return split
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for digit in split.labels.unique():
        images = (split.labels == digit).nonzero().squeeze(1).cpu()
        chosen.append(images[torch.randperm(len(images), generator=generator)[:per_digit]])
    chosen = torch.cat(chosen).sort().values.to(split.labels.device)
    return Split(split.images[chosen], split.labels[chosen])


def shift_images(split: Split) -> Split:
    """Every image in its 25 shifts by up to two pixels, background moving in: float32 [25 N, 1, 28, 28]."""
    padded = F.pad(split.images, (SHIFT, SHIFT, SHIFT, SHIFT), value=-MEAN / STD)
    height, width = split.images.shape[2:]
    places = range(2 * SHIFT + 1)
    images = torch.cat([padded[:, :, top : top + height, left : left + width] for top in places for left in places])
    return Split(images, split.labels.repeat(len(places) ** 2))


@torch.inference_mode()
def wrong_images(model: nn.Module, split: Split) -> list[int]:
    """Places of the images that `model` gets wrong."""
    predicted = torch.cat([model.eval()(images).argmax(1) for images in split.images.split(EVALUATION_BATCH)])
    return (predicted != split.labels).nonzero().squeeze(1).tolist()


def train_group(runs: list[dict], data_dir: Path, device: torch.device) -> list[dict]:
    """Train the base model that `runs` share, then each run's own model; return the finished runs."""
    new = tuple(runs[0]["new"])
    old = tuple(digit for digit in range(10) if digit not in new)
    old_task, new_task = load_task(old, data_dir, device), load_task(new, data_dir, device)
    here = environment(device)
    where = {"torch": here["torch"], "threads": here["threads"],
             "cpu": here["cpu"] if device.type == "cpu" else f"{here['cpu']}; {here['device']}"}
    base_run = setting("base", runs[0]["seed"], new)
    base, base_outcome = train(base_run, old_task)
    finished = []
    for run in runs:
        if run == base_run:
            outcome = base_outcome
        else:
            _, outcome = train(run, old_task if run["model"] == "base" else new_task, base)
        finished.append({**run, "outcome": outcome, **where})
    return finished


def load_task(digits: tuple[int, ...], data_dir: Path, device: torch.device) -> Task:
    return Task(digits, *(select_digits(split, digits, device) for split in load_splits(data_dir)))


@functools.cache
def load_splits(data_dir: Path) -> tuple[Split, Split, Split]:
    """MNIST's training, validation and test images, loaded once in each process."""
    return *split_validation(load_mnist(data_dir, train=True)), load_mnist(data_dir, train=False)


def train(run: dict, task: Task, base: nn.Sequential | None = None) -> tuple[nn.Sequential, dict]:
    """Train the model of one run; return it, and what is kept of it."""
    split = few_labels(task.train, run["per_digit"], run["seed"])
    if run["shifted"]:
        split = shift_images(split)
    options = {name: run[name] for name in ("epochs", "batch_size", "learning_rate", "seed")}
    if run["model"] == "finetune":
        model = copy.deepcopy(base)
    else:
        first_seed = {"base": 0, "fresh": FRESH_SEED, "untrained": UNTRAINED_SEED}[run["model"]]
        model = build_model(first_seed + run["seed"]).to(split.labels.device)
    if run["model"] in ("base", "fresh"):
        curve = fit(model, split, task.validation, last_row_only=True, **options)
    else:
        curve, _ = fine_tune(model, split, task.validation, frozen=run["frozen"], reinit=run["reinit"],
                             last_row_only=True, **options)
    wrong = wrong_images(model, task.test)
    outcome = {"train_accuracy": evaluate(model, split)[1], "validation_accuracy": curve[-1]["validation_accuracy"],
               "test_accuracy": 1 - len(wrong) / len(task.test.labels)}
    if tuple(run["new"]) == EXERCISE:  # elsewhere no difference is quoted for a single choice
        outcome["wrong"] = wrong
    return model, outcome


def begin() -> None:
    """In each process: one thread, and an end without a traceback on Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)


def carry_out(runs: list[dict], path: Path, jobs: int, data_dir: Path, device: torch.device) -> None:
    """Train `runs`, group by group, and append their lines to `path`.

    `jobs` processes of one thread each: networks as small as this one gain little from a second core.
    """
    groups = {}
    for run in runs:
        groups.setdefault((*run["new"], run["seed"]), []).append(run)
    executor = concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin)
    try:
        with tqdm(total=len(runs), desc="study", unit="run", disable=None) as bar:
            futures = [executor.submit(train_group, group, data_dir, device) for group in groups.values()]
            for future in concurrent.futures.as_completed(futures):
                append(future.result(), path)
                bar.update(len(future.result()))
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError("a process of the study died, perhaps for lack of memory: start the study again, with fewer "
                        "--jobs; it goes on where it was") from None
    finally:
        for process in multiprocessing.active_children():  # all are idle, or the study was stopped
            process.terminate()
        executor.shutdown(cancel_futures=True)


# The file


def read_runs(path: Path) -> list[dict]:
    """The finished runs in `path`. Raises UserError where a line is not one; a half line at the end is passed over."""
    text = path.read_text(encoding="utf-8", errors="replace") if os.path.exists(path) else ""
    runs = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        try:
            run = json.loads(line)
            key(run), run["outcome"]["test_accuracy"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"line {number} of {path} is not a run of the study: delete the line; the study trains it "
                            "again") from None
        runs.append(run)
    return runs


def append(runs: list[dict], path: Path) -> None:
    """Append the lines of `runs`. Raises UserError where they cannot be written."""
    lines = "".join(json.dumps(run) + "\n" for run in runs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)  # drops a half line that a kill or a full disk left
            file.write(lines.encode())
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): make room and start the study again; it goes on "
                        "where it was") from None


def main():
    flags = cli.parser(__doc__)
    flags.add_argument("--seeds", type=cli.whole(3), default=10, metavar="N",
                       help="seeds of the parts about 7-9 (default: %(default)s)")
    flags.add_argument("--choices", type=cli.whole(2), default=len(CHOICES), metavar="N",
                       help="how many of the 120 choices of three new digits (default: %(default)s)")
    flags.add_argument("--jobs", type=cli.whole(1), metavar="N",
                       help="processes of one thread each (default: one a core, a single one on CUDA)")
    args = cli.parse(flags)
    device = cli.choose_device("auto")
    path = args.out / "results" / "study.jsonl"
    finished = {key(run) for run in read_runs(path)}
    runs = [run for run in plan(args.seeds, args.choices) if key(run) not in finished]
    load_mnist(args.data_dir, train=True)  # damaged files are found here, by one process
    carry_out(runs, path, args.jobs or (1 if device.type == "cuda" else os.cpu_count()), args.data_dir, device)
    print(f"{len(runs)} runs trained, {len(finished)} were there; now: python -m experiments.summary --out {args.out}")


if __name__ == "__main__":
    cli.run(main)
