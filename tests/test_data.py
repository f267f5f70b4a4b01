"""From files to tensors: the right digits, the right split, and nothing that is not what it says it is.

Files that lie are made from a tiny data set of 240 + 30 images, in two roles: `published` passes for MNIST (the
digests that data.py knows are replaced by its own), `own` is a user's own data with a dataset.json.
"""

import gzip
import hashlib
import json
import random
import shutil
import struct
import time

import numpy as np
import pytest
import torch
from conftest import snapshot
from hypothesis import example, given
from hypothesis import strategies as st
from torchvision.datasets import MNIST

import data
from data import load_task, parse_digits, prepare, spell_digits, split_validation
from errors import UserError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = data.DIGESTS


def idx(array):
    """A uint8 array in MNIST's file format."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def make_files(per_digit=(24, 3), digits=range(10)):
    """The four files' bytes: images of noise, the same at every call."""
    generator, files = np.random.default_rng(0), {}
    for part, count in zip(("train", "t10k"), per_digit, strict=True):
        labels = generator.permutation(np.repeat(np.array(digits, np.uint8), count))
        files[f"{part}-images-idx3-ubyte"] = idx(generator.integers(0, 256, (len(labels), 28, 28), np.uint8))
        files[f"{part}-labels-idx1-ubyte"] = idx(labels)
    return files


def pack(contents):
    return gzip.compress(contents, 1, mtime=0)


