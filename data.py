"""Files on disk -> tensors of one task, split into train / validation / test.

    python data.py                  # get MNIST into data/ and check it

torchvision downloads, unpacks and decodes. What it does not do is look: it loads an images file with
overwritten pixels, or a label of 77, without a word. So every file's digest and header are checked here
before anything is decoded, at every load.
"""

from errors import Parser, UserError  # first: from here on Ctrl-C is one line, in the slow imports too

import contextlib
import gzip
import http.client
import io
import json
import math
import os
import re
import socket
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.datasets.utils import calculate_md5, check_integrity, download_and_extract_archive

# MD5 of the four files, unpacked. The packed ones' are torchvision's (MNIST.resources); these are of the same
# bytes after gunzip, as LeCun, Cortes and Burges published them.
DIGESTS = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
PACKED_DIGESTS = dict(MNIST.resources)
NOTE = "dataset.json"  # {"name": ...}: what a data folder holds when it is not MNIST
MEAN, STD = 0.1307, 0.3081  # of the 60,000 MNIST training images' pixels in [0, 1]
VALIDATION_SEED = 1998  # fixed: the validation images are the same for every model and every --seed
NETWORK_TIMEOUT = 30.0  # seconds without a byte before a download counts as failed


class Split(NamedTuple):
    """Part of a task: `images` float32 [N, 1, 28, 28], normalised; `labels` int64 [N], the digits themselves."""

    images: torch.Tensor
    labels: torch.Tensor


class Task(NamedTuple):
    """The images of some digits. `verified`: all four files are, byte for byte, the published MNIST."""

    name: str
    verified: bool
    digits: tuple[int, ...]
    train: Split
    validation: Split
    test: Split


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


def spell_digits(digits: tuple[int, ...]) -> str:
    """(7, 8, 9) -> '7-9', (1, 4, 5, 9) -> '1, 4, 5, 9'."""
    run = len(digits) > 2 and digits[-1] - digits[0] == len(digits) - 1
    return f"{digits[0]}-{digits[-1]}" if run else ", ".join(map(str, digits))


def load_task(data_dir: str | Path, digits: tuple[int, ...], device: str | torch.device = "cpu") -> Task:
    """The train, validation and test images of `digits`, on `device`.

    The test split is the official test set. Raises UserError where the files are missing and cannot be
    downloaded, are damaged, or hold too few images of a digit.
    """
    name, verified = prepare(data_dir)
    raw = Path(data_dir, "MNIST", "raw")
    splits = {}
    for part in ("train", "t10k"):
        labels = read_label_file(str(raw / f"{part}-labels-idx1-ubyte"))  # int64 [N]
        if labels.max() > 9:
            position = int((labels > 9).nonzero()[0])
            raise UserError(f"{raw / part}-labels-idx1-ubyte: label {int(labels[position])} at position {position}; "
                            "labels must be the digits 0-9")
        smallest = 10 if part == "train" else 1  # a tenth for validation must be at least one image
        for digit in digits:
            if (count := int((labels == digit).sum())) < smallest:
                raise UserError(f"{raw / part}-labels-idx1-ubyte has {count} images of the digit {digit}; "
                                f"at least {smallest} needed: choose other --digits or add images")
        splits[part] = labels, read_image_file(str(raw / f"{part}-images-idx3-ubyte"))  # uint8 [N, 28, 28]

    def take(part: str, indices: torch.Tensor) -> Split:
        labels, images = splits[part]
        wanted = indices[torch.isin(labels[indices], torch.tensor(digits))]
        pixels = images[wanted].unsqueeze(1).float().div_(255)  # [N, 1, 28, 28]
        return Split(pixels.sub_(MEAN).div_(STD).to(device), labels[wanted].to(device))

    train, validation = split_validation(splits["train"][0])
    return Task(name, verified, digits, take("train", train), take("train", validation),
                take("t10k", torch.arange(len(splits["t10k"][0]))))


