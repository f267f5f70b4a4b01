"""What a run takes, and what it leaves behind: flags, progress; results, checkpoint, plot.

    args = parse(__doc__, digits="0-6")
    ...
    save(args.out, {"results/base.json": ..., ...})
"""

from errors import Parser, UserError  # first: from here on Ctrl-C is one line, in the slow imports too

import argparse
import io
import json
import math
import os
import platform
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from pathlib import Path

import torch
import torchvision

from data import Task, parse_digits, spell_digits
from model import build_model
from training import WEIGHT_DECAY, evaluate

# Chosen on validation: see "How the hyperparameters were chosen" in README.md.
EPOCHS, BATCH_SIZE, LEARNING_RATE = 5, 128, 0.008


def parser(description: str, digits: str | None = None) -> Parser:
    """The flags that all scripts share; `digits` is the script's default task (None: it has no such flag)."""
    flags = Parser(description)
    flags.add_argument("--data-dir", default="data", metavar="DIR",
                       help="where MNIST is or goes (default: %(default)s)")
    flags.add_argument("--out", default=".", metavar="DIR",
                       help="plots/, results/ and checkpoints/ go below it (default: this folder)")
    flags.add_argument("--seed", type=whole(0), default=0, metavar="N",
                       help="draws the initial weights and the order of the images (default: %(default)s)")
    flags.add_argument("--epochs", type=whole(1), default=EPOCHS, metavar="N",
                       help="passes over the training images (default: %(default)s)")
    flags.add_argument("--batch-size", type=whole(2), default=BATCH_SIZE, metavar="N",
                       help="images a step (default: %(default)s)")
    flags.add_argument("--learning-rate", type=_positive, default=LEARNING_RATE, metavar="X",
                       help="highest value of the one-cycle schedule (default: %(default)s)")
    flags.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
                       help="auto takes a GPU where there is one (default: %(default)s)")
    if digits:
        flags.add_argument("--digits", default=digits, metavar="SPEC",
                           help="digits to train on: 0-6, 7-9, or 1,4,5,9 (default: %(default)s)")
    return flags


def start(flags: Parser) -> argparse.Namespace:
    """Parse the command line; find the device and test the output folder now, not after the training."""
    args = flags.parse_args()
    args.device = _device(args.device)
    if hasattr(args, "digits"):
        args.digits = parse_digits(args.digits)
    try:
        for folder in ("results", "plots", "checkpoints"):
            Path(args.out, folder).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=Path(args.out, folder)).close()
    except OSError as error:
        raise UserError(f"cannot write to {Path(args.out, folder)}: {error.strerror}; give another --out") from None
    return args


def hyperparameters(args: argparse.Namespace) -> dict:
    """What `training.fit` takes from the command line."""
    return {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate,
            "seed": args.seed}


def new_model(seed: int, device: str | torch.device = "cpu") -> torch.nn.Sequential:
    """A freshly initialised network; the same one for the same seed, on any device."""
    torch.manual_seed(seed)
    return build_model().to(device)


class Progress:
    """A row an epoch on standard output; while it trains, a bar on standard error if that is a terminal."""

    def __init__(self, title: str, task: Task):
        self.shown, self.bar = 0.0, sys.stderr.isatty()
        self.callbacks = {"on_step": self.step, "on_row": self.row}  # for training.fit
        print(f"{title}: {task.name} digits {spell_digits(task.digits)}; {len(task.train.labels):,} training, "
              f"{len(task.validation.labels):,} validation, {len(task.test.labels):,} test images\n"
              f"{'epoch':>5} {'train loss':>11} {'val. loss':>10} {'train acc.':>11} {'val. acc.':>10} {'seconds':>8}",
              flush=True)

    def step(self, done: int, total: int) -> None:
        if self.bar and (time.monotonic() - self.shown > 0.1 or done == total):
            self.shown = time.monotonic()
            filled = 40 * done // total
            sys.stderr.write(f"\r\033[K  [{'=' * filled}{' ' * (40 - filled)}] step {done} of {total}")
            sys.stderr.flush()

    def row(self, row: dict) -> None:
        if self.bar:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
        print(f"{row['epoch']:>5} {row['train_loss']:>11.4f} {row['validation_loss']:>10.4f} "
              f"{row['train_accuracy']:>11.2%} {row['validation_accuracy']:>10.2%} {row['seconds']:>8.2f}", flush=True)