def put(folder, files):
    """Write files as a data folder holds them; return the folder in which they lie."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (raw / name).unlink(missing_ok=True)  # ext4 waits for the disk where a file is written over
        (raw / name).write_bytes(contents)
    return raw


def note(folder, name="noise"):
    (folder / data.NOTE).write_text(json.dumps({"name": name}), encoding="utf-8")
    return folder


@pytest.fixture
def published(monkeypatch):
    """Tiny files that pass for the published ones; they cannot be downloaded."""
    files = make_files()
    monkeypatch.setattr(data, "DIGESTS", {name: hashlib.md5(files[name]).hexdigest() for name in files})
    monkeypatch.setattr(data, "PACKED_DIGESTS",
                        {f"{name}.gz": hashlib.md5(pack(files[name])).hexdigest() for name in files})
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:1/"])
    return files


@pytest.fixture
def own(tmp_path):
    """A folder with a data set of the user's own, and that folder's MNIST/raw."""
    return tmp_path, put(note(tmp_path), make_files())


def refusal(folder, digits=(3,)):
    """The line with which a data folder is refused; it must leave every file as it was."""
    before = snapshot(folder)
    with pytest.raises(UserError) as refused:
        load_task(folder, digits)
    assert snapshot(folder) == before
    return str(refused.value)


# --digits


@st.composite
def specs(draw):
    """A valid --digits, with the digits that it means: runs and single digits in any order, with any spaces."""
    digits = sorted(draw(st.sets(st.integers(0, 9), min_size=1)))
    runs = [[digits[0]]]
    for digit in digits[1:]:
        if digit == runs[-1][-1] + 1 and draw(st.booleans()):
            runs[-1].append(digit)
        else:
            runs.append([digit])
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 or draw(st.booleans()) else str(run[0]) for run in runs]
    spaces = st.sampled_from(["", " ", "  "])
    return ",".join(draw(spaces) + part + draw(spaces) for part in draw(st.permutations(parts))), tuple(digits)


@given(specs())
@example(("0-6", (0, 1, 2, 3, 4, 5, 6)))
@example(("1,4,5,9", (1, 4, 5, 9)))
def test_every_valid_spec_gives_its_digits(spec):
    assert parse_digits(spec[0]) == spec[1]


@given(st.text() | st.text("0123456789-, ", max_size=12))
@example("")
def test_any_other_spec_gives_sorted_digits_or_is_refused(text):
    try:
        digits = parse_digits(text)
    except UserError:
        return
    assert digits and set(digits) <= set(range(10)) and list(digits) == sorted(set(digits))


@pytest.mark.parametrize("spec", ["", " ", ",", "1,", ",1", "1,,2", "6-0", "0-10", "10", "a", "-1", "1-", "--", "1-2-3",
                                  "1 2", "1;2", "1.0", "0x1", "1,1", "0-4,4-9", "0-4,2", "٣", "²", "0–6", "７", "1\n2"])
def test_a_malformed_empty_or_overlapping_spec_is_refused(spec):
    with pytest.raises(UserError, match="--digits"):
        parse_digits(spec)


@given(st.sets(st.integers(0, 9), min_size=1))
def test_digits_are_spelled_so_that_they_can_be_read_again(digits):
    assert parse_digits(spell_digits(tuple(sorted(digits)))) == tuple(sorted(digits))


# The split


@given(st.lists(st.integers(0, 60), min_size=10, max_size=10), st.integers(0, 2**32 - 1))
def test_validation_is_a_stratified_tenth_and_nothing_is_lost_or_shared(counts, seed):
    labels = torch.from_numpy(np.random.default_rng(seed).permutation(np.repeat(np.arange(10), counts)))
    train, validation = split_validation(labels)
    assert sorted(train.tolist() + validation.tolist()) == list(range(len(labels)))
    for digit in range(10):
        assert (labels[validation] == digit).sum() == round(counts[digit] / 10)


def test_validation_images_are_the_same_whatever_was_drawn_before(rendered):
    tasks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        np.random.seed(seed)
        state = torch.get_rng_state()
        tasks.append(load_task(rendered, (7, 8, 9)))
        assert torch.equal(torch.get_rng_state(), state)  # nor does the split change what is drawn after it
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(tasks[0], split).images, getattr(tasks[1], split).images)


def of_digit(split, digit):
    return split.images[split.labels == digit]


def test_validation_images_of_a_digit_are_the_same_in_every_task(rendered):
    tasks = [load_task(rendered, digits) for digits in ((8,), (8, 9), (7, 8, 9), tuple(range(10)))]
    for task in tasks[1:]:
        assert len(of_digit(task.validation, 8)) == 30
        assert torch.equal(of_digit(task.validation, 8), of_digit(tasks[0].validation, 8))
        assert torch.equal(of_digit(task.train, 8), of_digit(tasks[0].train, 8))


def read_files(folder, part):
    """Images and labels as they stand in the files, read without torchvision."""
    raw = folder / "MNIST" / "raw"
    labels = np.frombuffer((raw / f"{part}-labels-idx1-ubyte").read_bytes()[8:], np.uint8)
    return np.frombuffer((raw / f"{part}-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(-1, 28, 28), labels


def identities(images):
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("digits", [(0, 1, 2, 3, 4, 5, 6), (7, 8, 9), (1, 4, 5, 9)])
def test_a_task_holds_its_digits_images_each_in_one_split(rendered, digits):
    task = load_task(rendered, digits)
    assert (task.name, task.verified, task.digits) == ("rendered digits", False, digits)
    seen = {}
    for name in ("train", "validation", "test"):
        split = getattr(task, name)
        assert split.images.dtype == torch.float32 and split.labels.dtype == torch.int64
        assert set(split.labels.tolist()) == set(digits)
        pixels = ((split.images * data.STD + data.MEAN) * 255).round().to(torch.uint8).squeeze(1).numpy()
        seen[name] = identities(pixels)
        assert len(seen[name]) == len(split.labels)
        images, labels = read_files(rendered, "t10k" if name == "test" else "train")
        label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert [label_of[image.tobytes()] for image in pixels] == split.labels.tolist()
    assert not seen["train"] & seen["validation"] and not (seen["train"] | seen["validation"]) & seen["test"]
    images, labels = read_files(rendered, "train")
    assert seen["train"] | seen["validation"] == identities(images[np.isin(labels, digits)])
    images, labels = read_files(rendered, "t10k")
    assert seen["test"] == identities(images[np.isin(labels, digits)])


# The real MNIST


@pytest.mark.parametrize("digits, train, validation, test", [((0, 1, 2, 3, 4, 5, 6), 41_935, 4_193, 6_989),
                                                             ((7, 8, 9), 18_065, 1_807, 3_011)])
def test_mnist_is_recognised_and_counted(mnist, digits, train, validation, test):
    task = load_task(mnist, digits)
    assert (task.name, task.verified) == ("MNIST", True)
    assert len(task.train.labels) + len(task.validation.labels) == train
    assert abs(len(task.validation.labels) - validation) <= len(digits) / 2  # each digit's tenth is rounded
    assert len(task.test.labels) == test


def test_mnist_s_training_pixels_have_the_mean_and_deviation_that_images_are_normalised_by(mnist):
    prepare(mnist)
    counts, values = np.bincount(read_files(mnist, "train")[0].ravel(), minlength=256), np.arange(256) / 255
    mean = np.average(values, weights=counts)
    assert round(mean, 4) == data.MEAN
    assert round(np.average((values - mean) ** 2, weights=counts) ** 0.5, 4) == data.STD


def test_checking_mnist_takes_a_fifth_of_a_second_at_most(mnist):
    prepare(mnist)
    seconds = []
    for _ in range(5):
        began = time.process_time()  # of the processor: other processes do not count
        prepare(mnist)
        seconds.append(time.process_time() - began)
    assert min(seconds) < 0.2


def test_what_torchvision_loads_without_a_word_is_refused_here(mnist, tmp_path):
    prepare(mnist)
    raw = put(tmp_path, {})
    for name in data.DIGESTS:
        shutil.copy(mnist / "MNIST" / "raw" / name, raw)
    assert prepare(tmp_path) == ("MNIST", True)
    for name, position, contents in ((TRAIN_IMAGES, 10_000_000, bytes(28 * 28)), (TRAIN_LABELS, 8 + 1000, bytes(5000)),
                                     (TEST_LABELS, 8 + 100, bytes([77]))):
        good = (raw / name).read_bytes()
        (raw / name).write_bytes(good[:position] + contents + good[position + len(contents):])
        MNIST(tmp_path, train=name.startswith("train"))
        with pytest.raises(UserError, match=f"{name} is not MNIST's file"):
            prepare(tmp_path)
        (raw / name).write_bytes(good)


# Files that pass for MNIST and are not


def zero_labels(contents):
    return contents[:8] + bytes(100) + contents[108:]


DAMAGES = {
    "overwritten pixels": (TRAIN_IMAGES, lambda contents: contents[:5000] + bytes(784) + contents[5784:]),
    "one bit": (TEST_IMAGES, lambda contents: contents[:-1] + bytes([contents[-1] ^ 1])),
    "zeroed labels": (TRAIN_LABELS, zero_labels),
    "a label of 77": (TEST_LABELS, lambda contents: contents[:-1] + bytes([77])),
    "cut off": (TEST_IMAGES, lambda contents: contents[: len(contents) // 2]),
    "cut off in the header": (TRAIN_LABELS, lambda contents: contents[:6]),
    "too long": (TRAIN_IMAGES, lambda contents: contents + b"\0"),
    "empty": (TRAIN_LABELS, lambda contents: b""),
    "an HTML page": (TEST_LABELS, lambda contents: b"<!DOCTYPE html><title>403 Forbidden</title>"),
    "wrong magic number": (TRAIN_IMAGES, lambda contents: b"\0\0\x08\x04" + contents[4:]),
    "images as labels": (TRAIN_LABELS, lambda contents: b"\0\0\x08\x03" + contents[4:]),
    "still packed": (TEST_LABELS, pack),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_left_alone(published, tmp_path, damage):
    name, harm = DAMAGES[damage]
    raw = put(tmp_path, published | {name: harm(published[name])})
    line = refusal(tmp_path)
    assert str(raw / name) in line and "delete it to have it downloaded anew" in line


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_with_a_good_gz_beside_it_is_unpacked_again_and_says_so(published, tmp_path, capsys, damage):
    name, harm = DAMAGES[damage]
    raw = put(tmp_path, published | {name: harm(published[name]), f"{name}.gz": pack(published[name])})
    assert prepare(tmp_path) == ("MNIST", True)
    assert f"{name} is damaged; unpacking it again" in capsys.readouterr().out
    assert snapshot(raw) == published | {f"{name}.gz": pack(published[name])}
    prepare(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("unpacked", [True, False], ids=["unpacked", "missing"])
def test_a_damaged_gz_mends_nothing(published, tmp_path, unpacked):
    files = published | {f"{TRAIN_IMAGES}.gz": pack(published[TRAIN_IMAGES])[:-100]}
    if unpacked:
        files[TRAIN_IMAGES] = published[TRAIN_IMAGES][:-1]
    else:
        del files[TRAIN_IMAGES]
    put(tmp_path, files)
    assert f"{TRAIN_IMAGES}{'' if unpacked else '.gz'} is not MNIST's file" in refusal(tmp_path)


def test_packed_files_are_unpacked(published, tmp_path):
    packed = {f"{name}.gz": pack(contents) for name, contents in published.items()}
    raw = put(tmp_path, packed)
    assert prepare(tmp_path) == ("MNIST", True)
    assert snapshot(raw) == published | packed


def test_a_folder_that_has_everything_is_only_read(published, tmp_path):
    """So it may be read-only: nothing is created in it, not even for a moment."""
    raw = put(tmp_path, published)
    before = [folder.stat().st_mtime_ns for folder in (tmp_path, raw.parent, raw)]
    time.sleep(0.02)
    load_task(tmp_path, (1, 2))
    assert [folder.stat().st_mtime_ns for folder in (tmp_path, raw.parent, raw)] == before


def test_the_old_torchvision_s_processed_folder_is_not_used(published, tmp_path):
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(240, 28, 28, dtype=torch.uint8), torch.zeros(240, dtype=torch.int64)), processed / name)
    with pytest.raises(UserError, match="no MNIST"):
        prepare(tmp_path)
    put(tmp_path, published)
    task = load_task(tmp_path, (3, 4))
    assert set(task.train.labels.tolist()) == {3, 4} and len(task.train.images.unique()) > 2


def test_mnist_with_a_note_is_mnist_all_the_same(published, tmp_path):
    put(note(tmp_path), published)
    assert prepare(tmp_path) == ("MNIST", True)


# A user's own data


def test_own_data_is_loaded_under_its_name_and_never_verified(own):
    folder, _ = own
    for name in ("noise", "KMNIST くずし字", "not MNIST"):
        task = load_task(note(folder, name), (3, 5))
        assert (task.name, task.verified) == (name, False)
        assert [len(split.labels) for split in (task.train, task.validation, task.test)] == [44, 4, 6]


def test_own_data_may_be_packed(own):
    folder, raw = own
    for name, contents in make_files().items():
        (raw / f"{name}.gz").write_bytes(pack(contents))
        (raw / name).unlink()
    assert prepare(folder) == ("noise", False)
    (raw / TEST_LABELS).unlink()
    (raw / f"{TEST_LABELS}.gz").write_bytes(pack(b"")[:-3])
    assert f"{TEST_LABELS}.gz is damaged" in refusal(folder)


@pytest.mark.parametrize("text", ["", " ", "noise", '"noise"', "[]", "null", "{}", '{"name": null}', '{"name": ""}',
                                  '{"name": "  "}', '{"name": 7}', '{"name": ["MNIST"]}', '{"name": "MNIST"}',
                                  '{"name": " mnist "}', '{"name": "a\\nb"}', '{"name": "\\u001b[2J"}',
                                  '{"name": "\\ud800"}', '{"Name": "noise"}', '{"name": "noise"', "\0", "[" * 100_000,
                                  '{"name": "$x^{$"}'])
def test_a_broken_note_is_refused(own, text):
    folder, _ = own
    (folder / data.NOTE).write_text(text)
    assert str(folder / data.NOTE) in refusal(folder)


def test_a_note_in_another_encoding_and_a_folder_of_its_name_are_refused(own):
    folder, _ = own
    (folder / data.NOTE).write_bytes('{"name": "é"}'.encode("latin-1"))
    assert str(folder / data.NOTE) in refusal(folder)
    (folder / data.NOTE).unlink()
    (folder / data.NOTE).mkdir()
    assert str(folder / data.NOTE) in refusal(folder)


def with_labels(change):
    """Both label files' digits run through a function."""
    return lambda files: files | {name: files[name][:8] + bytes(map(change, files[name][8:]))
                                  for name in (TRAIN_LABELS, TEST_LABELS)}


