"""Training: what moves and what does not, what is counted, and that the same seed does the same."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from conftest import OPTIONS, equal_states
from test_model import assert_fresh
from torch import nn

import finetune
import training
from data import Split, UserError, few_labels
from finetune import fine_tune
from model import FRESH_SEED, build_model, divide, reinitialise
from training import evaluate, extract_features, fit, predict

CUTS = [(1, 2), (2, 1), (3, 0), (0, 2), (1, 3)]  # (frozen, reinit)


def without_seconds(curve):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in curve]


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still, but where a test moves it: clock[0] in seconds."""
    clock = [0.0]
    for module in (training, finetune):
        monkeypatch.setattr(module, "now", lambda device: clock[0])
    return clock


# Fine-tuning


@pytest.mark.parametrize("recompute_frozen", [False, True], ids=["features-once", "recompute"])
@pytest.mark.parametrize("frozen, reinit", CUTS)
def test_three_parts_start_and_end_as_they_should(base, new_task, monkeypatch, frozen, reinit, recompute_frozen):
    original, started = deepcopy(base), []

    def first_fit(*args, **options):
        started.append(deepcopy(base))
        return fit(*args, **options)

    monkeypatch.setattr(finetune, "fit", first_fit)
    fine_tune(base.train(), new_task.train, new_task.validation, frozen=frozen, reinit=reinit, seed=5,
              recompute_frozen=recompute_frozen, **OPTIONS | {"epochs": 2})
    (start,) = started
    assert not any(module.training for module in base.modules())
    before, at_start, at_end = (divide(model, frozen, reinit) for model in (original, start, base))

    # At the start: two parts are the base's, bit for bit; the last is as if training had just begun.
    assert equal_states(at_start[0].state_dict(), before[0].state_dict())
    assert equal_states(at_start[1].state_dict(), before[1].state_dict())
    assert_fresh(at_start[2])
    for (name, value), old in zip(at_start[2].named_parameters(), before[2].parameters(), strict=True):
        assert not torch.equal(value, old), name

    # At the end: the frozen part is still the base's, buffers too; every other weight and buffer has moved.
    assert equal_states(at_end[0].state_dict(), before[0].state_dict())
    for part in (1, 2):
        for name, value in at_end[part].state_dict().items():
            assert not torch.equal(value, at_start[part].state_dict()[name]), name


@pytest.mark.parametrize("recompute_frozen", [False, True], ids=["features-once", "recompute"])
def test_what_was_frozen_before_is_trained_again(base, new_task, recompute_frozen):
    base[1].requires_grad_(False)  # as somebody's own code may have done
    fine_tune(base, new_task.train, new_task.validation, frozen=1, reinit=1)
    fine_tune(base, new_task.train, new_task.validation, frozen=2, reinit=1, recompute_frozen=recompute_frozen)
    between = deepcopy(base.state_dict())
    fit(base, new_task.train, new_task.validation)
    assert not any(torch.equal(value, between[name]) for name, value in base.state_dict().items())


@pytest.mark.parametrize("error, options", [
    (UserError, {"epochs": 9, "batch_size": 60_000}), (ValueError, {"reinit": 9}), (ValueError, {"reinit": 1})])
def test_a_fine_tuning_that_is_refused_leaves_the_model_as_it_was(base, new_task, error, options):
    base[-1].scale = nn.Parameter(torch.ones(1))  # what cannot be reinitialised
    before, modes = deepcopy(base.state_dict()), [module.training for module in base.train().modules()]
    with pytest.raises(error):
        fine_tune(base, new_task.train, new_task.validation, **options)
    assert equal_states(base.state_dict(), before) and [module.training for module in base.modules()] == modes


def test_reinitialising_every_block_is_training_a_fresh_model(base, new_task):
    fresh = build_model(FRESH_SEED + 3)
    assert not torch.isclose(*(next(model.parameters()) for model in (fresh, build_model(3)))).any()
    torch.manual_seed(FRESH_SEED + 3)
    reinitialise(fresh)  # the same weights; older PyTorch draws them in another order
    expected = fit(fresh, new_task.train, new_task.validation, seed=3, **OPTIONS)
    curve = fine_tune(base, new_task.train, new_task.validation, frozen=0, reinit=len(base), seed=3, **OPTIONS)
    assert without_seconds(curve) == without_seconds(expected) and curve[0]["seconds"] == 0
    assert equal_states(base.state_dict(), fresh.state_dict())


def test_features_computed_once_give_the_same_model_up_to_rounding(base, new_task):
    curves, predicted = [], []
    for recompute in (False, True):
        model = deepcopy(base)
        curves.append(without_seconds(fine_tune(model, new_task.train, new_task.validation,
                                                recompute_frozen=recompute, **OPTIONS)))
        predicted.append(predict(model, new_task.test.images))
    assert curves[0][0] == pytest.approx(curves[1][0], rel=1e-5)  # before the first step
    assert curves[0][1]["validation_loss"] == pytest.approx(curves[1][1]["validation_loss"], rel=0.05)
    assert (predicted[0] == predicted[1]).float().mean() >= 0.98


# The clock


def test_the_curve_of_fine_tuning_begins_with_the_seconds_of_the_training_images_features(
        base, new_task, monkeypatch, clock):
    def slow(part, images):
        clock[0] += {len(new_task.train.labels): 20, len(new_task.validation.labels): 300}.get(len(images), 4000)
        return extract_features(part, images)

    monkeypatch.setattr(finetune, "extract_features", slow)
    curve = fine_tune(base, new_task.train, new_task.validation, **OPTIONS)
    assert [row["seconds"] for row in curve] == [20, 20, 20, 20]


