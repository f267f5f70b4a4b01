"""The command line that the scripts share: their flags, and a user's mistake as one line instead of a traceback."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from data import UserError, parse_digits
from training import BATCH_SIZE, EPOCHS, LEARNING_RATE, STEPS

ROOT = Path(__file__).parent  # outputs and MNIST are this folder's, from wherever a script is started


def parser(description: str) -> argparse.ArgumentParser:
    """A script's docstring as the help text, and --out."""
    flags = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", default=ROOT, type=Path, metavar="DIR",
                       help="the folder of plots/, results/ and checkpoints/ (default: the project's folder)")
    return flags


def mnist_parser(description: str) -> argparse.ArgumentParser:
    """`parser` with the flags of every script that loads MNIST."""
    flags = parser(description)
    flags.add_argument("--data-dir", default=ROOT / "data", type=Path, metavar="DIR",
                       help="where MNIST is (default: data/ in the project's folder)")
    # Never MPS: BatchNorm's gradients on channels_last tensors were wrong there, or it crashed, until June 2026
    # (PyTorch #175189, fixed by #188371).
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    flags.add_argument("--device", choices=devices, default=devices[-1],
                       help="device to train on (default: %(default)s)")
    return flags


def training_parser(description: str, digits: str) -> argparse.ArgumentParser:
    """`mnist_parser` with the flags of the training scripts; `digits`: a script's default task."""
    flags = mnist_parser(description)
    flags.add_argument("--digits", type=digits_type, default=digits, metavar="SPEC",
                       help="digits to train on: 0-6, 7-9, or 1,4,5,9 (default: %(default)s)")
    flags.add_argument("--per-digit", type=whole(1), metavar="N",
                       help="train on so many images of each digit, drawn by the seed (default: all)")
    flags.add_argument("--seed", type=whole(0), default=0, metavar="N",
                       help="draws initial weights, order of images, the images of --per-digit (default: %(default)s)")
    flags.add_argument("--epochs", type=whole(1), metavar="N", help="passes over the training images (default: "
                       f"{EPOCHS}, or with few images as many as make about {STEPS} steps of {BATCH_SIZE} images)")
    flags.add_argument("--batch-size", type=whole(2), default=BATCH_SIZE, metavar="N",
                       help="images per step, at least, in batches of nearly equal size (default: %(default)s)")
    flags.add_argument("--learning-rate", type=positive, default=LEARNING_RATE, metavar="X",
                       help="highest value of the one-cycle schedule (default: %(default)s)")
    return flags


def parse(flags: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line's values, for scripts that train. Makes the folders now: an error is found before training."""
    args = flags.parse_args()
    for folder in ("results", "plots", "checkpoints"):
        (args.out / folder).mkdir(parents=True, exist_ok=True)
    return args


def training_options(args: argparse.Namespace) -> dict:
    """What the three training scripts give to `fit` or `fine_tune`."""
    return {name: getattr(args, name) for name in ("epochs", "batch_size", "learning_rate", "seed")} | {"verbose": True}


def whole(smallest: int) -> Callable[[str], int]:
    """A flag's type: whole numbers from `smallest` up."""
    def number(text: str) -> int:  # argparse's message has this name where `text` is no number
        if int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text} is less than {smallest}")
        return int(text)
    return number


def positive(text: str) -> float:
    """A flag's type: finite numbers above 0."""
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return float(text)


def digits_type(text: str) -> tuple[int, ...]:
    """A flag's type: `parse_digits`; argparse shows the message of an ArgumentTypeError only."""
    try:
        return parse_digits(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None


def run(main: Callable[[], None]) -> None:
    """Run a script. UserError and OSError are one line and exit status 2, Ctrl-C is one line and 130.

    Any other error is a bug, and shows its traceback.
    """
    try:
        main()
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
