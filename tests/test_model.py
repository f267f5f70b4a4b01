"""The network, and its division into three parts. The tests hold for other networks too: nothing here names a block."""

import math
from copy import deepcopy

import pytest
import torch
from conftest import equal_states
from torch import nn

from model import Frozen, build_model, divide, reinitialise

BLOCKS = len(build_model())


def assert_fresh(part):
    """Every parameter and buffer has the statistics that PyTorch's own initialisation gives it."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):  # kaiming_uniform_(a=sqrt(5)): uniform within 1/sqrt(fan_in)
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            if module.bias is not None:
                assert 0 < module.bias.abs().max() <= bound
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for values, fixed in ((module.weight, 1), (module.bias, 0), (module.running_mean, 0),
                                  (module.running_var, 1), (module.num_batches_tracked, 0)):
                assert (values == fixed).all()


def test_every_valid_cut_divides_the_blocks_in_order_and_every_other_is_refused():
    model = build_model()
    assert model(torch.randn(3, 1, 28, 28)).shape == (3, 10)
    for frozen in range(BLOCKS + 2):
        for reinit in range(BLOCKS + 2):
            if frozen + reinit > BLOCKS or frozen == BLOCKS:
                with pytest.raises(ValueError, match="cannot be divided"):
                    divide(model, frozen, reinit)
                continue
            parts = divide(model, frozen, reinit)
            assert [len(part) for part in parts] == [frozen, BLOCKS - frozen - reinit, reinit]
            assert [id(block) for part in parts for block in part] == [id(block) for block in model]


def test_a_model_is_drawn_by_its_seed():
    first, again, other = (build_model(seed) for seed in (3, 3, 4))
    assert equal_states(first.state_dict(), again.state_dict())
    assert not torch.isclose(*(next(model.parameters()) for model in (first, other))).any()


def test_reinitialising_everything_gives_the_fresh_model_of_that_seed(base):
    assert_fresh(build_model(0))
    with pytest.raises(AssertionError):
        assert_fresh(base)
    torch.manual_seed(7)
    reinitialise(base)
    for value, fresh in zip(base.state_dict().values(), build_model(7).state_dict().values(), strict=True):
        assert torch.equal(value.flatten().sort().values, fresh.flatten().sort().values)  # PyTorch 2.4: another order


class Scaled(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
        self.scale = nn.Parameter(torch.ones(4))


@pytest.mark.parametrize("make, kept", [
    (Scaled, "1.scale"),
    (lambda: nn.utils.weight_norm(nn.Linear(4, 4)), "1.weight_g, 1.weight_v"),
    (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), "1.parametrizations.weight.original0"),
    (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), "1.parametrizations.weight.original"),
])
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_would_keep_its_value_is_refused_and_nothing_has_changed(make, kept):
    part = nn.Sequential(nn.BatchNorm1d(4), make())
    before, images = deepcopy(part.state_dict()), torch.randn(3, 4)
    expected = part.eval()(images)
    with pytest.raises(ValueError, match=f"cannot reinitialise .*{kept}"):
        reinitialise(part)
    assert equal_states(part.state_dict(), before) and torch.equal(part(images), expected)


def test_a_frozen_part_does_not_move_though_its_owner_trains(base, new_task):
    images, cut = new_task.train.images[:64], BLOCKS // 2
    before = deepcopy(base[:cut])
    expected = before.eval()(images)
    owner = nn.Sequential(Frozen(base.train()[:cut]), base[cut:])
    assert torch.equal(owner[0](images), expected)  # also where nobody has called train() or eval()
    optimizer = torch.optim.AdamW(owner.parameters(), lr=0.1)
    for _ in range(2):  # in training mode the first pass would move BatchNorm's running statistics
        assert torch.equal(owner.train()[0](images), expected)
        owner(images).sum().backward()
        optimizer.step()
    assert equal_states(base[:cut].state_dict(), before.state_dict())
    assert all(parameter.requires_grad for parameter in base.parameters())  # they can be trained again
