"""Items 1 and 2: load MNIST, and split it into the images of some digits.

    task = load_task("data", parse_digits("0-6"))
    task.train.images, task.train.labels    # float32 [37742, 1, 28, 28], int64 [37742]
"""

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.datasets import MNIST

MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images' pixels in [0, 1]
VALIDATION_SEED = 1998  # fixed: the validation images are the same for every model and every --seed
DIGESTS = {  # SHA-256 of the published files
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


class UserError(Exception):
    """Something that the user can fix; its text is the one line that `cli.run` shows."""


class Split(NamedTuple):
    """`images` float32 [N, 1, 28, 28], normalised (from `load_mnist`: uint8 [N, 28, 28]); `labels` int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor


class Task(NamedTuple):
    """The images of some digits. Labels stay the digits themselves; `test` is the official test set's part."""

    digits: tuple[int, ...]
    train: Split
    validation: Split
    test: Split


def load_task(data_dir: str | Path, digits: tuple[int, ...], device: str | torch.device = "cpu") -> Task:
    """The training, validation and test images of `digits`, on `device`. Raises UserError as `load_mnist` does."""
    train, validation = split_validation(load_mnist(data_dir, train=True))
    splits = train, validation, load_mnist(data_dir, train=False)
    return Task(digits, *(select_digits(split, digits, device) for split in splits))


def load_mnist(data_dir: str | Path, train: bool) -> Split:
    """Item 1: the official training or test set, from the files in `data_dir` or, without these, downloaded.

    Raises UserError where a file is missing and cannot be downloaded, or is not the published one: torchvision would
    load overwritten pixels or a label of 77 without a word.
    """
    raw = Path(data_dir, "MNIST", "raw")
    fix = ("copy it from data/MNIST/raw of this project ('git checkout -- data/MNIST/raw' brings it back there), or "
           "delete it and run again with a network, which downloads it")
    missing = [name for name in DIGESTS if not os.access(raw / name, os.R_OK)]
    for name in DIGESTS:
        if name not in missing and hashlib.sha256((raw / name).read_bytes()).hexdigest() != DIGESTS[name]:
            raise UserError(f"{raw / name} is not the published MNIST: {fix}")
    new_folders = [folder for folder in (raw, *raw.parents) if not os.path.exists(folder)]
    try:
        mnist = MNIST(data_dir, train=train, download=True)
    except Exception as error:  # torchvision raises nearly everything
        for folder in new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot read {' or '.join(missing)} in {raw}, nor download it ({reason}): {fix}; or name "
                        "another folder with --data-dir") from None
    return Split(mnist.data, mnist.targets)


def split_validation(split: Split) -> tuple[Split, Split]:
    """Training and validation images: a stratified tenth is the validation set, the same at every call."""
    validation = torch.zeros(len(split.labels), dtype=torch.bool)
    for digit in range(10):
        images = (split.labels == digit).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(VALIDATION_SEED + digit)  # one for each digit
        validation[images[torch.randperm(len(images), generator=generator)[: round(len(images) / 10)]]] = True
    return tuple(Split(split.images[part], split.labels[part]) for part in (~validation, validation))


def select_digits(split: Split, digits: tuple[int, ...], device: str | torch.device = "cpu") -> Split:
    """Item 2: the images of `digits` alone, normalised: uint8 [N, 28, 28] -> float32 [M, 1, 28, 28]."""
    wanted = torch.isin(split.labels, torch.tensor(digits))
    images = split.images[wanted].unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)
    return Split(images.to(device), split.labels[wanted].to(device))


def parse_digits(spec: str) -> tuple[int, ...]:
    """'0-6', '7-9' or '1,4,5,9' -> the digits in ascending order. Raises UserError for anything else."""
    digits = []
    for part in spec.split(","):
        match = re.fullmatch(r"\s*([0-9])(?:-([0-9]))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"--digits {spec!r}: {part!r} is neither a digit nor a range; write 0-6 or 1,4,5,9")
        digits += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(digits)) < len(digits):
        raise UserError(f"--digits {spec!r} names a digit twice; write each digit once")
    return tuple(sorted(digits))
