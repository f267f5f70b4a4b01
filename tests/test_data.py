"""Items 1 and 2: MNIST is loaded as published or not at all, and split without overlap."""

import pytest
import torch
from conftest import DATA
from torchvision.datasets import MNIST

import data
from data import UserError, few_labels, load_mnist, load_task, parse_digits, select_digits, split_validation

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A data folder's MNIST/raw with the test set, without a network; the training set's files are there but empty."""
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])  # nobody listens there
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for path in (DATA / "MNIST" / "raw").glob("*-ubyte"):
        (raw / path.name).write_bytes(path.read_bytes() if path.name.startswith("t10k") else b"")
    return raw


def refused(data_dir):
    with pytest.raises(UserError) as error:
        load_mnist(data_dir, train=False)
    assert "\n" not in str(error.value) and str(data_dir) in str(error.value) and "--data-dir" in str(error.value)
    return str(error.value)


# Item 1


def test_loading_writes_nothing_and_archives_beside_the_files_disturb_nothing(raw):
    (raw / f"{LABELS}.gz").write_bytes(b"as torchvision leaves it after a download")
    before = {path: path.stat().st_mtime_ns for path in raw.parent.rglob("*")}
    assert len(load_mnist(raw.parents[1], train=False).labels) == 10_000
    assert {path: path.stat().st_mtime_ns for path in raw.parent.rglob("*")} == before


@pytest.mark.parametrize("name, damage", {
    "overwritten pixels": (IMAGES, lambda good: good[:5000] + bytes(range(100)) + good[5100:]),
    "a label of 77": (LABELS, lambda good: good[:108] + bytes([77]) + good[109:]),
    "two labels exchanged": (LABELS, lambda good: good[:8] + good[9:10] + good[8:9] + good[10:]),
}.values())
def test_what_torchvision_loads_without_a_word_is_compared_with_the_published_data(raw, name, damage):
    (raw / name).write_bytes(damage((raw / name).read_bytes()))
    assert "is not the published MNIST" in refused(raw.parents[1])


def test_files_that_an_old_torchvision_left_are_not_taken_for_mnist(raw, mnist):
    processed = raw.parent / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(10_000, 28, 28, dtype=torch.uint8), mnist[1].labels), processed / name)
    assert "MNIST/processed" in refused(raw.parents[1])


def test_what_cannot_be_loaded_is_one_line(raw, tmp_path):
    (raw / IMAGES).write_bytes(b"<!DOCTYPE html>")
    assert "cannot load MNIST" in refused(tmp_path)
    (raw / IMAGES).unlink()
    assert "Error downloading" in refused(tmp_path)
    (raw / IMAGES).mkdir()
    assert "cannot load MNIST" in refused(tmp_path)
    assert "cannot load MNIST" in refused(tmp_path / "typo")


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


def test_images_are_normalised_by_the_training_set(mnist):
    images = mnist[0].images
    assert images.shape == (60_000, 1, 28, 28) and images.dtype == torch.float32
    assert (images.mean().item(), images.std().item()) == pytest.approx((0, 1), abs=5e-4)
    darkest, brightest = -data.MEAN / data.STD, (1 - data.MEAN) / data.STD
    assert (images.min().item(), images.max().item()) == pytest.approx((darkest, brightest))


def test_selecting_gives_the_images_of_these_digits_however_often(mnist):
    eights = select_digits(select_digits(mnist[1], (7, 8, 9)), (8,))
    assert torch.equal(eights.images, mnist[1].images[mnist[1].labels == 8]) and (eights.labels == 8).all()


def test_draws_of_few_labels_are_nested_balanced_and_in_order(mnist):
    def places(count, seed):
        numbered = mnist[0]._replace(images=torch.arange(60_000))
        drawn = few_labels(numbered, count, seed)
        assert drawn.labels.bincount().tolist() == [count] * 10
        assert torch.equal(drawn.images, drawn.images.sort().values)
        assert torch.equal(drawn.labels, mnist[0].labels[drawn.images])
        return set(drawn.images.tolist())

    assert places(5, 0) < places(30, 0)
    assert places(5, 0) == places(5, 0) != places(5, 1)
    for split, count, possible in ((mnist[0], 0, "1 to 5421"), (mnist[0], 5422, "1 to 5421"),
                                   (select_digits(mnist[0], (8,)), 1, "2 to 5851")):  # BatchNorm needs two images
        with pytest.raises(UserError, match=f"can be {possible}, not {count}"):
            few_labels(split, count, 0)


def test_a_tasks_few_labels_are_drawn_by_its_seed():
    whole, few = load_task(DATA, "8"), load_task(DATA, "8", per_digit=5, seed=1)
    assert torch.equal(few.train.images, few_labels(whole.train, 5, seed=1).images)
    assert torch.equal(few.validation.images, whole.validation.images)


@pytest.mark.parametrize("spec, digits, spelt", [
    ("0-6", (0, 1, 2, 3, 4, 5, 6), "0-6"), ("9,1,4,5", (1, 4, 5, 9), "1, 4, 5, 9"), ((7, 8), (7, 8), "7, 8"),
    ("0-2, 8", (0, 1, 2, 8), "0, 1, 2, 8")])
def test_digits(spec, digits, spelt):
    assert parse_digits(spec) == digits and data.spell_digits(digits) == spelt


@pytest.mark.parametrize("spec", ["", "6-0", "0-10", "six", "1,1", "-7", (7, 12)])
def test_bad_digits(spec):
    with pytest.raises(ValueError, match="digit"):
        parse_digits(spec)
