"""Items 1 and 2: MNIST is loaded as published or not at all, and split without overlap."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import DATA
from torchvision.datasets import MNIST

from data import MEAN, STD, UserError, load_mnist, parse_digits, select_digits, split_validation

RAW = Path("MNIST", "raw")
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture
def folder(tmp_path):
    """A data folder of its own."""
    shutil.copytree(DATA, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there


# Item 1


def test_loading_writes_nothing(mnist):
    names = {path.name for path in (DATA / RAW).iterdir() if path.name.endswith("-ubyte") or path.suffix == ".gz"}
    assert names == {f"{part}-ubyte" for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3",
                                                  "t10k-labels-idx1")}


DAMAGES = {
    "overwritten pixels": (IMAGES, lambda good: good[:5000] + bytes(range(100)) + good[5100:]),
    "zeroed labels": (LABELS, lambda good: good[:8] + bytes(len(good) - 8)),
    "a label of 77": (LABELS, lambda good: good[:108] + bytes([77]) + good[109:]),
    "two labels exchanged": (LABELS, lambda good: good[:8] + good[9:10] + good[8:9] + good[10:]),
    "truncated": (IMAGES, lambda good: good[: len(good) // 2]),
    "empty": (IMAGES, lambda good: b""),
    "an HTML page": (LABELS, lambda good: b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
}


def test_a_damaged_file_is_named_and_a_good_copy_of_it_is_the_fix(folder):
    for name, damage in DAMAGES.values():
        path = folder / RAW / name
        good = path.read_bytes()
        path.write_bytes(damage(good))
        with pytest.raises(UserError, match=f"{name} is not the published MNIST: copy it from") as error:
            load_mnist(folder, train=False)
        assert "\n" not in str(error.value)
        path.write_bytes(good)
    assert len(load_mnist(folder, train=False).labels) == 10_000


def test_a_missing_file_is_named_where_it_cannot_be_downloaded(folder, offline):
    (folder / RAW / LABELS).unlink()
    with pytest.raises(UserError, match=f"cannot read {LABELS} in .*, nor download it .*: copy it from") as error:
        load_mnist(folder, train=True)
    assert "\n" not in str(error.value)


def test_a_failed_download_leaves_no_folder(tmp_path, offline):
    (tmp_path / "mine").mkdir()
    for data_dir in (tmp_path / "mine", tmp_path / "typo" / "deeper"):
        with pytest.raises(UserError, match="nor download it"):
            load_mnist(data_dir, train=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


# Item 2


def test_training_and_validation_images_are_all_images_once(mnist):
    numbered = mnist[0]._replace(images=torch.arange(60_000))
    train, validation = split_validation(numbered)
    assert torch.equal(torch.cat([train.images, validation.images]).sort().values, numbered.images)
    for split in (train, validation):
        assert torch.equal(split.labels, numbered.labels[split.images])


def test_the_validation_set_is_a_tenth_of_every_digit_and_always_the_same(mnist):
    torch.manual_seed(3)  # what others draw must not matter
    first = split_validation(mnist[0])[1]
    torch.manual_seed(4)
    assert torch.equal(first.images, split_validation(mnist[0])[1].images)
    share = first.labels.bincount() / mnist[0].labels.bincount()
    assert share.min() > 0.0999 and share.max() < 0.1001


def test_no_test_image_is_a_training_image(old_task):
    images = [{image.numpy().tobytes() for image in split.images} for split in old_task[1:]]
    assert not images[0] & images[1] and not images[0] & images[2] and not images[1] & images[2]


def test_images_are_normalised_by_the_training_set(mnist):
    pixels = mnist[0].images.float() / 255
    assert (pixels.mean().item(), pixels.std().item()) == pytest.approx((MEAN, STD), abs=5e-5)
    everything = select_digits(mnist[0], tuple(range(10))).images
    assert (everything.mean().item(), everything.std().item()) == pytest.approx((0, 1), abs=1e-3)
    expected = (mnist[0].images[17].float() / 255 - MEAN) / STD
    torch.testing.assert_close(everything[17, 0], expected)


@pytest.mark.parametrize("spec, digits", [("0-6", (0, 1, 2, 3, 4, 5, 6)), ("7-9", (7, 8, 9)), ("5", (5,)),
                                          ("9,1,4,5", (1, 4, 5, 9)), ("0-2, 8", (0, 1, 2, 8)), ("3-3", (3,))])
def test_digits(spec, digits):
    assert parse_digits(spec) == digits


@pytest.mark.parametrize("spec", ["", ",", "6-0", "0-10", "11", "six", "1,1", "0-4,4-9", "7-", "-7", "\u00b2", "1-2-3"])
def test_bad_digits(spec):
    with pytest.raises(UserError, match="--digits"):
        parse_digits(spec)
