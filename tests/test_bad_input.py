"""What a user can get wrong: each is one line that names the thing, exit status 2, and nothing is overwritten."""

import errno
import io
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from conftest import FOLDERS, ROOT, SCRIPTS, call, snapshot, start
from test_data import make_files, put
from torch import nn
from torchvision.datasets import MNIST

from errors import UserError
from model import build_model
from runs import load_base

ABSENT = "mps" if torch.cuda.is_available() else "cuda"

FLAGS = [  # (flags, what the line must name)
    *((["--digits", value], "--digits") for value in ("", ",", "6-0", "0-10", "11", "six", "1,1", "0-4,4-9", "7-")),
    *((["--epochs", value], "--epochs") for value in ("0", "-1", "1.5", "1e3", "many", "", "²", "99999999999")),
    *((["--batch-size", value], "--batch-size") for value in ("0", "1", "-128", "12.5", "x", "")),
    *((["--learning-rate", value], "--learning-rate") for value in ("0", "-0.1", "nan", "inf", "1e-400", "fast", "")),
    *((["--seed", value], "--seed") for value in ("-1", "0.5", "seed", "")),
    *((["--device", value], "--device") for value in (ABSENT, "tpu", "")),
    (["--seed"], "--seed"), (["--colour", "red"], "--colour"), (["7-9"], "7-9"),
]
CUTS = [
    *((["--frozen", frozen, "--reinit", reinit], "--frozen") for frozen, reinit in
      ((3, 2), (2, 3), (1, 4), (5, 0), (0, 5), (4, 1), (1000, 1000), (4, 0))),
    *(([flag, value], flag) for flag in ("--frozen", "--reinit") for value in ("-1", "1.0", "conv1", "")),
    (["--digits", "6-9"], "6 already trained the base model"),
    (["--digits", "0-6"], "0, 1, 2, 3, 4, 5, 6 already trained the base model"),
]


@pytest.fixture
def out(finished, tmp_path):
    """A folder with earlier results of all three scripts."""
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def refused(rendered, out):
    """Calls a script on good data and earlier results, but for some flags; returns the line it ends with."""
    def refused(script, *flags):
        before = snapshot(out)
        with pytest.raises(UserError) as error, warnings.catch_warnings(record=True) as warned:
            call(script, "--data-dir", rendered, "--out", out, *flags)
        assert not [str(warning.message) for warning in warned]  # they would be a second line
        assert snapshot(out) == before
        return str(error.value)
    return refused


