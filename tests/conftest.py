"""What all tests share: small data, models trained on it, and the scripts run as a user runs them.

Without MNIST in data/ the tests that want it are skipped; everything else works on a small stand-in and needs
neither network nor GPU.
"""

import importlib
import os
import signal
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"  # before torch: several processes' threads would spin against each other

import hypothesis  # noqa: E402
import pytest  # noqa: E402

import data  # noqa: E402
import rendered_digits  # noqa: E402
import runs  # noqa: E402
from training import fit  # noqa: E402

SCRIPTS = {"base": "train_base.py", "finetune": "finetune.py", "fresh": "train_fresh.py"}
FOLDERS = ("results", "plots", "checkpoints")
OPTIONS = {"epochs": 3, "batch_size": 64, "learning_rate": 0.004}  # for training.fit: enough for the small data

signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is to end the tests, whatever errors.py made of it
hypothesis.settings.register_profile("suite", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("suite")


@pytest.fixture(scope="session")
def mnist():
    """The folder data/, if it holds the real MNIST."""
    raw = ROOT / "data" / "MNIST" / "raw"
    missing = [file for file in data.DIGESTS if not (raw / file).exists() and not (raw / f"{file}.gz").exists()]
    if missing or (ROOT / "data" / data.NOTE).exists():
        pytest.skip("no MNIST in data/: run `python data.py` first to have this checked on the real images")
    return ROOT / "data"


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """A data folder with the small stand-in."""
    folder = tmp_path_factory.mktemp("rendered")
    rendered_digits.write(folder, train=3000, test=600, seed=0)
    return folder


@pytest.fixture(scope="session")
def old_task(rendered):
    return data.load_task(rendered, tuple(range(7)))


@pytest.fixture(scope="session")
def new_task(rendered):
    return data.load_task(rendered, (7, 8, 9))


@pytest.fixture(scope="session")
def trained_base(old_task):
    model = runs.new_model(0)
    fit(model, old_task.train, old_task.validation, seed=0, **OPTIONS)
    return model


@pytest.fixture
def base(trained_base):
    """A model trained on the digits 0-6; each test has a copy of its own."""
    return deepcopy(trained_base)


@pytest.fixture(scope="session")
def finished(rendered, tmp_path_factory):
    """The three scripts, run in order: their output folder, with what each printed in `stdout-NAME.txt`.

    The folder's name has a space and letters beyond ASCII; tests that change files in it work on a copy.
    """
    out = tmp_path_factory.mktemp("finished") / "résultats à comparer – 结果"
    for name, printed in run_all("--data-dir", rendered, "--out", out).items():
        (out / f"stdout-{name}.txt").write_bytes(printed)
    return out


def call(script, *arguments):
    """A script's main() in this process: no imports to wait for, and its exceptions are seen."""
    with mock.patch.object(sys, "argv", [script, *map(str, arguments)]):
        try:
            importlib.import_module(Path(script).stem).main()
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the end of a script ignores Ctrl-C


def start(script, *arguments, cwd=None, **options):
    """A script as a user starts it: an interpreter of its own, no display; from the root unless `cwd` is given."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MPLBACKEND", "DISPLAY")}
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, ROOT / script, *map(str, arguments)], cwd=cwd or ROOT,
                            env=environment | options.pop("env", {}), **options)


def run(script, *arguments, **options):
    process = start(script, *arguments, **options)
    stdout, stderr = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_all(*arguments, **options):
    """The three scripts, the last two at the same time; script's name -> what it printed."""
    printed = {}
    for names in (("base",), ("finetune", "fresh")):
        processes = {name: start(SCRIPTS[name], *arguments, **options) for name in names}
        for name, process in processes.items():
            printed[name], stderr = process.communicate(timeout=120)
            assert (process.returncode, stderr) == (0, b"")
    return printed


def snapshot(folder):
    """Every file below a folder -> its bytes; every folder -> None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in Path(folder).rglob("*")}