def test_the_clock_counts_steps_and_stops_while_the_model_is_evaluated(new_task, monkeypatch, clock):
    def slow(model, split):
        clock[0] += 100
        return evaluate(model, split)

    monkeypatch.setattr(training, "evaluate", slow)
    model = build_model(0)
    curve = fit(model, new_task.train, new_task.validation, **OPTIONS)
    assert [row["seconds"] for row in curve] == [0, 0, 0, 0]

    def tick(*_):
        clock[0] += model.training

    model.register_forward_pre_hook(tick)
    curve = fit(model, new_task.train, new_task.validation, **OPTIONS)
    batches = len(new_task.train.labels) // OPTIONS["batch_size"]
    assert [row["seconds"] for row in curve] == [0, batches, 2 * batches, 3 * batches]


@pytest.mark.parametrize("way", ["fresh", "features-once", "recompute"])
def test_what_happens_only_the_first_time_is_on_no_models_clock(base, new_task, clock, way):
    done = set()

    def first_time(block, inputs):  # the first pass in training and the first in evaluation take long, as in a process
        if block.training not in done:
            done.add(block.training)
            clock[0] += 100

    for block in base[:2]:
        block.register_forward_pre_hook(first_time)
    train = fit if way == "fresh" else partial(fine_tune, recompute_frozen=way == "recompute")
    curve = train(base, new_task.train, new_task.validation, epochs=1, batch_size=32, last_row_only=True)
    assert len(curve) == 1 and done == {True, False} and curve[-1]["seconds"] == 0


# The training loop


def test_training_is_the_textbooks_loop(new_task):
    model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))
    reference = deepcopy(model)
    curve = fit(model, new_task.train, new_task.validation, seed=2, **OPTIONS)
    assert [row["epoch"] for row in curve] == [0, 1, 2, 3] and not model.training
    for row, network in ((curve[0], reference), (curve[-1], model)):
        assert (row["validation_loss"], row["validation_accuracy"]) == evaluate(network, new_task.validation)
    images, labels = new_task.train
    batches = len(labels) // OPTIONS["batch_size"]
    optimizer = torch.optim.AdamW(reference.parameters(), weight_decay=0.01, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, OPTIONS["learning_rate"], cycle_momentum=False,
                                                    total_steps=OPTIONS["epochs"] * batches)
    generator = torch.Generator().manual_seed(2)
    for _ in range(OPTIONS["epochs"]):
        for batch in torch.randperm(len(labels), generator=generator).tensor_split(batches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(reference(images[batch]), labels[batch]).backward()
            optimizer.step()
            scheduler.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, reference.state_dict()[name], msg=name)


def test_fewer_than_ten_steps_are_refused_and_many_epochs_print_about_twenty_rows(base, new_task, capsys):
    few = few_labels(new_task.train, 10, seed=0)
    with pytest.raises(UserError, match="9 steps are too few: give --epochs 200"):
        fit(base, few, new_task.validation, epochs=9)
    for epochs, rows in ((10, 11), (30, 16), (200, 21)):
        assert len(fit(base, few, new_task.validation, epochs=epochs, verbose=True)) == epochs + 1
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) == rows and printed[-1].startswith(f"epoch {epochs}:")


@pytest.mark.parametrize("count, batch_size", [(37, 8), (33, 32), (7, 32), (100, 9)])
def test_every_image_is_seen_once_an_epoch(count, batch_size, monkeypatch):
    monkeypatch.setattr(training, "_warm_up", lambda *_: None)  # a batch of one image could not be normalised
    model, seen = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10)), []
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0][:, 0, 0, 0].long().tolist()) if module.training else None)
    numbers = torch.arange(count).float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    split = Split(numbers, torch.zeros(count, dtype=torch.int64))
    fit(model, split, split, epochs=10, batch_size=batch_size)
    per_epoch = len(seen) // 10
    orders = [sum(seen[start : start + per_epoch], []) for start in range(0, len(seen), per_epoch)]
    assert [sorted(order) for order in orders] == 10 * [list(range(count))]
    assert orders[0] != orders[1] != orders[2]
    assert min(count, batch_size) <= min(map(len, seen)) and max(map(len, seen)) < 2 * batch_size


# Evaluation


def test_evaluation_is_the_mean_over_all_images(base, new_task):
    loss, accuracy = evaluate(base.train(), new_task.train)
    with torch.no_grad():
        logits = base.eval()(new_task.train.images).double()
    of_labels = logits.softmax(1)[torch.arange(len(logits)), new_task.train.labels]
    assert loss == pytest.approx(-of_labels.log().mean().item(), rel=1e-5)
    assert accuracy == (logits.argmax(1) == new_task.train.labels).double().mean().item()
    assert torch.equal(predict(base.train(), new_task.train.images), logits.argmax(1))


def test_evaluation_leaves_every_module_in_the_mode_it_had(base, new_task):
    for mode in (True, False):
        base.train(mode)[1].train(not mode)  # modes differ within the model
        before = [module.training for module in base.modules()]
        evaluate(base, new_task.validation)
        predict(base, new_task.validation.images)
        assert [module.training for module in base.modules()] == before
