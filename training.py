"""Training and evaluation, timed: `fit`, `evaluate`, `predict`, `extract_features`. They read and write no files.

The times count what a model costs to train and nothing else: the clock stops while the model is evaluated, and what a
process does only the first time happens before it starts. Each of the four leaves the model in evaluation mode, and the
images as they are.
"""

import copy
import math
import time

import torch
import torch.nn.functional as F
from torch import nn

from data import Split, UserError

EPOCHS, BATCH_SIZE, LEARNING_RATE = 5, 128, 0.008  # how they were chosen: experiments/README.md
STEPS = 200  # about as many at least, by default: few images are seen more often
WEIGHT_DECAY = 0.01  # AdamW's usual value
EVALUATION_BATCH = 256  # images: large enough to be fast, small enough for the processor's cache


def fit(model: nn.Module, train: Split, validation: Split, *, epochs: int | None = None, batch_size: int = BATCH_SIZE,
        learning_rate: float = LEARNING_RATE, seed: int = 0, rows: int = 20, verbose: bool = False,
        seconds: float = 0) -> list[dict]:
    """Train `model` in place with AdamW and a one-cycle learning rate (Smith & Topin 2018); return its curve.

    `epochs`: None for `default_epochs`. `seed` orders the images; each is seen once an epoch. The curve has a row (see
    `measure`) before the first step and one after each epoch, or where there are more than `rows`, after every second,
    third, ... and the last. `verbose` prints all but the first. `seconds`: what the training took before it came here.
    Raises UserError where a loss is no longer finite.
    """
    device = train.labels.device
    epochs = epochs or default_epochs(len(train.labels))
    batches = count_batches(len(train.labels), batch_size)
    sample = take_sample(train, len(validation.labels))
    warm_up(model, train, batches)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    steps = max(2, epochs * batches)  # a single one would be the schedule's last, with a rate of almost zero
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, cycle_momentum=False)
    generator = torch.Generator().manual_seed(seed)
    curve = [measure(model, sample, validation, epoch=0, seconds=seconds)]
    for epoch in range(1, epochs + 1):
        model.train()
        start = now(device)
        order = torch.randperm(len(train.labels), generator=generator).to(device)
        for batch in order.tensor_split(batches):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(train.images[batch]), train.labels[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
        seconds += now(device) - start
        if epoch % math.ceil(epochs / rows) == 0 or epoch == epochs:
            curve.append(measure(model, sample, validation, epoch, seconds))
            if verbose:
                print_row(curve[-1], epochs)
    return curve


def default_epochs(images: int) -> int:
    """Five epochs, or as many as make about 200 steps of the default batch size."""
    return max(EPOCHS, math.ceil(STEPS / count_batches(images, BATCH_SIZE)))


def count_batches(images: int, batch_size: int) -> int:
    """How many batches of nearly equal size an epoch has, none smaller than `batch_size` unless all images are fewer.

    A last batch of one image could not be normalised.
    """
    return max(1, images // batch_size)


def take_sample(train: Split, size: int) -> Split:
    """Every nth training image, `size` at most: the training loss is taken on as many images as the validation loss."""
    stride = max(1, len(train.labels) // size)
    return Split(train.images[::stride][:size], train.labels[::stride][:size])


def warm_up(model: nn.Module, train: Split, batches: int) -> None:
    """Two steps of a copy, not timed: the first in a process sets up kernels and threads."""
    copied = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(copied.parameters(), fused=True)
    parts = torch.arange(len(train.labels), device=train.labels.device).tensor_split(batches)
    for batch in (parts[0], parts[-1]):  # the two sizes that batches have
        F.cross_entropy(copied(train.images[batch]), train.labels[batch]).backward()
        optimizer.step()


def measure(model: nn.Module, sample: Split, validation: Split, epoch: int, seconds: float) -> dict:
    """A row of a curve: `epoch`, `seconds` of training so far, and loss and accuracy as `evaluate` gives them, on the
    `sample` of the training images and on `validation`."""
    train_loss, train_accuracy = evaluate(model, sample)
    validation_loss, validation_accuracy = evaluate(model, validation)
    if not math.isfinite(train_loss + validation_loss):
        raise UserError(f"training diverged in epoch {epoch}: a lower learning rate is needed")
    return {"epoch": epoch, "seconds": seconds, "train_loss": train_loss, "train_accuracy": train_accuracy,
            "validation_loss": validation_loss, "validation_accuracy": validation_accuracy}


def print_row(row: dict, epochs: int) -> None:
    print(f"epoch {row['epoch']}/{epochs}  training loss {row['train_loss']:.4f}, accuracy "
          f"{100 * row['train_accuracy']:.2f} %; validation loss {row['validation_loss']:.4f}, accuracy "
          f"{100 * row['validation_accuracy']:.2f} %; {row['seconds']:.1f} s", flush=True)


@torch.no_grad()
def extract_features(part: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The output of `part` in evaluation mode for every image: [N, 1, 28, 28] -> [N, ...], of the output's dtype."""
    part.eval()
    for start in range(0, len(images), EVALUATION_BATCH):
        batch = images[start : start + EVALUATION_BATCH].clone()  # an activation that works in place may come first
        output = part(batch)
        if start == 0:  # one tensor for all: torch.cat of the outputs takes twice as long
            memory_format = torch.channels_last if output.dim() == 4 else torch.contiguous_format
            features = torch.empty(len(images), *output.shape[1:], dtype=output.dtype, device=output.device,
                                   memory_format=memory_format)
        features[start : start + len(output)] = output
    return features


def predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The digit that `model` sees in each image: float32 [N, 1, 28, 28] -> int64 [N]."""
    return extract_features(model, images).argmax(1)


def evaluate(model: nn.Module, split: Split) -> tuple[float, float]:
    """Mean cross-entropy in nats and accuracy in [0, 1] of `model` in evaluation mode."""
    logits = extract_features(model, split.images)  # [N, 10]
    loss = F.cross_entropy(logits.double(), split.labels)  # double: the mean of many small numbers
    return loss.item(), (logits.argmax(1) == split.labels).double().mean().item()


def now(device: torch.device) -> float:
    """Seconds on a clock, read when all work handed to `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
