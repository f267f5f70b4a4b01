"""The command line that the scripts share: their flags, and a user's mistake as one line instead of a traceback."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from data import UserError, parse_digits

ROOT = Path(__file__).parent  # outputs and MNIST are this folder's, from wherever a script is started
# See "How the hyperparameters were chosen" in README.md.
EPOCHS, BATCH_SIZE, LEARNING_RATE = 5, 128, 0.008


class Parser(argparse.ArgumentParser):
    def error(self, message):  # argparse prints its usage too: several lines
        raise UserError(f"{message} (see --help)")


def parser(description: str, loads_mnist: bool = True) -> Parser:
    """A script's docstring as the help text, and the flags for its folders."""
    flags = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    flags.add_argument("--out", default=ROOT, type=Path, metavar="DIR",
                       help="the folder of plots/, results/ and checkpoints/ (default: the project's folder)")
    if loads_mnist:
        flags.add_argument("--data-dir", default=ROOT / "data", type=Path, metavar="DIR",
                           help="where MNIST is (default: data/ in the project's folder)")
    return flags


def training_parser(description: str, digits: str) -> Parser:
    """`parser` with the flags of training; `digits`: a script's default task."""
    flags = parser(description)
    flags.add_argument("--digits", type=parse_digits, default=digits, metavar="SPEC",
                       help="digits to train on: 0-6, 7-9, or 1,4,5,9 (default: %(default)s)")
    flags.add_argument("--seed", type=whole(0), default=0, metavar="N",
                       help="draws the initial weights and the order of the images (default: %(default)s)")
    flags.add_argument("--epochs", type=whole(1), default=EPOCHS, metavar="N",
                       help="passes over the training images (default: %(default)s)")
    flags.add_argument("--batch-size", type=whole(2), default=BATCH_SIZE, metavar="N",
                       help="smallest number of images per step (default: %(default)s)")
    flags.add_argument("--learning-rate", type=positive, default=LEARNING_RATE, metavar="X",
                       help="highest value of the one-cycle schedule (default: %(default)s)")
    flags.add_argument("--device", type=choose_device, default="auto", metavar="auto|cpu|cuda",
                       help="auto is CUDA where there is one, otherwise the CPU (default: %(default)s)")
    return flags


def parse(flags: Parser) -> argparse.Namespace:
    """The command line's values. Raises UserError where a flag or the output folder is no good, before any training."""
    args = flags.parse_args()
    for folder in (args.out / name for name in ("plots", "results", "checkpoints")):
        nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
        try:
            tempfile.TemporaryFile(dir=nearest).close()
        except OSError as error:
            raise UserError(f"cannot write to {folder} ({error.strerror}): name another folder with --out") from None
    return args


def whole(smallest: int) -> Callable[[str], int]:
    """A flag's type: whole numbers from `smallest` up, of 63 bits as PyTorch takes them."""
    def check(text: str) -> int:
        if not text.isdecimal() or not smallest <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {smallest} to {2**63 - 1}")
        return int(text)
    return check


def positive(text: str) -> float:
    """A flag's type: finite numbers above 0."""
    if not 0 < float(text) < float("inf"):  # argparse reports what is no number at all
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return float(text)


def choose_device(name: str) -> torch.device:
    """A flag's type. Never MPS: BatchNorm's gradients on channels_last tensors were wrong there, or it crashed, until
    June 2026 (PyTorch #175189, fixed by #188371)."""
    if name not in ("auto", "cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{name!r} is not auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("PyTorch finds no CUDA device here; use --device auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def run(main: Callable[[], None]) -> None:
    """Run a script: a UserError is one line and exit status 2, Ctrl-C one line and 130; other errors, a traceback."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: finished files are complete", file=sys.stderr)
        sys.exit(130)