@pytest.mark.parametrize("script", SCRIPTS.values())
@pytest.mark.parametrize("flags, named", FLAGS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_flag_is_named(refused, script, flags, named):
    assert named in refused(script, *flags)


@pytest.mark.parametrize("flags, named", CUTS, ids=lambda value: " ".join(map(str, value))
                         if isinstance(value, list) else "")
def test_a_cut_or_task_that_cannot_be_is_named(refused, flags, named):
    assert named in refused("finetune.py", *flags)


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_training_that_diverges_writes_nothing(refused, script):
    for rate in ("1e30", "1e300"):
        assert "diverged" in refused(script, "--learning-rate", rate, "--epochs", 1)


# --base


def other_network(**blocks):
    return OrderedDict(build_model()[:2].state_dict()) | nn.Sequential(OrderedDict(blocks)).state_dict()


def saved(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return stream.getvalue()


def base_files(good):
    """Every kind of file that is not the base's checkpoint; `good` is the one that is."""
    checkpoint = torch.load(io.BytesIO(good), weights_only=True)
    state = checkpoint["model"]
    not_finite = {name: torch.full_like(value, float("nan")) if name == "fc2.bias" else value
                  for name, value in state.items()}
    changed = {
        "without a model": {key: checkpoint[key] for key in checkpoint if key != "model"},
        "without digits": {key: checkpoint[key] for key in checkpoint if key != "digits"},
        "without a data set": {key: checkpoint[key] for key in checkpoint if key != "dataset"},
        "digits not a list": checkpoint | {"digits": 7},
        "digits unhashable": checkpoint | {"digits": [[7]]},
        "model not a dictionary": checkpoint | {"model": 7},
        "a model of numbers": checkpoint | {"model": {name: 1.0 for name in state}},
        "a block more": checkpoint | {"model": state | {"fc3.weight": torch.zeros(10, 10)}},
        "a block fewer": checkpoint | {"model": {name: state[name] for name in state if "fc2" not in name}},
        "wider": checkpoint | {"model": other_network(fc2=nn.Linear(128, 10))},
        "not finite": checkpoint | {"model": not_finite},
        "a state dictionary alone": state,
        "a list": [checkpoint], "a tensor": torch.zeros(3), "a number": 7, "a text": "model", "nothing": None,
    }
    return {name: saved(value) for name, value in changed.items()} | {
        "empty": b"", "text": b"This is not a checkpoint.\n", "a picture": b"\x89PNG\r\n\x1a\n" + bytes(1000),
        "results": b'{"experiment": "base"}', "zeros": bytes(10_000), "cut off": good[: len(good) // 2],
        "its last byte missing": good[:-1], "another zip file": zipped(**{"word/document.xml": "<w/>"}),
        "an empty zip file": zipped(), "a whole model": saved(build_model()),
        "TorchScript": zipped(**{f"m/{record}": "3" for record in ("constants.pkl", "data.pkl", "version")}),
        "a plain pickle": pickle.dumps(checkpoint | {"model": None}),
    }


def test_a_base_that_is_no_base_is_named(refused, out, tmp_path):
    path = tmp_path / "other base.pt"
    good = (out / "checkpoints" / "base.pt").read_bytes()
    for kind, contents in base_files(good).items():
        path.write_bytes(contents)
        assert str(path) in refused("finetune.py", "--base", path), kind


def test_a_missing_base_says_which_script_makes_it(refused, out, tmp_path):
    (out / "checkpoints" / "base.pt").unlink()
    line = refused("finetune.py")
    assert str(out / "checkpoints" / "base.pt") in line and "run train_base.py first" in line
    for path in (tmp_path / "nowhere.pt", tmp_path, out / "results" / "base.json" / "base.pt", "x" * 5000):
        assert str(path) in refused("finetune.py", "--base", path)


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("how", ["pickle", "torch.save", "torch.save of old", "inside a checkpoint"])
def test_a_checkpoint_is_never_executed(refused, out, tmp_path, how):
    path, marker = tmp_path / "gift.pt", tmp_path / "executed"
    good = torch.load(out / "checkpoints" / "base.pt", weights_only=True)
    contents = {"pickle": lambda: pickle.dumps(Malice(marker)), "torch.save": lambda: saved(Malice(marker)),
                "torch.save of old": lambda: saved(Malice(marker), _use_new_zipfile_serialization=False),
                "inside a checkpoint": lambda: saved(good | {"dataset": Malice(marker)})}[how]()
    path.write_bytes(contents)
    assert str(path) in refused("finetune.py", "--base", path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if how != "pickle" else pickle.loads(contents)
    assert marker.exists()  # it would have been


def test_mutated_checkpoints_are_loaded_whole_or_refused(finished, tmp_path):
    chance, path = random.Random(0), tmp_path / "base.pt"
    good = (finished / "checkpoints" / "base.pt").read_bytes()
    expected, loaded = torch.load(io.BytesIO(good), weights_only=True)["model"], 0
    for _ in range(300):
        contents = bytearray(good)
        place = chance.randrange(len(contents))
        if chance.random() < 0.2:
            del contents[place:]
        else:
            for near in range(place, min(place + chance.choice((1, 100)), len(contents))):
                contents[near] ^= 1 << chance.randrange(8)
        path.unlink(missing_ok=True)
        path.write_bytes(contents)
        try:
            model, _ = load_base(path, (7, 8, 9), torch.device("cpu"))
        except UserError:
            continue
        loaded += 1
        assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert 0 < loaded < 150  # padding between the records may change unnoticed


# --data-dir and --out


@pytest.mark.parametrize("script", ["train_base.py", "train_fresh.py", "data.py"])
def test_a_data_folder_that_cannot_be_used_is_named(monkeypatch, tmp_path, script):
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder" / "MNIST").mkdir(parents=True)
    (tmp_path / "folder" / "MNIST" / "raw").write_text("not a folder")
    for folder in ("file", "file/data", "folder", "x" * 300):
        with pytest.raises(UserError, match=f"cannot use the data folder {folder}"):
            call(script, "--data-dir", folder)
    put(tmp_path / "foreign", make_files())
    with pytest.raises(UserError, match="train-images-idx3-ubyte is not MNIST's file.*dataset.json"):
        call(script, "--data-dir", "foreign")
    shutil.rmtree(put(tmp_path / "directory", {}))
    (tmp_path / "directory" / "MNIST" / "raw" / "train-images-idx3-ubyte").mkdir(parents=True)
    with pytest.raises(UserError, match="directory.*train-images-idx3-ubyte"):
        call(script, "--data-dir", "directory")


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_an_output_folder_that_cannot_be_written_is_found_before_training(monkeypatch, tmp_path, script):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    for folder in FOLDERS:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / folder).write_text("not a folder")
    before = snapshot(tmp_path)
    for out in ("file", "file/below", *FOLDERS, "x" * 300):
        with pytest.raises(UserError, match=f"cannot write to {out}"):  # though the data folder is not there either
            call(script, "--data-dir", "nowhere", "--out", out)
    assert {path: contents for path, contents in snapshot(tmp_path).items() if contents is not None} == \
           {path: contents for path, contents in before.items() if contents is not None}


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_an_output_folder_that_may_not_be_written_is_found_before_training(refused, monkeypatch, script):
    def forbidden(**_):  # in place of a folder without permission, which would not stop root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", forbidden)
    assert "cannot write to" in refused(script, "--data-dir", "nowhere")


# As a user sees it


@pytest.mark.skipif(os.name != "posix", reason="closes the streams with a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("failure, status", [("pass", 0), ("raise errors.UserError('x')", 2),
                                             ("raise KeyboardInterrupt", 130)])
def test_closed_output_streams_change_no_exit_status(closed, failure, status):
    code = f"import errors, sys; print('x'); print(sys.stderr.isatty(), file=sys.stderr); {failure}"
    done = subprocess.run(["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == status and "Traceback" not in done.stderr


def test_each_error_is_one_line_on_standard_error_and_status_2(rendered, out, tmp_path):
    (tmp_path / "file\nof two lines").write_text("")
    (tmp_path / "base.pt").write_bytes(pickle.dumps(Malice(tmp_path / "executed")))
    before = snapshot(out)
    attempts = {
        "--epochs": ["train_base.py", "--epochs", "0"],
        "--data-dir": ["train_fresh.py", "--data-dir", tmp_path / "file\nof two lines"],
        "base.pt is not a checkpoint": ["finetune.py", "--data-dir", rendered, "--base", tmp_path / "base.pt"],
        "make MNIST=DIR": ["train_base.py", "--data-dir", tmp_path / "empty"],
    }
    no_network = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
    processes = {named: start(*attempt, "--out", out, env=no_network) for named, attempt in attempts.items()}
    for named, process in processes.items():
        stdout, stderr = process.communicate(timeout=120)
        assert (process.returncode, stdout) == (2, b"")
        assert stderr.startswith(b"error: ") and stderr.count(b"\n") == 1 and stderr.endswith(b"\n")
        assert named in stderr.decode()
    assert snapshot(out) == before
    assert not (tmp_path / "executed").exists()
