"""What training costs, and why; and the benchmark that measures it.

    python -m experiments.times         # ten minutes; nothing else should run meanwhile

Whole trainings that differ in one thing each, in turns: between the fresh model and the fine-tuned one stand two more,
so that each difference is one part of the time. Then the scripts themselves, as processes. Writes
results/benchmark.json, as it was measured; what it says is for experiments.evidence.
"""

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn
from tqdm import tqdm

import cli
from data import Task, load_task
from experiments.gain import WAYS
from experiments.intervals import student, table
from experiments.runs import HEAD, Study, block_names, both, network, plot_errors, setting, with_seeds
from finetune import FROZEN_BLOCKS, REINIT_BLOCKS, fine_tune
from model import FRESH_SEED, build_model, count_parameters
from plotting import COLOURS, LABELS
from results import environment, save, to_json
from training import EPOCHS, fit

EPOCH_COUNTS = (1, 2, 3, EPOCHS)  # with all labels, each with a learning-rate schedule of its own
MARGIN = 0.1  # percentage points: fixed before the study, within it two models are called equally accurate
SCRIPTS = {"fresh": "train_fresh.py", "finetune": "finetune.py"}

# The benchmark


class Frozen(nn.Sequential):
    """The usual way of freezing, for comparison: blocks that run in every step, without gradients, in evaluation mode.

    In training mode BatchNorm would go on updating its statistics, and normalise by each batch's own.
    """

    def train(self, mode: bool = True) -> "Frozen":
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(images)


