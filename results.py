"""What a run leaves: results/NAME.json, plots/NAME_loss.png, checkpoints/NAME.pt; and how a model is read again."""

import argparse
import hashlib
import io
import json
import os
import platform
import re
from pathlib import Path

import torch
from torch import nn

from data import Task, UserError
from model import build_model, count_parameters
from plotting import loss_figure, to_png
from training import evaluate, predict

FILES = ("out", "data_dir", "base")  # flags that name files or folders: no settings of the training


def save_run(name: str, args: argparse.Namespace, task: Task, model: nn.Sequential, curve: list[dict],
             base: dict | None = None) -> None:
    """Evaluate a trained model on all training and test images, print the result, and save its three files.

    `base`: what `load_checkpoint` returned beside the base model of a fine-tuned one.
    """
    settings = {flag: value for flag, value in vars(args).items() if flag not in FILES}
    stream = io.BytesIO()
    torch.save({"network": str(model), "settings": settings, "model": model.state_dict()}, stream)
    errors = int((predict(model, task.test.images) != task.test.labels).sum())
    test_images = len(task.test.labels)
    record = {
        "experiment": name, "settings": settings, "parameters": count_parameters(model), "network": str(model),
        "images": {part: len(getattr(task, part).labels) for part in ("train", "validation", "test")},
        "train_accuracy": evaluate(model, task.train)[1], "test_accuracy": 1 - errors / test_images,
        "test_errors": errors, "training_seconds": curve[-1]["seconds"],
        "checkpoint": hashlib.sha256(stream.getvalue()).hexdigest(), "environment": environment(args.device),
        "curve": curve,
    }
    if base:
        record["base"] = base
    features = f" (with {curve[0]['seconds']:.2f} s for the features)" if curve[0]["seconds"] else ""
    print(f"training accuracy {record['train_accuracy']:.2%}, test accuracy {record['test_accuracy']:.2%} ({errors} "
          f"errors in {test_images:,} images) after {record['training_seconds']:.2f} s of training{features}")
    save(args.out / "checkpoints" / f"{name}.pt", stream.getvalue())
    save(args.out / "plots" / f"{name}_loss.png", to_png(loss_figure, {name: record}))
    save(args.out / "results" / f"{name}.json", to_json(record))
    print(f"saved results/{name}.json, plots/{name}_loss.png and checkpoints/{name}.pt in {args.out.resolve()}")


def save(path: Path, contents: bytes) -> None:
    """Write a file beside its place, then move it there: a run that is stopped leaves no half file in its place."""
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(contents)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def to_json(value: dict) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def load_checkpoint(path: str | Path) -> tuple[nn.Sequential, dict]:
    """A saved model, on the CPU, and its origin: the settings that it was trained with, and the file's SHA-256 as
    `checkpoint`.

    Nothing in the file is executed (weights_only). Raises UserError where there is no such file, or it holds anything
    else or another network than `build_model`'s.
    """
    model = build_model()
    fix = "run train_base.py, with the same --out if you gave one, or name another file with --base"
    if not os.path.exists(path):
        raise UserError(f"there is no {path}: {fix}")
    try:
        contents = Path(path).read_bytes()
        checkpoint = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
        network, settings, values = (checkpoint[name] for name in ("network", "settings", "model"))
    except Exception:  # a file of any kind: torch raises nearly everything, and advises to load what may be executed
        raise UserError(f"{path} is not what train_base.py saves: {fix}") from None
    if network != str(model):
        raise UserError(f"{path} has another network than model.py, or another version of PyTorch saved it: {fix}")
    model.load_state_dict(values)
    return model, {**settings, "checkpoint": hashlib.sha256(contents).hexdigest()}


def environment(device: str) -> dict:
    """What times, and the last digits of results, depend on."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    cpu = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = cpu[1] if cpu else platform.processor() or platform.machine()
    return {"torch": torch.__version__, "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device == "cuda" else device,
            "threads": torch.get_num_threads(), "cpu": f"{name}, {torch.backends.cpu.get_cpu_capability()}"}
