"""The CNN, and its three parts: frozen, trained further, reinitialised.

    initial, intermediate, final = divide(build_model(), frozen=1, reinit=2)

The network is a small LeNet (LeCun et al. 1998: 5x5 convolutions with pooling, then fully connected layers), with batch
normalisation and ReLU. Pooling comes before these two: they see a quarter of the values.
"""

from collections import OrderedDict

import torch
from torch import nn

from data import UserError

CLASSES = 10  # for every task: labels stay the digits, so that all models have the same architecture
FRESH_SEED = 1_000_000  # added to --seed for the new task: other initial weights than those of the base model


def build_model(seed: int | None = None) -> nn.Sequential:
    """The network of all experiments: float32 images [N, 1, 28, 28] -> logits [N, 10].

    Its blocks are where a model can be divided into parts. `seed` draws the initial weights; it seeds PyTorch's global
    generator, which dropout would draw from as well (None: the generator goes on from where it is).
    """
    if seed is not None:
        torch.manual_seed(seed)
    model = nn.Sequential(OrderedDict(
        conv1=_convolution(1, 16),  # [N, 1, 28, 28] -> [N, 16, 12, 12]
        conv2=_convolution(16, 32),  # -> [N, 32, 4, 4]
        fc1=nn.Sequential(nn.Flatten(), nn.Linear(32 * 4 * 4, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()),
        fc2=nn.Linear(64, CLASSES),
    ))
    # All channels of a pixel side by side in memory: convolution and above all pooling are several times faster.
    return model.to(memory_format=torch.channels_last)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(  # no bias: normalisation would subtract it again
        nn.Conv2d(inputs, outputs, kernel_size=5, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU())


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def divide(model: nn.Sequential, frozen: int, reinit: int) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    """Three slices of `model`: the first `frozen` blocks, the blocks between, the last `reinit` blocks.

    The slices share their weights with `model`; any of them may be empty. Raises UserError where they would overlap or
    leave nothing to train.
    """
    if min(frozen, reinit) < 0 or frozen + reinit > len(model) or frozen == len(model):
        raise UserError(f"{len(model)} blocks cannot be divided into {frozen} frozen and {reinit} reinitialised ones: "
                        f"at most {len(model) - 1} frozen, and both together at most {len(model)}")
    return model[:frozen], model[frozen : len(model) - reinit], model[len(model) - reinit :]