class AskForGradient(nn.Module):
    """Hands its input on, and has the gradient for it computed, which nobody uses."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.requires_grad_()


def train_way(way: str, task: Task, base: nn.Sequential | None, seed: int) -> tuple[nn.Sequential, list[dict]]:
    """One training of `task` at the default settings -> the model and its curve.

    `way`: base; fresh; input_gradient (without the frozen block's backward pass); recompute (and without the next
    block's gradient for its input: plain freezing); once (and without the frozen block in the steps: `fine_tune`).
    """
    if way == "once":
        return fine_tune(base, task.train, task.validation, seed=seed)
    model = build_model(seed if way == "base" else FRESH_SEED + seed).to(task.train.labels.device)
    network = model
    if way in ("input_gradient", "recompute"):  # as fine_tune begins
        kept = len(model) - REINIT_BLOCKS
        model[:kept].load_state_dict(base[:kept].state_dict())
        between = [AskForGradient()] if way == "input_gradient" else []
        network = nn.Sequential(Frozen(model[:FROZEN_BLOCKS]), *between, model[FROZEN_BLOCKS:])
    return model, fit(network, task.train, task.validation, seed=seed)


def measure_trainings(args: Namespace) -> dict:
    """Seconds and curves of each way of training, a list over the rounds."""
    base_task, new_task = (load_task(args.data_dir, digits, args.device) for digits in ("0-6", "7-9"))
    ways = ["fresh", "input_gradient", "recompute", "once"]
    curves = {way: [] for way in ("base", *ways)}
    for seed in tqdm(range(args.rounds), "rounds", disable=None, leave=False):
        base, curve = train_way("base", base_task, None, seed)
        curves["base"].append(curve)
        for way in ways:
            curves[way].append(train_way(way, new_task, base, seed)[1])
        ways.append(ways.pop(0))  # another order in the next round
    seconds = {way: [curve[-1]["seconds"] for curve in its_curves] for way, its_curves in curves.items()}
    return {"seconds": seconds | {"features": [curve[0]["seconds"] for curve in curves["once"]]}, "curves": curves}


def measure_scripts(args: Namespace) -> list[dict]:
    """Pairs of SCRIPTS as processes, in turns: by model, the training time that each wrote, and its wall time."""
    def start(name: str, script: str) -> dict:
        begin = time.perf_counter()
        subprocess.run([sys.executable, cli.ROOT / script, "--out", out, "--data-dir", args.data_dir.resolve(),
                        "--device", args.device], check=True, stdout=subprocess.DEVNULL)
        wall_seconds = time.perf_counter() - begin
        record = json.loads(Path(out, "results", f"{name}.json").read_text(encoding="utf-8"))
        return {"training_seconds": record["training_seconds"], "wall_seconds": wall_seconds}

    pairs, order = [], list(SCRIPTS)
    with tempfile.TemporaryDirectory() as out:
        start("base", "train_base.py")
        for _ in tqdm(range(args.pairs), "pairs of scripts", disable=None, leave=False):
            pairs.append({name: start(name, SCRIPTS[name]) for name in order})
            order.reverse()
    return pairs


def main():
    flags = cli.mnist_parser(__doc__)
    flags.add_argument("--rounds", type=cli.whole(2), default=12, metavar="N",
                       help="how often every way of training is measured (default: %(default)s)")
    flags.add_argument("--pairs", type=cli.whole(2), default=8, metavar="N",
                       help="how often the two scripts are measured (default: %(default)s)")
    args = cli.parse(flags)
    measured = {"network": network(), **measure_trainings(args), "scripts": measure_scripts(args)}
    save(args.out / "results" / "benchmark.json", to_json(measured | {"environment": environment(args.device)}))
    print("saved results/benchmark.json; now: python -m experiments.evidence, with the same --out")


# The questions


def plan(seeds: range, new_digits: list, study: Study) -> list[dict]:
    """The runs of this file's questions."""
    return with_seeds((each for epochs in EPOCH_COUNTS for each in both(epochs=epochs)), seeds)


def shares(benchmark: dict) -> dict[str, np.ndarray]:
    """Every list of seconds in shares of the fresh model's time in the same round: float [rounds]."""
    seconds = {way: np.array(values) for way, values in benchmark["seconds"].items()}
    return {way: values / seconds["fresh"] for way, values in seconds.items()}


def ways(study: Study, benchmark: dict | None) -> list[str]:
    """How long does each way of training take?

    Whole trainings with all labels at default settings, in turns: seconds, and shares of the fresh model's time in the
    same round; means over rounds. All intervals of times are over the rounds of one session: on the same machine,
    sessions differ by more. Evaluation is not timed. Last, how many fine-tunings save as much time, each against
    a fresh training of as many epochs, as training the base takes.
    """
    if not benchmark:
        return []
    first, second = block_names()[FROZEN_BLOCKS - 1 : FROZEN_BLOCKS + 1]
    share, rows = shares(benchmark), []
    for way, name in {"base": "base", "fresh": "fresh",
                      "input_gradient": f"{first} frozen, but {second}'s gradient for its input computed",
                      "recompute": f"plain freezing: {first} frozen, run in every step",
                      "once": f"fine-tuned: {first} frozen, run once"}.items():
        seconds = np.array(benchmark["seconds"][way])
        rows.append((name, student(seconds).write(1), student(share[way]).write(2) if way != "fresh" else "1",
                     len(seconds)))
    break_even = student(share["base"] / (1 - share["once"]))
    return [*table(("training", "seconds", "share of the fresh model's time", "rounds"), rows), "",
            f"Training the base takes as long as {break_even.write(1)} fine-tunings save."]


def savings(study: Study, benchmark: dict | None) -> list[str]:
    """Why does fine-tuning take less time?

    Each part is the difference of two whole trainings of which the second leaves out that part, in shares of the fresh
    model's time in the same round: within a round the parts add up, and so do their means. The first part contains that
    a frozen block runs in evaluation mode and stores nothing for a backward pass. How the frozen block is run changes
    no loss.
    """
    if not benchmark:
        return []
    share, (first, second) = shares(benchmark), block_names()[FROZEN_BLOCKS - 1 : FROZEN_BLOCKS + 1]
    saved = {f"{first}'s backward pass": share["fresh"] - share["input_gradient"],
             f"{second}'s gradient for its input": share["input_gradient"] - share["recompute"],
             f"{first}'s forward pass in the steps": share["recompute"] - (share["once"] - share["features"]),
             f"{first} run once": -share["features"], "together": share["fresh"] - share["once"]}
    rows = [(part, student(values).write(2), len(values)) for part, values in saved.items()]
    model, images = build_model().eval(), torch.zeros(1, 1, 28, 28)
    initial, following = model[:FROZEN_BLOCKS], model[FROZEN_BLOCKS]
    values = largest_output(initial[-1], initial[:-1](images)), largest_output(following, initial(images))
    share = 100 * count_parameters(initial) / count_parameters(model)
    return [*table(("part", "share saved", "rounds"), rows), "",
            f"{first} has {share:.0f} % of the weights, but its largest output for an image is {values[0]:,} values, "
            f"{second}'s {values[1]:,}."]


def largest_output(block: nn.Module, images: torch.Tensor) -> int:
    """How many values the largest output within `block` has."""
    sizes = []
    for module in block.modules():
        module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    block(images)
    return max(sizes)


def draw_parts(axes: Axes, study: Study, benchmark: dict) -> None:
    """Training times: each bar leaves out one part more."""
    share, (first, second) = shares(benchmark), block_names()[FROZEN_BLOCKS - 1 : FROZEN_BLOCKS + 1]
    names = ("fresh", f"without {first}'s\nbackward pass", f"and {second}'s gradient\nfor its input",
             f"and {first} run only\nonce: fine-tuned")
    colours = (COLOURS["fresh"], "silver", "silver", COLOURS["finetune"])
    for place, (way, colour) in enumerate(zip(("fresh", "input_gradient", "recompute", "once"), colours)):
        mean, _, high = student(share[way])
        axes.barh(place, mean, 0.6, color=colour, xerr=high - mean, error_kw={"capsize": 2, "linewidth": 1})
        axes.text(high + 0.02, place, f"{mean:.2f}", va="center_baseline")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.set(xlim=(0, 1.15), xlabel="training time, in shares of the fresh model's",
             title=f"{EPOCHS} epochs, all labels")


def stopwatch(study: Study, benchmark: dict | None) -> list[str]:
    """What does a stopwatch show?

    Pairs of `train_fresh.py` and `finetune.py`, started in turns as a user starts them: the fine-tuned model's time as
    a share of the fresh one's in the same pair. The training time is what each script prints; the whole script also
    starts Python, loads MNIST, evaluates and draws.
    """
    if not benchmark:
        return []
    rows = []
    for name, key in (("training time", "training_seconds"), ("whole script", "wall_seconds")):
        ratios = np.array([pair["finetune"][key] / pair["fresh"][key] for pair in benchmark["scripts"]])
        rows.append((name, *(f"{value:.2f}" for value in (ratios.mean(), ratios.min(), ratios.max())), len(ratios)))
    return table(("time", "mean share", "lowest", "highest", "pairs"), rows)


def shorter(study: Study, benchmark: dict | None) -> list[str]:
    """Would a shorter training do?

    All labels. First both models with as many epochs, each training with a learning-rate schedule of its own. Then one
    model minus another; whether the whole interval lies within the margin that was fixed before the study; and the
    first one's training time as a share of the other's, as measured during trainings of the default epochs.
    """
    rows = [(epochs, *study.compare(*both(epochs=epochs)).cells(2)) for epochs in EPOCH_COUNTS]
    lines, rows = table(("epochs", *HEAD), rows), []
    for model, epochs, other, others in (("fresh", 3, "fresh", EPOCHS), ("finetune", 3, "fresh", EPOCHS),
                                         ("finetune", EPOCHS, "fresh", EPOCHS), ("finetune", EPOCHS, "fresh", 3)):
        found = study.compare(setting(model, epochs=epochs), setting(other, epochs=others))
        within = -MARGIN / 100 <= found.gain.low and found.gain.high <= MARGIN / 100
        share = "not measured"
        if benchmark:
            share = student(seconds_after(benchmark, model, epochs) / seconds_after(benchmark, other, others)).write(2)
        rows.append((f"{LABELS[model]}, {epochs} epochs", f"{LABELS[other]}, {others} epochs",
                     found.gain.write_points(2), "yes" if within else "not shown", share, found.seeds))
    return [*lines, "", *table(("model", "minus", "difference", f"within {MARGIN:g} points", "share of the time",
                                "seeds"), rows)]


def seconds_after(benchmark: dict, model: str, epochs: int) -> np.ndarray:
    """The measured seconds after so many epochs: float [rounds]."""
    return np.array([row["seconds"] for curve in benchmark["curves"][WAYS[model]] for row in curve
                     if row["epoch"] == epochs])


def draw_errors(axes: Axes, study: Study, benchmark: dict) -> None:
    """Test error over training time, after different numbers of epochs."""
    for side, model in enumerate(("finetune", "fresh")):
        accuracies = [study.compare(*both(epochs=epochs))[side] for epochs in EPOCH_COUNTS]
        seconds = [seconds_after(benchmark, model, epochs).mean() for epochs in EPOCH_COUNTS]
        plot_errors(axes, seconds, accuracies, "o-", color=COLOURS[model], label=LABELS[model])
        for epochs, x, accuracy in zip(EPOCH_COUNTS, seconds, accuracies):
            axes.annotate(epochs, (x, 100 * (1 - accuracy.mean)), ((-7, -9), (3, 3))[side], color=COLOURS[model],
                          textcoords="offset points")
    axes.legend()
    axes.set(xlim=(0, None), ylim=(0, None), xlabel="training time (s)", ylabel="test error (%)",
             title=f"All labels, after {', '.join(map(str, EPOCH_COUNTS[:-1]))} and {EPOCHS} epochs")


QUESTIONS = (ways, savings, stopwatch, shorter)


if __name__ == "__main__":
    cli.run(main)
