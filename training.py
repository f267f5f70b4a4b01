"""Training and evaluation, timed: `fit`, `extract_features`, `evaluate`. They read and write no files.

The times count what a model costs to train and nothing else: the clock stops while the model is evaluated, and what a
process does only the first time happens before it starts.
"""

import copy
import math
import time

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from data import Split, UserError

WEIGHT_DECAY = 0.01  # AdamW's usual value
FEWEST_STEPS = 10  # the schedule needs some: a single step would be taken at its lowest learning rate
EVALUATION_BATCH = 256  # images: large enough to be fast, small enough for the processor's cache


def fit(model: nn.Module, train: Split, validation: Split, *, epochs: int, batch_size: int, learning_rate: float,
        seed: int, seconds: float = 0.0, last_row_only: bool = False, verbose: bool = False) -> list[dict]:
    """Train `model` in place with AdamW and a one-cycle learning rate (Smith & Topin 2018); return its curve.

    The curve has a row before the first step and one after each epoch (`last_row_only`: only one, after the last):
    `epoch`, `seconds` (of training so far, counted from those given), and mean cross-entropy in nats and accuracy in
    [0, 1] in evaluation mode, on `validation` and on a sample of `train` of the same size. `seed` orders the images;
    each is seen once an epoch, in batches of nearly equal size, none smaller than `batch_size` unless there are too few
    images: a last batch of one image could not be normalised. `verbose` prints the rows, and a progress bar on a
    terminal.
    Raises UserError where there would be fewer than ten steps in all, and where a loss is no longer finite.
    """
    device = train.labels.device
    batches = max(1, len(train.labels) // batch_size)
    if epochs * batches < FEWEST_STEPS:
        raise UserError(f"{epochs * batches} optimisation steps are too few to train, {FEWEST_STEPS} are needed: give "
                        "more --epochs or a smaller --batch-size")
    _warm_up(model, train, batches)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, weight_decay=WEIGHT_DECAY, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches,
                                                    cycle_momentum=False)
    generator = torch.Generator().manual_seed(seed)
    every = max(1, len(train.labels) // len(validation.labels))
    sample = Split(*(values[::every][: len(validation.labels)].clone() for values in train))
    curve = []

    def add_row(epoch: int) -> None:
        row = {"epoch": epoch, "seconds": seconds if epoch else 0.0}
        row["train_loss"], row["train_accuracy"] = evaluate(model, sample)
        row["validation_loss"], row["validation_accuracy"] = evaluate(model, validation)
        if not math.isfinite(row["train_loss"] + row["validation_loss"]):
            raise UserError(f"training diverged in epoch {epoch}: give a lower --learning-rate than {learning_rate:g}; "
                            "nothing was saved")
        curve.append(row)
        if verbose:
            print(f"epoch {epoch}: loss {row['train_loss']:.4f} (validation {row['validation_loss']:.4f}), accuracy "
                  f"{row['train_accuracy']:.2%} ({row['validation_accuracy']:.2%}), {row['seconds']:.2f} s", flush=True)

    if not last_row_only:
        add_row(0)
    for epoch in range(1, epochs + 1):
        model.train()
        start = now(device)
        order = torch.randperm(len(train.labels), generator=generator).to(device)
        parts = order.tensor_split(batches)
        for batch in tqdm(parts, f"epoch {epoch}", leave=False, disable=None) if verbose else parts:
            optimizer.zero_grad()
            F.cross_entropy(model(_pick(train.images, batch)), train.labels[batch]).backward()
            optimizer.step()
            scheduler.step()
        seconds += now(device) - start
        if epoch == epochs or not last_row_only:
            add_row(epoch)
    return curve


def _warm_up(model: nn.Module, train: Split, batches: int) -> None:
    """Steps of a copy, off the clock: the first in a process sets up kernels and threads. No random number is drawn."""
    copied = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(copied.parameters(), fused=True)
    parts = torch.arange(len(train.labels), device=train.labels.device).tensor_split(batches)
    for batch in (parts[0], parts[-1]):  # the two sizes that batches have
        F.cross_entropy(copied(_pick(train.images, batch)), train.labels[batch]).backward()
        optimizer.step()


def _pick(images: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    """images[batch], twice as fast: index_select copies rows on all cores; to keep channels_last, channels go last."""
    if images.dim() < 4:
        return images.index_select(0, batch)
    return images.permute(0, 2, 3, 1).index_select(0, batch).permute(0, 3, 1, 2)


@torch.inference_mode()
def extract_features(part: nn.Module, split: Split) -> Split:
    """The output of `part` in evaluation mode for every image: float32 [N, 1, 28, 28] -> float32 [N, ...]."""
    part.eval()
    shape = part(split.images[:1]).shape[1:]
    memory_format = torch.channels_last if len(shape) == 3 else torch.contiguous_format  # as the next block wants it
    features = torch.empty(len(split.labels), *shape, device=split.images.device, memory_format=memory_format)
    for start in range(0, len(features), EVALUATION_BATCH):  # torch.cat of the parts takes twice as long
        features[start : start + EVALUATION_BATCH] = part(split.images[start : start + EVALUATION_BATCH])
    return Split(features, split.labels)


@torch.inference_mode()
def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] of `model` in evaluation mode."""
    model.eval()
    loss, correct = 0.0, 0
    for images, labels in zip(split.images.split(EVALUATION_BATCH), split.labels.split(EVALUATION_BATCH)):
        logits = model(images)  # [n, 10]
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += int((logits.argmax(1) == labels).sum())
    return loss / len(split.labels), correct / len(split.labels)


def now(device: torch.device) -> float:
    """Seconds on a clock, read when all work handed to `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
