"""What the tests share: small tasks cut from MNIST, a trained base model, and the scripts as a user runs them."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests run on the CPU, where results are equal bit for bit

import importlib
import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch

import cli
import data
from data import Split, Task, select_digits, split_validation
from experiments.runs import network, read_runs
from model import build_model
from training import fit

torch.set_num_threads(1)  # another program does not slow the suite down

ROOT = Path(__file__).parent.parent
DATA = ROOT / "data"
SCRIPTS = {"base": "train_base", "finetune": "finetune", "fresh": "train_fresh"}
OPTIONS = {"epochs": 3, "batch_size": 32, "learning_rate": 0.008}


@pytest.fixture(scope="session")
def mnist():
    """The official training and test set: 60,000 and 10,000 images."""
    return data.load_mnist(DATA, train=True), data.load_mnist(DATA, train=False)


@pytest.fixture(scope="session")
def small_mnist(mnist):
    """Every 20th training and every 10th test image."""
    return tuple(Split(*(values[::step].clone() for values in split)) for split, step in zip(mnist, (20, 10)))


def small_task(small_mnist, digits):
    train, validation = split_validation(small_mnist[0])
    return Task(digits, *(select_digits(split, digits) for split in (train, validation, small_mnist[1])))


@pytest.fixture(scope="session")
def old_task(small_mnist):
    return small_task(small_mnist, tuple(range(7)))


@pytest.fixture(scope="session")
def new_task(small_mnist):
    return small_task(small_mnist, (7, 8, 9))


@pytest.fixture(scope="session")
def trained_base(old_task):
    model = build_model(0)
    fit(model, old_task.train, old_task.validation, seed=0, **OPTIONS)
    return model


@pytest.fixture
def base(trained_base):
    return deepcopy(trained_base)


def run_script(script, *flags):
    """Run a script in this process -> its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        try:
            cli.run(importlib.import_module(script).main)
        except SystemExit as end:
            return end.code
        return 0


@pytest.fixture
def run(small_mnist, monkeypatch, capsys):
    """run(script, *flags) on small data -> (exit status, standard output, standard error)."""
    monkeypatch.setattr(data, "load_mnist", lambda data_dir, train: small_mnist[0 if train else 1])
    return lambda script, *flags: (run_script(script, *flags), *capsys.readouterr())


def start(*command, **options):
    """A Python process of its own; one thread, so that two do not slow each other down."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, env=environment, **{"cwd": ROOT} | options)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def snapshot(folder):
    """All files below `folder` with their contents."""
    return {path: path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()}


@pytest.fixture
def same_network():
    """For tests that train or count again what the evidence has: they are skipped where model.py is another network."""
    if network() not in {run["network"] for run in read_runs(ROOT / "results" / "study.jsonl")}:
        pytest.skip("the evidence is of another network, or of one that another version of PyTorch printed")


def equal_states(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
