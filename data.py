"""Items 1 and 2: load MNIST, and split it into the images of some digits; if asked, only a few of each.

    task = load_task("data", "0-6")
    task.train.images, task.train.labels    # float32 [37742, 1, 28, 28], int64 [37742]
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images' pixels in [0, 1]
VALIDATION_SEED = 1998  # fixed: the validation images are the same for every model and every --seed
# SHA-256 of the published pixels and, after them, the labels, a byte each. In data/MNIST/raw:
#     (tail -c +17 train-images-idx3-ubyte; tail -c +9 train-labels-idx1-ubyte) | sha256sum
TRAIN_SHA256 = "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b"
TEST_SHA256 = "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"


class UserError(ValueError):
    """Something that the user can fix; its text is the one line that `cli.run` shows."""


class Split(NamedTuple):
    """`images` float32 [N, 1, 28, 28], normalised, or in fine-tuning their features [N, ...]; `labels` int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device: str | torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


class Task(NamedTuple):
    """The images of some digits. Labels stay the digits themselves; `test` is the official test set's part."""

    digits: tuple[int, ...]
    train: Split
    validation: Split
    test: Split


def load_task(data_dir: str | Path, digits: str | Iterable[int], device: str | torch.device = "cpu", *,
              per_digit: int | None = None, seed: int = 0) -> Task:
    """The training, validation and test images of `digits` ("7-9" or (7, 8, 9)), on `device`.

    `per_digit`: train on so many images of each digit, drawn by `seed` (None: on all); the other two stay whole.
    Raises UserError as `load_mnist` and `few_labels` do, ValueError as `parse_digits`.
    """
    digits = parse_digits(digits)
    train, validation = split_validation(load_mnist(data_dir, train=True))
    train, validation = select_digits(train, digits), select_digits(validation, digits)
    test = select_digits(load_mnist(data_dir, train=False), digits)
    if per_digit is not None:
        train = few_labels(train, per_digit, seed)
    return Task(digits, train.to(device), validation.to(device), test.to(device))


def load_mnist(data_dir: str | Path, train: bool) -> Split:
    """Item 1: the official training or test set, from `data_dir` or, where it is not there, downloaded.

    Raises UserError where it cannot be loaded or is not the published one: torchvision would load overwritten pixels
    or a label of 77 without an error.
    """
    from torchvision.datasets import MNIST  # here, since it takes as long to import as torch: --help does not wait
    hint = "this project has it in data/MNIST/raw ('git checkout -- data/MNIST' brings it back)"
    try:
        mnist = MNIST(data_dir, train=train, download=True)
    except Exception as error:  # torchvision raises nearly everything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot load MNIST from {data_dir} ({reason}): {hint}; or name another folder with "
                        "--data-dir") from None
    digest = hashlib.sha256(mnist.data.numpy().tobytes() + mnist.targets.to(torch.uint8).numpy().tobytes()).hexdigest()
    if digest != (TRAIN_SHA256 if train else TEST_SHA256):
        raise UserError(f"what torchvision loads from {data_dir} is not the published MNIST: {hint}; where an old "
                        "torchvision left a folder MNIST/processed, that is loaded instead: name another --data-dir")
    images = mnist.data.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)  # uint8 [N, 28, 28] -> [N, 1, 28, 28]
    return Split(images, mnist.targets)


def split_validation(split: Split) -> tuple[Split, Split]:
    """Training and validation images: a stratified tenth is the validation set, the same at every call."""
    validation = torch.zeros(len(split.labels), dtype=torch.bool)
    for digit in range(10):
        images = (split.labels == digit).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(VALIDATION_SEED + digit)  # one for each digit
        drawn = torch.randperm(len(images), generator=generator)[: round(len(images) / 10)]
        validation[images[drawn]] = True
    return tuple(Split(split.images[part], split.labels[part]) for part in (~validation, validation))


def select_digits(split: Split, digits: tuple[int, ...]) -> Split:
    """Item 2: the images of `digits` alone."""
    wanted = torch.isin(split.labels, torch.tensor(digits, device=split.labels.device))
    return Split(split.images[wanted], split.labels[wanted])


def few_labels(split: Split, per_digit: int, seed: int) -> Split:
    """`per_digit` images of each digit, drawn by `seed`: for one seed, ten of each contain the five.

    Images stay in the order of the data set. Raises UserError where a digit has fewer images.
    """
    digits, counts = split.labels.unique(return_counts=True)
    fewest = 1 if len(digits) > 1 else 2  # one image alone cannot be normalised by its batch
    if not fewest <= per_digit <= counts.min():
        raise UserError(f"images of each digit to train on: there can be {fewest} to {counts.min()}, not {per_digit}")
    generator = torch.Generator().manual_seed(seed)
    chosen = []
    for digit in digits:
        images = (split.labels == digit).nonzero().squeeze(1).cpu()
        chosen.append(images[torch.randperm(len(images), generator=generator)[:per_digit]])
    chosen = torch.cat(chosen).sort().values.to(split.labels.device)
    return Split(split.images[chosen], split.labels[chosen])


def parse_digits(spec: str | Iterable[int]) -> tuple[int, ...]:
    """'0-6', '1,4,5,9' or (1, 4, 5, 9) -> the digits in ascending order. Raises ValueError for anything else."""
    digits, text = [], spec if isinstance(spec, str) else ",".join(map(str, spec))
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9])(?:-([0-9]))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"{part!r} is neither a digit nor a range of digits: write 0-6 or 1,4,5,9")
        digits += range(int(match[1]), int(match[2] or match[1]) + 1)
    if len(set(digits)) < len(digits):
        raise ValueError(f"{spec!r} names a digit twice: write each digit once")
    return tuple(sorted(digits))


def spell_digits(digits: Iterable[int]) -> str:
    """(7, 8, 9) -> '7-9', (1, 4, 5, 9) -> '1, 4, 5, 9'."""
    digits = list(digits)
    is_range = len(digits) > 2 and digits == [*range(digits[0], digits[-1] + 1)]
    return f"{digits[0]}-{digits[-1]}" if is_range else ", ".join(map(str, digits))
