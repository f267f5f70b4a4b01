"""What a run leaves: results/NAME.json, plots/NAME_loss.png, checkpoints/NAME.pt; and how they are read again."""

import argparse
import io
import json
import math
import os
import platform
import re
import time
import zipfile
from pathlib import Path

import torch
import torchvision
from torch import nn

from data import Task, UserError
from model import build_model
from plotting import loss_figure, to_png
from training import WEIGHT_DECAY, evaluate

SCRIPTS = {"base": "train_base.py", "finetune": "finetune.py", "fresh": "train_fresh.py"}


def finish(experiment: str, args: argparse.Namespace, task: Task, model: nn.Sequential, curve: list[dict],
           feature_seconds: float = 0.0, frozen: int = 0, reinit: int = 4) -> None:
    """Evaluate on all training images and on the test set; save results, plot and checkpoint; print the accuracies.

    Raises UserError if training diverged; nothing is saved then.
    """
    if not all(math.isfinite(value) for row in curve for value in row.values()):
        raise UserError(f"training diverged at --learning-rate {args.learning_rate:g}: give a lower one; "
                        "nothing was saved")
    _, train_accuracy = evaluate(model, task.train)
    _, test_accuracy = evaluate(model, task.test)
    results = {
        "experiment": experiment, "digits": list(task.digits), "seed": args.seed,
        "dataset": {"name": "MNIST", "train": len(task.train.labels), "validation": len(task.validation.labels),
                    "test": len(task.test.labels)},
        "model": {"blocks": [name for name, _ in model.named_children()], "frozen": frozen, "reinit": reinit,
                  "parameters": sum(p.numel() for p in model.parameters()),
                  "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad)},
        "hyperparameters": {"epochs": args.epochs, "batch_size": args.batch_size, "learning_rate": args.learning_rate,
                            "optimizer": "AdamW", "weight_decay": WEIGHT_DECAY, "schedule": "one-cycle"},
        "curve": curve,
        "train_accuracy": train_accuracy, "test_accuracy": test_accuracy,
        "test_errors": round((1 - test_accuracy) * len(task.test.labels)), "test_count": len(task.test.labels),
        "training_seconds": curve[-1]["seconds"], "feature_seconds": feature_seconds,
        "total_seconds": time.perf_counter() - args.began,
        "environment": environment(args.device),
    }
    checkpoint = io.BytesIO()
    torch.save({"experiment": experiment, "digits": list(task.digits), "seed": args.seed, "model": model.state_dict()},
               checkpoint)
    save(args.out / "checkpoints" / f"{experiment}.pt", checkpoint.getvalue())
    save(args.out / "plots" / f"{experiment}_loss.png", to_png(loss_figure(results)))
    save(args.out / "results" / f"{experiment}.json", to_json(results))
    print(f"training accuracy {train_accuracy:.2%}, test accuracy {test_accuracy:.2%} ({results['test_errors']} errors "
          f"in {results['test_count']:,} images) after {results['training_seconds']:.2f} s of training\n"
          f"saved results/{experiment}.json, plots/{experiment}_loss.png and checkpoints/{experiment}.pt in {args.out}")


def save(path: Path, contents: bytes) -> None:
    """Write beside `path`, then move there: a run that is stopped leaves the old file or the new one, never a half."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished.write_bytes(contents)
    os.replace(unfinished, path)


def to_json(value: dict) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def load_checkpoint(path: Path, fix: str, device: str | torch.device = "cpu") -> tuple[nn.Sequential, list[int]]:
    """A saved model, and the digits that it was trained on. Nothing in the file is executed (weights_only).

    Raises UserError, which ends with the advice `fix`, where there is no such file or it holds anything else.
    """
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: {fix}")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load compares no checksums: flipped bits would be weights
            if archive.testzip():
                raise ValueError("its checksums do not match")
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        model = build_model().to(device)
        model.load_state_dict(checkpoint["model"])
        return model, list(checkpoint["digits"])
    except Exception as error:  # a file of any kind: torch raises nearly everything
        reason = str(error).split("\n")[0].split(". ")[0]
        name = type(error).__name__
        raise UserError(f"{path} is not a checkpoint of this network ({name}: {reason}): {fix}") from None


def read_results(out: Path) -> dict[str, dict]:
    """The results of the three scripts, by experiment. Raises UserError for those that are missing or unreadable."""
    results = {}
    for name, script in SCRIPTS.items():
        path = out / "results" / f"{name}.json"
        try:
            results[name] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            raise UserError(f"{path} is missing or is not what {script} writes: run {script}") from None
    return results


def environment(device: torch.device) -> dict:
    """What a time depends on."""
    cpuinfo = Path("/proc/cpuinfo")  # Linux alone has it
    cpu = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "python": platform.python_version(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(), "cpu": cpu[1] if cpu else platform.processor() or platform.machine()}