def finish(experiment: str, args: argparse.Namespace, task: Task, model: torch.nn.Sequential, curve: list[dict],
           began: float, feature_seconds: float = 0.0, frozen: int = 0, reinit: int | None = None) -> dict:
    """Touch the test set, once; write results, checkpoint and plot; print the closing summary. Returns the results.

    `began`: time.perf_counter() when the script began; `reinit` None: every block was initialised.
    """
    from plotting import loss_figure  # here: matplotlib is slow to import, and bad input should not wait for it

    if not all(math.isfinite(value) for row in curve for value in row.values()):
        raise UserError(f"training diverged at --learning-rate {args.learning_rate:g}: give a lower one; "
                        "nothing was written")
    _, test_accuracy = evaluate(model, task.test)
    blocks = [name for name, _ in model.named_children()]
    results = {
        "experiment": experiment, "digits": list(task.digits), "seed": args.seed,
        "dataset": {"name": task.name, "verified": task.verified, "train": len(task.train.labels),
                    "validation": len(task.validation.labels), "test": len(task.test.labels)},
        "model": {"blocks": blocks, "frozen": frozen, "reinit": len(blocks) if reinit is None else reinit,
                  "parameters": sum(p.numel() for p in model.parameters()),
                  "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)},
        "hyperparameters": {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate,
                            "optimizer": "AdamW", "weight_decay": WEIGHT_DECAY, "schedule": "one-cycle"},
        "curve": curve,
        "train_accuracy": curve[-1]["train_accuracy"], "test_accuracy": test_accuracy,
        "test_errors": round((1 - test_accuracy) * len(task.test.labels)), "test_count": len(task.test.labels),
        "training_seconds": curve[-1]["seconds"], "feature_seconds": feature_seconds,
        "total_seconds": time.perf_counter() - began,
        "environment": environment(args.device),
    }
    checkpoint = {"experiment": experiment, "digits": list(task.digits), "seed": args.seed, "dataset": task.name,
                  "verified": task.verified, "blocks": blocks, "model": model.state_dict()}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as good as done: a Ctrl-C could not leave things as they were
    save(args.out, {f"results/{experiment}.json": to_json(results),
                    f"plots/{experiment}_loss.png": to_png(loss_figure(results)),
                    f"checkpoints/{experiment}.pt": to_checkpoint(checkpoint)})
    print(f"training accuracy {results['train_accuracy']:.2%}, test accuracy {test_accuracy:.2%} "
          f"({results['test_errors']} errors in {results['test_count']:,} images) after "
          f"{results['training_seconds']:.2f} s of training"
          + ("" if task.verified else f"\nThis is {task.name}, not MNIST: no result for MNIST follows from it.")
          + f"\nwrote results/{experiment}.json, plots/{experiment}_loss.png, checkpoints/{experiment}.pt in "
          + str(Path(args.out).resolve()), flush=True)
    return results


def load_base(path: Path, digits: tuple[int, ...], device: torch.device) -> tuple[torch.nn.Sequential, dict]:
    """The base model and its checkpoint's metadata. Nothing in the file is executed (weights_only)."""
    try:
        with zipfile.ZipFile(path) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch.load warns of is an error here
            if damaged := archive.testzip():  # torch.load compares no checksums: flipped bits would be weights
                raise ValueError(f"{damaged} is damaged")
            checkpoint = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"no base model at {path}: run train_base.py first, or name its checkpoint with "
                        "--base") from None
    except Exception as error:  # a file of any kind: torch raises nearly everything
        reason = str(error).split("\n")[0].split(". ")[0]
        raise UserError(f"{path} is not a checkpoint that can be loaded safely ({reason}): "
                        "run train_base.py anew, or name another with --base") from None
    model = build_model().to(device)
    try:
        checkpoint = dict(checkpoint)
        seen = set(checkpoint["digits"])
        checkpoint["dataset"], checkpoint["verified"], checkpoint["experiment"]
        model.load_state_dict(checkpoint["model"])
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError):
        raise UserError(f"{path} holds another network than model.py builds: run train_base.py anew, or name "
                        "another with --base") from None
    if not all(torch.isfinite(values).all() for values in model.state_dict().values()):
        raise UserError(f"{path} holds weights that are not finite numbers: run train_base.py anew")
    if both := sorted(seen.intersection(digits)):
        raise UserError(f"--digits: {', '.join(map(str, both))} already trained the base model in {path}; fine-tuning "
                        "transfers to other digits")
    return model, checkpoint


def save(out: str | Path, files: dict[str, bytes]) -> None:
    """Write all of `files` (path below `out` -> contents) or, if one cannot be written, none.

    They are written apart and moved into place together, so that a stopped run leaves the earlier ones whole.
    """
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C now would leave litter, or old beside new
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".saving-") as apart:
            for number, contents in enumerate(files.values()):
                Path(apart, str(number)).write_bytes(contents)
            for name in files:
                Path(out, name).parent.mkdir(parents=True, exist_ok=True)
            for number, name in enumerate(files):
                os.replace(Path(apart, str(number)), Path(out, name))
    except OSError as error:
        raise UserError(f"cannot write below {Path(out).resolve()}: {error.strerror or error}; make room or give "
                        "another --out") from error
    finally:
        signal.signal(signal.SIGINT, handler)


def to_json(value: dict) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def to_png(figure) -> bytes:
    """The picture; with it goes the size of its smallest text in points, because typeset.py asks for that."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    figure.set_dpi(rcParams["savefig.dpi"])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # not savefig: tick labels exist only once drawn, and drawing twice takes twice the time
    stream = io.BytesIO()
    imsave(stream, canvas.buffer_rgba(), format="png", dpi=figure.dpi,
           metadata={"Smallest text": f"{_smallest_text(figure):g}"})
    return stream.getvalue()


def _smallest_text(figure) -> float:
    """In points, over every text that shows in a figure just drawn; an exponent counts as small as it is set."""
    from matplotlib.cbook import is_math_text
    from matplotlib.mathtext import MathTextParser
    from matplotlib.text import Text

    smallest, parse = math.inf, MathTextParser("path").parse
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text():
            sizes = [text.get_fontsize()]
            if is_math_text(text.get_text()):
                sizes += [glyph[1] for line in text.get_text().splitlines()
                          for glyph in parse(line, 72, text.get_fontproperties()).glyphs]
            smallest = min(smallest, *sizes)
    return smallest


def to_checkpoint(value: dict) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def environment(device: torch.device) -> dict:
    """What a time depends on."""
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(), "cpu": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name}: PyTorch finds no such device here; use --device auto or cpu") from None
    return torch.device(name)


def whole(smallest: int):
    def check(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not smallest <= int(text) <= 10**9:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {smallest} up")
        return int(text)
    return check


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value
