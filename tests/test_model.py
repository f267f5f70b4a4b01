"""The network, and its division into three parts."""

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from errors import UserError
from model import Frozen, build_model, divide, reinitialise
from runs import new_model

BLOCKS = len(build_model())


def assert_fresh(part):
    """Every parameter and buffer has the statistics that PyTorch's own initialisation gives it."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):  # kaiming_uniform_(a=sqrt(5)): uniform within 1/sqrt(fan_in)
            bound = 1 / math.sqrt(module.weight[0].numel())
            assert module.weight.abs().max() <= bound
            assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert abs(module.weight.mean().item()) < 4 * bound / math.sqrt(3 * module.weight.numel())
            if module.bias is not None:
                assert 0 < module.bias.abs().max() <= bound
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for values, fixed in ((module.weight, 1), (module.bias, 0), (module.running_mean, 0),
                                  (module.running_var, 1), (module.num_batches_tracked, 0)):
                assert (values == fixed).all()


def test_images_become_ten_logits_each():
    assert build_model()(torch.randn(3, 1, 28, 28)).shape == (3, 10)


@given(st.integers(-2, 7), st.integers(-2, 7))
@example(0, 0)
@example(BLOCKS, 0)
@example(BLOCKS - 1, 1)
def test_every_valid_cut_divides_the_blocks_in_order_and_every_other_is_refused(frozen, reinit):
    model = build_model()
    try:
        parts = divide(model, frozen, reinit)
    except UserError:
        assert frozen < 0 or reinit < 0 or frozen + reinit > BLOCKS or frozen == BLOCKS
        return
    assert min(frozen, reinit) >= 0 and frozen + reinit <= BLOCKS and frozen < BLOCKS
    assert [len(part) for part in parts] == [frozen, BLOCKS - frozen - reinit, reinit]
    assert [id(block) for part in parts for block in part] == [id(block) for block in model]


def test_a_fresh_model_has_the_statistics_of_pytorch_s_initialisation():
    assert_fresh(new_model(0))


def test_the_check_for_fresh_statistics_fails_on_a_trained_model(trained_base):
    for block in trained_base[:3]:
        with pytest.raises(AssertionError):
            assert_fresh(block)


def test_reinitialising_everything_gives_the_fresh_model_of_that_seed(base):
    torch.manual_seed(7)
    reinitialise(base)
    for name, value in new_model(7).state_dict().items():
        assert torch.equal(base.state_dict()[name], value), name


def test_reinitialising_draws_anew_each_time(base):
    drawn = []
    for _ in range(2):
        reinitialise(base)
        drawn.append(base.fc1[1].weight.clone())
    assert not torch.isclose(*drawn).any()


def moved_by_training_mode(part, images):
    """Names of the buffers that a forward pass in training mode changes."""
    before = {name: value.clone() for name, value in part.named_buffers()}
    part.train()
    part(images)
    return {name for name, value in part.named_buffers() if not torch.equal(value, before[name])}


def test_a_frozen_part_does_not_move_though_its_owner_trains(base, new_task):
    expected = deepcopy(base[:2]).eval()(new_task.train.images[:64])
    frozen = Frozen(base.train()[:2])
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert torch.equal(frozen(new_task.train.images[:64]), expected)
    assert moved_by_training_mode(nn.Sequential(frozen), new_task.train.images[:64]) == set()
    assert torch.equal(frozen(new_task.train.images[:64]), expected)


def test_the_usual_freezing_does_let_batch_normalisation_drift(base, new_task):
    """The control of the test above: requires_grad = False alone is not enough."""
    usual = base[:2].requires_grad_(False)
    moved = moved_by_training_mode(nn.Sequential(usual), new_task.train.images[:64])
    assert {name.rsplit(".")[-1] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}
