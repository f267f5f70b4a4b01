"""The CNN, and its three parts: frozen, trained on, initialised anew.

    initial, intermediate, final = divide(build_model(), frozen=1, reinit=2)

The network is LeNet-5's (LeCun et al. 1998: two 5x5 convolutions with pooling, then fully connected layers), with
batch normalisation, ReLU and max pooling in place of what 1998 had. Pooling stands before normalisation and ReLU:
they then work on a quarter of the values, and max pooling commutes with ReLU.
"""

from collections import OrderedDict

import torch
from torch import nn

from errors import UserError

CLASSES = 10  # for every task: labels stay the digits themselves, so that all models are the same to the last weight


def build_model() -> nn.Sequential:
    """The network of all experiments, freshly initialised from torch's global generator.

    float32 images [N, 1, 28, 28] -> logits [N, 10]. Its blocks are where a model can be cut into parts.
    """
    model = nn.Sequential(OrderedDict(
        conv1=_convolution(1, 16),  # [N, 1, 28, 28] -> [N, 16, 12, 12]
        conv2=_convolution(16, 32),  # -> [N, 32, 4, 4]
        fc1=nn.Sequential(nn.Flatten(), nn.Linear(32 * 4 * 4, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()),
        fc2=nn.Linear(64, CLASSES),
    ))
    # Pixels with their channels together: CPU convolution and above all pooling are several times faster so.
    return model.to(memory_format=torch.channels_last)


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(  # no bias: the normalisation would subtract it again
        nn.Conv2d(inputs, outputs, kernel_size=5, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU())


def divide(model: nn.Sequential, frozen: int = 1, reinit: int = 2) -> tuple[nn.Sequential, ...]:
    """Slices of `model`: the first `frozen` blocks, those between, the last `reinit` blocks.

    The parts share their weights with `model`; any of them may be empty. Raises UserError where they would
    overlap or leave nothing to train.
    """
    if frozen < 0 or reinit < 0 or frozen + reinit > len(model):
        raise UserError(f"--frozen {frozen} --reinit {reinit}: both from 0 up, together at most {len(model)}, "
                        f"the network's blocks ({', '.join(dict(model.named_children()))})")
    if frozen == len(model):
        raise UserError(f"--frozen {frozen} freezes all {len(model)} blocks and leaves nothing to train; "
                        f"at most {len(model) - 1}")
    return model[:frozen], model[frozen : len(model) - reinit], model[len(model) - reinit :]


def reinitialise(part: nn.Module) -> None:
    """Draw every parameter anew and reset every buffer, as if training had just begun."""
    for module in part.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


class Frozen(nn.Sequential):
    """Blocks that training leaves exactly as they are.

    requires_grad = False alone does not: in training mode BatchNorm would go on moving its running statistics,
    and normalise by each batch's own. So this part stays in evaluation mode whatever mode its owner is put into.
    """

    def __init__(self, part: nn.Sequential):
        super().__init__(*part)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True):
        return super().train(False)
