"""What a run leaves: results/NAME.json, plots/NAME_loss.png, checkpoints/NAME.pt; and how they are read again."""

import argparse
import hashlib
import io
import json
import os
import platform
import re
import zipfile
from pathlib import Path

import torch
from torch import nn

from data import Task, UserError
from model import build_model
from plotting import loss_figure, to_png
from training import WEIGHT_DECAY, evaluate

SCRIPTS = {"base": "train_base.py", "finetune": "finetune.py", "fresh": "train_fresh.py"}
KEYS = {"experiment", "digits", "seed", "dataset", "model", "hyperparameters", "checkpoint", "curve", "train_accuracy",
        "test_accuracy", "test_errors", "test_count", "training_seconds", "feature_seconds", "environment"}


def describe(experiment: str, args: argparse.Namespace, task: Task, model: nn.Sequential, curve: list[dict],
             feature_seconds: float = 0.0) -> dict:
    """What stands in results/NAME.json: the settings, the curve, and the accuracies on all training and test images."""
    train, validation, test = (len(split.labels) for split in (task.train, task.validation, task.test))
    test_accuracy = evaluate(model, task.test)[1]
    flags = {"frozen": 0, "reinit": len(model), **vars(args)}  # finetune.py alone lets these be chosen
    hyperparameters = ("epochs", "batch_size", "learning_rate", "recompute_frozen")
    return {
        "experiment": experiment, "digits": list(task.digits), "seed": args.seed,
        "dataset": {"name": "MNIST", "train": train, "validation": validation, "test": test},
        "model": {"frozen": flags["frozen"], "reinit": flags["reinit"],
                  "parameters": sum(parameter.numel() for parameter in model.parameters())},
        "hyperparameters": {**{name: flags[name] for name in hyperparameters if name in flags},
                            "optimizer": "AdamW", "weight_decay": WEIGHT_DECAY, "schedule": "one-cycle"},
        "curve": curve, "train_accuracy": evaluate(model, task.train)[1], "test_accuracy": test_accuracy,
        "test_errors": round((1 - test_accuracy) * test), "test_count": test,
        "training_seconds": curve[-1]["seconds"], "feature_seconds": feature_seconds,
        "environment": environment(args.device),
    }


def save_run(out: Path, record: dict, model: nn.Sequential) -> None:
    """Save the three files of a run, and say what it gave."""
    name, stream = record["experiment"], io.BytesIO()
    torch.save({"experiment": name, "digits": record["digits"], "seed": record["seed"], "model": model.state_dict()},
               stream)
    record["checkpoint"] = hashlib.sha256(stream.getvalue()).hexdigest()
    save({out / "checkpoints" / f"{name}.pt": stream.getvalue(),
          out / "plots" / f"{name}_loss.png": to_png(loss_figure(record)),
          out / "results" / f"{name}.json": to_json(record)})
    print(f"training accuracy {record['train_accuracy']:.2%}, test accuracy {record['test_accuracy']:.2%} "
          f"({record['test_errors']} errors in {record['test_count']:,} images) after {record['training_seconds']:.2f} "
          f"s of training\nsaved results/{name}.json, plots/{name}_loss.png and checkpoints/{name}.pt in "
          f"{out.resolve()}")


def save(files: dict[Path, bytes]) -> None:
    """Write each file beside its place, then move all there: a run that is stopped leaves no half file.

    Raises UserError where they cannot be written; what was begun is removed then.
    """
    unfinished = {path: path.with_name(f".{path.name}.unfinished") for path in files}
    try:
        for path, contents in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished[path].write_bytes(contents)
        for path in files:
            os.replace(unfinished[path], path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): name another folder with --out") from None
    finally:
        for begun in unfinished.values():
            begun.unlink(missing_ok=True)


def to_json(value: dict) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def load_checkpoint(path: Path, fix: str) -> tuple[nn.Sequential, dict]:
    """A saved model, on the CPU, and its origin: `digits`, `seed`, and the file's SHA-256 as `checkpoint`.

    Nothing in the file is executed (weights_only). Raises UserError, which ends with the advice `fix`, where there is
    no such file or it holds anything else.
    """
    if not os.path.exists(path):
        raise UserError(f"there is no checkpoint {path}: {fix}")
    try:
        contents = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(contents)) as archive:  # torch.load compares no checksums: flipped bits would
            if archive.testzip():                               # be weights
                raise ValueError("its checksums do not match")
        checkpoint = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
        model = build_model()
        model.load_state_dict(checkpoint["model"])
        return model, {"digits": list(checkpoint["digits"]), "seed": checkpoint["seed"],
                       "checkpoint": hashlib.sha256(contents).hexdigest()}
    except Exception as error:  # a file of any kind: torch raises nearly everything
        reason = str(error).split("\n")[0].split(". ")[0]
        name = type(error).__name__
        raise UserError(f"{path} is not a checkpoint of this network ({name}: {reason}): {fix}") from None


def read_results(out: Path) -> dict[str, dict]:
    """The results of the three scripts, by experiment. Raises UserError for those that are missing or not theirs."""
    results = {}
    for name, script in SCRIPTS.items():
        path = out / "results" / f"{name}.json"
        try:
            results[name] = json.loads(path.read_text(encoding="utf-8"))
            if not KEYS <= results[name].keys() or results[name]["experiment"] != name:
                raise ValueError
        except (OSError, ValueError, AttributeError):  # no file, not JSON, a list
            raise UserError(f"{path} is missing or is not what {script} writes: run {script}, with the same "
                            "--out if you gave one") from None
    return results


def environment(device: torch.device) -> dict:
    """What a time depends on, and the last digits of a result."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    cpu = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = cpu[1] if cpu else platform.processor() or platform.machine()
    return {"torch": torch.__version__, "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(), "cpu": f"{name}, {torch.backends.cpu.get_cpu_capability()}"}