def split_validation(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the training and of the validation images: a stratified tenth, the same at every call.

    `labels` int64 [N]. Each digit is drawn by a generator of its own, so that which images of a digit are set
    apart does not depend on the task that the digit is in.
    """
    validation = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        images = (labels == digit).nonzero().squeeze(1)
        generator = torch.Generator().manual_seed(VALIDATION_SEED + digit)
        drawn = torch.randperm(len(images), generator=generator)[: round(len(images) / 10)]
        validation[images[drawn]] = True
    return (~validation).nonzero().squeeze(1), validation.nonzero().squeeze(1)


def prepare(data_dir: str | Path) -> tuple[str, bool]:
    """Make sure that four sound files lie unpacked below `data_dir`; return (data set's name, verified).

    Downloads or unpacks what is missing. Never overwrites a file that is neither MNIST's nor torn.
    """
    data_dir = Path(data_dir)
    raw = data_dir / "MNIST" / "raw"
    try:
        name = _read_note(data_dir / NOTE)
        if name is None:
            _complete_mnist(data_dir, raw)
        else:
            _unpack_own(raw)
        verified = all(calculate_md5(raw / file) == digest for file, digest in DIGESTS.items()) if name else True
        _check_headers(raw)
    except OSError as error:
        raise UserError(f"cannot use the data folder {data_dir}: {error.strerror or error}"
                        f"{f' ({error.filename})' if error.filename else ''}; give another one with --data-dir") from error
    return ("MNIST", True) if verified else (name, False)


def _read_note(path: Path) -> str | None:
    """The name in a data folder's dataset.json; None where there is no such file."""
    if not path.exists():
        return None
    mend = 'write {"name": "what the data is"} into it, or delete it if the folder holds MNIST'
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["name"].strip()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path} is not a data set's note: {mend}") from None
    if not name or name.lower() == "mnist" or not name.isprintable() or "$" in name:  # mathematics to matplotlib
        raise UserError(f"{path} names the data set {name!r}, which is MNIST's or cannot stand on a plot: {mend}")
    return name


def _complete_mnist(data_dir: Path, raw: Path) -> None:
    """Bring the four published files into `raw`: those that are missing, and torn ones with a good .gz beside."""
    wanted = []
    for file, digest in DIGESTS.items():
        path, packed = raw / file, raw / f"{file}.gz"
        packed_is_good = packed.is_file() and check_integrity(str(packed), PACKED_DIGESTS[packed.name])
        if not path.exists():
            if packed.exists() and not packed_is_good:
                raise UserError(f"{packed} is not MNIST's file (another MD5): delete it to have it downloaded anew, "
                                f"or, if it is data of your own, say so in {data_dir / NOTE}: {{\"name\": \"...\"}}")
            wanted.append(file)
        elif calculate_md5(path) != digest:
            if not packed_is_good:
                raise UserError(f"{path} is not MNIST's file (another MD5): delete it to have it downloaded anew, "
                                f"or, if it is data of your own, say so in {data_dir / NOTE}: {{\"name\": \"...\"}}")
            print(f"{path} is damaged; unpacking it again from {packed.name}", flush=True)
            wanted.append(file)
    if wanted:
        raw.mkdir(parents=True, exist_ok=True)
    for file in wanted:
        # Apart first, then moved: a download that is cut off never stands under the file's name.
        with tempfile.TemporaryDirectory(dir=raw, prefix=".incoming-") as apart:
            packed = Path(apart, f"{file}.gz")
            if (raw / packed.name).exists():
                _unpack(raw / packed.name, Path(apart, file))
            else:
                _download(packed)
                os.replace(packed, raw / packed.name)
            os.replace(Path(apart, file), raw / file)


def _download(packed: Path) -> None:
    """torchvision's download of one file: MD5 checked, and unpacked beside it. Tries each of its mirrors."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)  # torchvision sets none: a silent server would hang it for ever
    folder = str(packed.parent.absolute())  # torchvision would take a leading ~ for the home folder
    bar = sys.stderr if sys.stderr.isatty() else io.StringIO()  # torchvision's bar would litter a log
    reasons = []
    try:
        for mirror in MNIST.mirrors:
            try:
                with contextlib.redirect_stderr(bar):
                    return download_and_extract_archive(
                        mirror + packed.name, folder, filename=packed.name, md5=PACKED_DIGESTS[packed.name])
            except (OSError, RuntimeError, ValueError, http.client.HTTPException) as error:
                reasons.append(str(error) or type(error).__name__)
    finally:
        socket.setdefaulttimeout(timeout)
    raw = packed.parent.parent
    raise UserError(
        f"no MNIST: {raw / packed.name} is missing and could not be downloaded ({'; '.join(reasons)}). Put the four "
        f"files into {raw}, or run `make MNIST=DIR` with a folder that has them, or train on a stand-in: "
        "`python rendered_digits.py`, then --data-dir data/rendered --out data/rendered with each script")


def _unpack(packed: Path, path: Path) -> None:
    try:
        if not (contents := gzip.decompress(packed.read_bytes())):
            raise EOFError("it is empty")
        path.write_bytes(contents)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{packed} is damaged ({error}): replace it") from None


def _unpack_own(raw: Path) -> None:
    """A data set of the user's own: its packed files are unpacked, nothing is downloaded or replaced."""
    for file in DIGESTS:
        if not (raw / file).exists():
            if not (raw / f"{file}.gz").exists():
                raise UserError(f"{raw / file} is missing: put it there, packed (.gz) or unpacked")
            with tempfile.TemporaryDirectory(dir=raw, prefix=".incoming-") as apart:
                _unpack(raw / f"{file}.gz", Path(apart, file))
                os.replace(Path(apart, file), raw / file)


def _check_headers(raw: Path) -> None:
    """Raise UserError unless the four files are IDX files of 28x28 images and as many labels, to the byte."""
    for part in ("train", "t10k"):
        counts = []
        for file, magic, shape in ((f"{part}-images-idx3-ubyte", 0x803, (28, 28)),
                                   (f"{part}-labels-idx1-ubyte", 0x801, ())):
            path = raw / file
            size, start = path.stat().st_size, 8 + 4 * len(shape)  # bytes: of the file, of its header
            with open(path, "rb") as stream:
                start_bytes = stream.read(start)
            header = struct.unpack(f">{start // 4}I", start_bytes.ljust(start, b"\0"))
            if header[0] != magic:
                raise UserError(f"{path} is not an IDX file of {'images' if shape else 'labels'} "
                                f"(magic number {header[0]:#x}, not {magic:#x}): replace it")
            if header[2:] != shape and size >= start:
                raise UserError(f"{path} holds images of {header[2]}x{header[3]} pixels; 28x28 needed")
            if size != (expected := start + header[1] * math.prod(shape)):
                raise UserError(f"{path} is cut off or too long ({size} bytes, its header promises {expected}): "
                                "replace it")
            counts.append(header[1])
        if counts[0] != counts[1] or not counts[0]:
            raise UserError(f"{raw / part}-*: {counts[0]} images but {counts[1]} labels; they must be as many, "
                            "and more than none")


def main():
    parser = Parser(__doc__)
    parser.add_argument("--data-dir", default="data", metavar="DIR", help="data folder (default: %(default)s)")
    name, verified = prepare(data_dir := parser.parse_args().data_dir)
    print(f"{name} in {Path(data_dir, 'MNIST', 'raw')}: " + ("all four files are the published ones" if verified
          else "sound files, but not MNIST"))


if __name__ == "__main__":
    main()
