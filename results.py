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


def finish_run(name: str, args: argparse.Namespace, task: Task, model: nn.Sequential, curve: list[dict],
               base: dict | None = None) -> None:
    """Evaluate a trained model, print the result and save its three files: the end of each training script."""
    record = evaluate_run(name, args, task, model, curve, base)
    print(f"training accuracy {100 * record['train_accuracy']:.3f} %, test accuracy "
          f"{100 * record['test_accuracy']:.2f} % ({record['test_errors']} errors in {record['images']['test']:,} "
          f"images), training time {record['training_seconds']:.2f} s")
    if record["settings"].get("frozen"):
        print(f"{curve[0]['seconds']:.2f} s of these compute the frozen blocks' features")
    save_run(record, model, args.out)


def evaluate_run(name: str, args: argparse.Namespace, task: Task, model: nn.Sequential, curve: list[dict],
                 base: dict | None = None) -> dict:
    """What results/NAME.json says of a trained model, evaluated on all training and test images.

    `base`: what `load_checkpoint` returned beside the base model of a fine-tuned one.
    """
    settings = {flag: value for flag, value in vars(args).items() if flag not in FILES}
    errors = int((predict(model, task.test.images) != task.test.labels).sum())
    return {
        "experiment": name, "settings": settings | {"epochs": curve[-1]["epoch"]},  # as trained, also by default
        "parameters": count_parameters(model), "network": str(model),
        "images": {part: len(getattr(task, part).labels) for part in ("train", "validation", "test")},
        "train_accuracy": evaluate(model, task.train)[1], "test_accuracy": 1 - errors / len(task.test.labels),
        "test_errors": errors, "training_seconds": curve[-1]["seconds"], **({"base": base} if base else {}),
        "environment": environment(args.device), "curve": curve,
    }


def save_run(record: dict, model: nn.Sequential, out: Path) -> None:
    """Save a run's checkpoint, plot and results, which have the checkpoint's SHA-256."""
    name, stream = record["experiment"], io.BytesIO()
    torch.save({"network": record["network"], "settings": record["settings"], "model": model.state_dict()}, stream)
    record = record | {"checkpoint": hashlib.sha256(stream.getvalue()).hexdigest()}
    save(out / "checkpoints" / f"{name}.pt", stream.getvalue())
    save(out / "plots" / f"{name}_loss.png", to_png(loss_figure, {name: record}))
    save(out / "results" / f"{name}.json", to_json(record))
    print(f"saved results/{name}.json, plots/{name}_loss.png and checkpoints/{name}.pt in {out.resolve()}")


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
