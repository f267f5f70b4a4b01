"""Training and evaluation, timed: `fit`, `evaluate`, `predict`, `extract_features`. They read and write no files.

The times count what a model costs to train and nothing else: the clock stops while the model is evaluated, and what a
process does only the first time happens before it starts.
"""

import copy
import math
import time
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from data import Split, UserError

EPOCHS, BATCH_SIZE, LEARNING_RATE = 5, 128, 0.008  # see "How the hyperparameters were chosen" in experiments/README.md
WEIGHT_DECAY = 0.01  # AdamW's usual value
STEPS = 200  # about what few labels need: --epochs is chosen to give as many
FEWEST_STEPS = 10  # the schedule needs some: a single step would be taken at its lowest learning rate
EVALUATION_BATCH = 256  # images: large enough to be fast, small enough for the processor's cache


def fit(model: nn.Module, train: Split, validation: Split, *, epochs: int = EPOCHS, batch_size: int = BATCH_SIZE,
        learning_rate: float = LEARNING_RATE, seed: int = 0, rows: int = 20, verbose: bool = False) -> list[dict]:
    """Train `model` in place with AdamW and a one-cycle learning rate (Smith & Topin 2018); return its curve.

    The curve has a row before the first step and one after each epoch, or where there are more than `rows`, after every
    second, third, ... and the last. A row has `epoch`, `seconds` (of training so far), and mean cross-entropy in nats
    and accuracy in [0, 1] in evaluation mode, on `validation` and on a sample of `train`, as large as `validation`
    where there are as many. `verbose` prints each row. `seed` orders the images; each is seen once an epoch. The model
    is left in evaluation mode.
    Raises UserError as `count_batches` does, and where a loss is no longer finite.
    """
    device = train.labels.device
    batches = count_batches(len(train.labels), epochs, batch_size)
    _warm_up(model, train, batches)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * batches,
                                                    cycle_momentum=False)
    generator = torch.Generator().manual_seed(seed)
    size = len(validation.labels)
    stride = max(1, len(train.labels) // size)
    sample = Split(train.images[::stride][:size].clone(), train.labels[::stride][:size].clone())
    curve, seconds = [], 0.0

    def add_row(epoch: int) -> None:
        row = {"epoch": epoch, "seconds": seconds}
        row["train_loss"], row["train_accuracy"] = evaluate(model, sample)
        row["validation_loss"], row["validation_accuracy"] = evaluate(model, validation)
        if not math.isfinite(row["train_loss"] + row["validation_loss"]):
            raise UserError(f"training diverged in epoch {epoch}: give a lower --learning-rate than {learning_rate:g}")
        curve.append(row)
        if verbose:
            print(f"epoch {epoch}: loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%} on a sample; "
                  f"{row['validation_loss']:.4f}, {row['validation_accuracy']:.2%} on validation; {seconds:.2f} s "
                  "of steps", flush=True)

    add_row(0)
    for epoch in range(1, epochs + 1):
        model.train()
        start = now(device)
        order = torch.randperm(len(train.labels), generator=generator).to(device)
        for batch in order.tensor_split(batches):
            optimizer.zero_grad()
            F.cross_entropy(model(train.images[batch]), train.labels[batch]).backward()
            optimizer.step()
            scheduler.step()
        seconds += now(device) - start
        if epoch % math.ceil(epochs / rows) == 0 or epoch == epochs:
            add_row(epoch)
    model.eval()
    return curve


def count_batches(images: int, epochs: int, batch_size: int) -> int:
    """How many batches of nearly equal size an epoch has, none smaller than `batch_size` unless all images are fewer.

    A last batch of one image could not be normalised. Raises UserError for fewer than ten steps in all.
    """
    batches = max(1, images // batch_size)
    if epochs * batches < FEWEST_STEPS:
        raise UserError(f"{epochs * batches} steps are too few: give --epochs {math.ceil(STEPS / batches)} "
                        f"for about {STEPS} steps; with many images a smaller --batch-size does it too")
    return batches


def _warm_up(model: nn.Module, train: Split, batches: int) -> None:
    """Two steps of a copy, not timed: the first in a process sets up kernels and threads."""
    copied = copy.deepcopy(model).train()
    optimizer = torch.optim.AdamW(copied.parameters(), fused=True)
    parts = torch.arange(len(train.labels), device=train.labels.device).tensor_split(batches)
    for batch in (parts[0], parts[-1]):  # the two sizes that batches have
        F.cross_entropy(copied(train.images[batch]), train.labels[batch]).backward()
        optimizer.step()


@contextmanager
def evaluation_mode(model: nn.Module):
    """`model` is in evaluation mode; afterwards each of its modules has the mode that it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@torch.no_grad()
def extract_features(part: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The output of `part` in evaluation mode for every image: [N, 1, 28, 28] -> [N, ...], of the output's dtype."""
    with evaluation_mode(part):
        for start in range(0, len(images), EVALUATION_BATCH):
            output = part(images[start : start + EVALUATION_BATCH])
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