OWN_FAULTS = {
    "label 77": (lambda files: files | {TRAIN_LABELS: files[TRAIN_LABELS][:-1] + bytes([77])},
                 "label 77 at position 239"),
    "label 10": (lambda files: files | {TEST_LABELS: files[TEST_LABELS][:8] + b"\x0a" + files[TEST_LABELS][9:]},
                 "label 10 at position 0"),
    "cut off": (lambda files: files | {TRAIN_IMAGES: files[TRAIN_IMAGES][:-1]}, "cut off"),
    "cut off in the header": (lambda files: files | {TRAIN_IMAGES: files[TRAIN_IMAGES][:10]}, "cut off"),
    "too long": (lambda files: files | {TEST_LABELS: files[TEST_LABELS] + b"\0"}, "too long"),
    "empty": (lambda files: files | {TEST_IMAGES: b""}, "not an IDX file of images"),
    "an HTML page": (lambda files: files | {TEST_LABELS: b"<html>Too many requests</html>"},
                     "not an IDX file of labels"),
    "wrong magic number": (lambda files: files | {TRAIN_LABELS: b"\0\0\x08\x03" + files[TRAIN_LABELS][4:]}, "0x803"),
    "other counts": (lambda files: files | {TEST_LABELS: idx(np.arange(29, dtype=np.uint8) % 10)},
                     "30 images but 29 labels"),
    "27x28": (lambda files: files | {TRAIN_IMAGES: idx(np.zeros((240, 27, 28), np.uint8))}, "27x28"),
    "as many bytes of 28x56": (lambda files: files | {TRAIN_IMAGES: idx(np.zeros((120, 28, 56), np.uint8))}, "28x56"),
    "no images": (lambda files: files | {TEST_IMAGES: idx(np.zeros((0, 28, 28), np.uint8)),
                                         TEST_LABELS: idx(np.zeros(0, np.uint8))}, "0 images"),
    "a file missing": (lambda files: {name: files[name] for name in files if name != TEST_LABELS}, "is missing"),
    "a digit without images": (with_labels(lambda label: 4 if label == 3 else label), "0 images of the digit 3"),
    "too few for validation": (lambda files: make_files(per_digit=(9, 3)), "9 images of the digit 0; at least 10"),
    "no test image": (lambda files: files | {TEST_LABELS: with_labels(lambda label: label or 1)(files)[TEST_LABELS]},
                      "0 images of the digit 0"),
}


