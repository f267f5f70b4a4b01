"""The network, and its division into three parts. The tests hold for other networks too: nothing here names a block."""

import pytest
import torch
from conftest import equal_states

from model import build_model, divide

BLOCKS = len(build_model())


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
