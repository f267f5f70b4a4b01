"""Training, timed: `fit`, `fine_tune`, `extract_features`, `evaluate`. No files, no printing.

A clock that is read here counts what a model costs to train and nothing else: it stops while the model is
evaluated.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from data import Split
from model import Frozen, divide, reinitialise

WEIGHT_DECAY = 0.01  # AdamW's usual value
EVALUATION_BATCH = 256  # images: large enough to be fast, small enough for the processor's cache


def fit(model: nn.Module, train: Split, validation: Split, *, epochs: int, batch_size: int, learning_rate: float,
        seed: int, seconds: float = 0.0, evaluations_per_epoch: int = 1,
        on_step: Callable[[int, int], None] | None = None, on_row: Callable[[dict], None] | None = None) -> list[dict]:
    """Train `model` in place with AdamW and a one-cycle learning rate (Smith & Topin 2018); return its curve.

    The curve has a row before the first step and `evaluations_per_epoch` rows in each epoch (0: only a last one):
    `epoch`, `seconds` (training time so far, starting from what was already spent: `seconds`) and, both in
    evaluation mode, mean cross-entropy in nats and accuracy in [0, 1] on `train` and `validation`. Every image is
    seen once an epoch, in batches of nearly equal size, none smaller than `batch_size` unless there are too few
    images: a last batch of one image could not be normalised. `seed` orders the images. `on_step(done, total)`
    follows the steps, `on_row` the rows.
    """
    device = train.labels.device
    generator = torch.Generator().manual_seed(seed)
    batches = max(1, len(train.labels) // batch_size)
    steps = epochs * batches
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=WEIGHT_DECAY,
                                  fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, cycle_momentum=False)
    curve = []

    def add_row(epoch: float, seconds: float) -> None:
        row = {"epoch": epoch, "seconds": seconds}
        for name, split in (("train", train), ("validation", validation)):
            row[f"{name}_loss"], row[f"{name}_accuracy"] = evaluate(model, split)
        curve.append(row)
        if on_row:
            on_row(row)

    if evaluations_per_epoch:
        add_row(0, 0.0)
    model.train()
    start = now(device) - seconds
    for step in range(steps):
        if step % batches == 0:
            order = torch.randperm(len(train.labels), generator=generator).to(device).tensor_split(batches)
        batch = order[step % batches]
        optimizer.zero_grad()
        F.cross_entropy(model(_pick(train.images, batch)), train.labels[batch]).backward()
        optimizer.step()
        schedule.step()
        if on_step:
            on_step(step + 1, steps)
        if (step + 1) * evaluations_per_epoch % batches < evaluations_per_epoch or step + 1 == steps:
            seconds = now(device) - start
            add_row((step + 1) // batches if (step + 1) % batches == 0 else (step + 1) / batches, seconds)
            model.train()
            start = now(device) - seconds
    return curve


def fine_tune(model: nn.Sequential, train: Split, validation: Split, *, frozen: int, reinit: int, seed: int,
              recompute_frozen: bool = False, **options) -> tuple[list[dict], float]:
    """Train a base `model` in place on another task, in three parts (see `divide`); return (curve, feature seconds).

    The initial part never changes and images are never altered, so neither do its outputs: they are computed once,
    and the rest is trained on them as on any other data set. `recompute_frozen` computes them in every step
    instead, as is usual; the result is the same, the time is not. The time for the training images' features is
    part of the curve's seconds; the validation images' serve evaluation alone and are not counted. `options` are
    `fit`'s.
    """
    initial, intermediate, final = divide(model, frozen, reinit)
    torch.manual_seed(seed)
    reinitialise(final)
    initial, trained = Frozen(initial), nn.Sequential(*intermediate, *final)
    if recompute_frozen or frozen == 0:
        return fit(nn.Sequential(initial, trained), train, validation, seed=seed, **options), 0.0
    start = now(train.labels.device)
    features = extract_features(initial, train)
    feature_seconds = now(train.labels.device) - start
    return fit(trained, features, extract_features(initial, validation), seed=seed, seconds=feature_seconds,
               **options), feature_seconds


def _pick(images: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """images[batch], twice as fast: index_select copies on all cores, but only rows, and forgets channels_last."""
    if images.dim() < 4:
        return images.index_select(0, batch)
    return images.permute(0, 2, 3, 1).index_select(0, batch).permute(0, 3, 1, 2)


@torch.inference_mode()
def extract_features(part: nn.Module, split: Split) -> Split:
    """What `part`, in evaluation mode, makes of every image: float32 [N, 1, 28, 28] -> float32 [N, ...].

    Written into one preallocated tensor, in the memory format that the next convolution wants.
    """
    part.eval()
    shape = part(split.images[:1]).shape[1:]
    layout = torch.channels_last if len(shape) == 3 else torch.contiguous_format
    features = torch.empty(len(split.labels), *shape, device=split.images.device, memory_format=layout)
    for start in range(0, len(features), EVALUATION_BATCH):
        features[start : start + EVALUATION_BATCH] = part(split.images[start : start + EVALUATION_BATCH])
    return Split(features, split.labels)


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] of `model` in evaluation mode."""
    model.eval()
    loss, correct = 0.0, 0
    for start in range(0, len(split.labels), EVALUATION_BATCH):
        labels = split.labels[start : start + EVALUATION_BATCH]
        logits = model(split.images[start : start + EVALUATION_BATCH])  # [n, 10]
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(split.labels), correct / len(split.labels)


def now(device: torch.device) -> float:
    """Seconds on a clock, read when all work handed to `device` is done."""
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter()