@pytest.mark.parametrize("fault", OWN_FAULTS)
def test_own_data_that_cannot_be_used_is_refused_with_the_reason(tmp_path, fault):
    change, reason = OWN_FAULTS[fault]
    put(note(tmp_path), change(make_files()))
    line = refusal(tmp_path, (0, 3))
    assert reason in line and str(tmp_path) in line


def test_ten_images_of_a_digit_are_enough(tmp_path):
    put(note(tmp_path), make_files(per_digit=(10, 1)))
    task = load_task(tmp_path, (0, 3))
    assert [len(split.labels) for split in (task.train, task.validation, task.test)] == [18, 2, 2]


# Fuzz: the loader against a reader of its own


def sound(files):
    """Whether four files can be loaded for the digit 0; written from the description of the format alone."""
    for part, least in (("train", 10), ("t10k", 1)):
        images, labels = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        count = len(labels) - 8
        if labels[:8] != struct.pack(">2I", 0x801, count % 2**32) or \
                images[:16] != struct.pack(">4I", 0x803, count % 2**32, 28, 28) or len(images) != 16 + 784 * count:
            return False
        if count == 0 or max(labels[8:]) > 9 or labels[8:].count(0) < least:
            return False
    return True


def mutate(files, chance):
    """Something done to one file, or the same to an images and a labels file; mostly in the header."""
    name = chance.choice(list(files))
    contents = bytearray(files[name])
    header = 16 if "images" in name else 8
    field, place = 4 * chance.randrange(header // 4), chance.randrange(len(contents))
    length = chance.choice((1, 2, 4, 28, 784, chance.randrange(1, 2000)))
    kind = chance.randrange(10)
    if kind == 0:
        contents[chance.randrange(header)] ^= 1 << chance.randrange(8)
    elif kind == 1:
        (old,) = struct.unpack_from(">I", contents, field)
        new = chance.choice((0, 1, 9, 10, 27, 29, 0x801, 0x802, 0x803, 2**31, 2**32 - 1, old + 1, old ^ 1, old))
        struct.pack_into(">I", contents, field, new)
    elif kind == 2:
        contents[field : field + 4] = contents[field : field + 4][::-1]  # the other byte order
    elif kind == 3:
        del contents[place:]
    elif kind == 4:
        del contents[place : place + length]
    elif kind == 5:
        contents[place:place] = chance.randbytes(length)
    elif kind == 6:
        contents += chance.randbytes(length)
    elif kind == 7:
        contents[place : place + length] = chance.randbytes(len(contents[place : place + length]))
    elif kind == 8:
        contents = bytearray(files[chance.choice(list(files))])
    else:  # a change that may well be sound: some images fewer, in both files and their headers
        part = name.split("-")[0]
        images, labels = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        count = chance.randrange(len(labels) - 7)
        return files | {f"{part}-images-idx3-ubyte": images[:4] + struct.pack(">I", count) + images[8:16 + 784 * count],
                        f"{part}-labels-idx1-ubyte": labels[:4] + struct.pack(">I", count) + labels[8:8 + count]}
    return files | {name: bytes(contents)}


def test_mutated_files_are_loaded_if_sound_and_refused_if_not(tmp_path):
    chance, original, outcomes = random.Random(0), make_files(per_digit=(13, 2), digits=(0,)), {True: 0, False: 0}
    original[TRAIN_LABELS] = original[TRAIN_LABELS][:-1] + b"\1"
    raw = put(note(tmp_path), original)
    for _ in range(3000):
        files = mutate(original, chance)
        put(tmp_path, files)
        try:
            task = load_task(tmp_path, (0,))
        except UserError as error:
            assert not sound(files), error
        else:
            assert sound(files) and not task.verified
            images, labels = read_files(tmp_path, "t10k")
            expected = (torch.from_numpy(images[labels == 0]).float() / 255 - data.MEAN) / data.STD
            torch.testing.assert_close(task.test.images[:, 0], expected)
        outcomes[sound(files)] += 1
        assert snapshot(raw) == files
    assert outcomes[True] > 300 and outcomes[False] > 1500, outcomes


def test_mutated_packed_files_are_loaded_whole_or_refused(tmp_path):
    chance, original, loaded = random.Random(0), make_files(per_digit=(13, 2), digits=(0,)), 0
    raw = put(note(tmp_path), original)
    packed = pack(original[TRAIN_LABELS])
    for _ in range(500):
        contents = bytearray(packed)
        place = chance.randrange(len(contents))
        if chance.random() < 0.7:
            contents[place] ^= 1 << chance.randrange(8)
        else:
            del contents[place:]
        (raw / TRAIN_LABELS).unlink(missing_ok=True)
        put(tmp_path, {f"{TRAIN_LABELS}.gz": contents})
        try:
            prepare(tmp_path)
        except UserError:
            assert not (raw / TRAIN_LABELS).exists()
        else:
            loaded += 1
            assert (raw / TRAIN_LABELS).read_bytes() == original[TRAIN_LABELS]
    assert 0 < loaded < 250


@given(st.binary(max_size=60) | st.text(max_size=30).map(lambda name: json.dumps({"name": name}).encode()))
def test_any_note_gives_a_printable_name_that_is_not_mnist_or_is_refused(tmp_path_factory, contents):
    path = tmp_path_factory.getbasetemp() / "any-note.json"
    path.write_bytes(contents)
    try:
        name = data._read_note(path)
    except UserError:
        return
    assert name and name == name.strip() and name.isprintable() and name.lower() != "mnist"
