"""The stand-in has MNIST's format, is reproducible and not too easy, and never overwrites data of others."""

import json

import numpy as np
import pytest
from torchvision.datasets import MNIST

from errors import UserError
from rendered_digits import render, write

FILES = {
    "train-images-idx3-ubyte": (0x0803, 300, 28, 28),
    "train-labels-idx1-ubyte": (0x0801, 300),
    "t10k-images-idx3-ubyte": (0x0803, 50, 28, 28),
    "t10k-labels-idx1-ubyte": (0x0801, 50),
}


def read(data_dir):
    return {file.name: file.read_bytes() for file in (data_dir / "MNIST" / "raw").iterdir()}


def test_the_files_have_mnist_s_headers_and_nothing_else_is_left(tmp_path):
    write(tmp_path, train=300, test=50, seed=3)
    for file, content in read(tmp_path).items():
        header = np.frombuffer(content, ">u4", len(FILES[file]))
        assert tuple(header) == FILES[file]
        assert len(content) == header.nbytes + np.prod(FILES[file][1:])
    note = json.loads((tmp_path / "dataset.json").read_text())
    assert note == {"name": "rendered digits", "seed": 3, "train": 300, "test": 50}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MNIST", "dataset.json"]
    assert len(read(tmp_path)) == 4


def test_torchvision_reads_what_was_rendered(tmp_path):
    write(tmp_path, train=300, test=50)
    streams = np.random.SeedSequence(0).spawn(2)
    for is_train, count, stream in ((True, 300, streams[0]), (False, 50, streams[1])):
        images, labels = render(count, np.random.default_rng(stream))
        dataset = MNIST(tmp_path, train=is_train)
        assert np.array_equal(dataset.data.numpy(), images)
        assert np.array_equal(dataset.targets.numpy(), labels)
        assert set(np.bincount(labels, minlength=10)) == {count // 10}
        assert (np.diff(labels.astype(int)) != 0).mean() > 0.7  # shuffled, but not simply 0, 1, 2, ...
        assert (np.diff(labels.astype(int)) % 10 == 1).mean() < 0.4


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for folder, seed in (("first", 1), ("again", 1), ("other", 2)):
        write(tmp_path / folder, train=300, test=50, seed=seed)
    first, again, other = (read(tmp_path / folder) for folder in ("first", "again", "other"))
    assert first == again
    assert all(first[file] != other[file] for file in FILES)


def test_images_are_like_mnist_s():
    images, labels = render(2000, np.random.default_rng(0))
    assert images.dtype == labels.dtype == np.uint8
    assert 0.10 < images.mean() / 255 < 0.16  # MNIST: 0.13
    assert images[:, [0, -1], :].mean() < 20 and images[:, :, [0, -1]].mean() < 20  # the digit is inside
    down, right = np.mgrid[:28, :28]
    for places in (down, right):
        assert abs((images * places).sum() / images.sum() - 13.5) < 0.5  # and on the whole in the middle


def test_no_image_is_there_twice():
    train, test = (render(2000, np.random.default_rng(stream))[0] for stream in np.random.SeedSequence(0).spawn(2))
    assert len(np.unique(np.concatenate([train, test]).reshape(4000, -1), axis=0)) == 4000


def test_digits_can_be_told_apart_but_not_by_their_mean_alone():
    (images, labels), (test_images, test_labels) = (render(3000, np.random.default_rng(seed)) for seed in (1, 2))
    means = np.stack([images[labels == digit].mean(0) for digit in range(10)])  # [10, 28, 28]
    distances = ((test_images[:, None] - means) ** 2).sum((2, 3))
    accuracy = (distances.argmin(1) == test_labels).mean()
    assert 0.5 < accuracy < 0.8  # chance is 0.1; MNIST gives 0.82


def test_an_earlier_stand_in_is_replaced(tmp_path):
    write(tmp_path, train=300, test=50, seed=1)
    earlier = read(tmp_path)
    write(tmp_path, train=200, test=20, seed=1)
    later = read(tmp_path)
    assert later.keys() == earlier.keys() and all(later[file] != earlier[file] for file in FILES)
    assert json.loads((tmp_path / "dataset.json").read_text())["train"] == 200


@pytest.mark.parametrize("file", [*FILES, *(f"{file}.gz" for file in FILES)])
@pytest.mark.parametrize("note", [None, '{"name": "my digits"}', "[]", "not JSON"])
def test_data_of_others_stays(tmp_path, file, note):
    theirs = tmp_path / "MNIST" / "raw" / file
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    if note is not None:
        (tmp_path / "dataset.json").write_text(note)
    with pytest.raises(UserError, match="--data-dir") as error:
        write(tmp_path, train=100, test=10)
    assert str(tmp_path) in str(error.value)
    assert read(tmp_path) == {file: b"theirs"}
    assert note is None or (tmp_path / "dataset.json").read_text() == note


def test_a_note_of_others_stays(tmp_path):
    (tmp_path / "dataset.json").write_text('{"name": "my digits"}')
    with pytest.raises(UserError, match="--data-dir"):
        write(tmp_path, train=100, test=10)
    assert (tmp_path / "dataset.json").read_text() == '{"name": "my digits"}'


def test_a_stopped_run_leaves_the_earlier_set_whole(tmp_path, monkeypatch):
    write(tmp_path, train=100, test=10)
    earlier = read(tmp_path)

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("rendered_digits.render", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, train=200, test=20)
    assert read(tmp_path) == earlier
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MNIST", "dataset.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="file.*--data-dir"):
        write(tmp_path / "file" / "below", train=100, test=10)


@pytest.mark.parametrize("wrong, flag", [({"train": 99}, "--train 99"), ({"test": 9}, "--test 9"),
                                         ({"train": 10**12}, "--train"), ({"seed": -1}, "--seed -1")])
def test_sizes_and_seeds_out_of_range_are_named(tmp_path, wrong, flag):
    with pytest.raises(UserError, match=flag):
        write(tmp_path / "data", **{"train": 100, "test": 10, **wrong})
    assert not (tmp_path / "data").exists()
