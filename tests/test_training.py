"""Training: what moves and what does not, what is counted, and that the same seed does the same."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from conftest import OPTIONS, equal_states
from torch import nn

import finetune
import training
from data import Split, UserError, few_labels
from experiments.times import Frozen
from finetune import fine_tune
from model import FRESH_SEED, build_model
from training import default_epochs, evaluate, extract_features, fit, predict

BLOCKS = len(build_model())
CUTS = [(frozen, reinit) for frozen in range(BLOCKS) for reinit in range(BLOCKS + 1 - frozen)]


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


def at_start(base, task, monkeypatch, **options):
    """The model that fine-tuning begins to train."""
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "fit", lambda *_, **__: [])
        return fine_tune(base, task.train, task.validation, seed=5, **options)[0]


@pytest.mark.parametrize("frozen, reinit", CUTS)
def test_each_block_starts_with_the_bases_or_the_fresh_models_values(base, new_task, monkeypatch, frozen, reinit):
    model = at_start(base, new_task, monkeypatch, frozen=frozen, reinit=reinit)
    fresh = build_model(FRESH_SEED + 5)
    for place, block in enumerate(model):
        expected = (base if place < len(model) - reinit else fresh)[place]
        assert equal_states(block.state_dict(), expected.state_dict()), place


@pytest.mark.parametrize("frozen, reinit", [(1, 2), (2, 1), (3, 0), (0, 2)])
def test_frozen_blocks_stay_and_all_others_move(base, new_task, monkeypatch, frozen, reinit):
    start = at_start(base, new_task, monkeypatch, frozen=frozen, reinit=reinit)
    model, _ = fine_tune(base, new_task.train, new_task.validation, frozen=frozen, reinit=reinit, seed=5,
                         **OPTIONS | {"epochs": 2})
    assert not any(module.training for module in model.modules())
    assert equal_states(model[:frozen].state_dict(), base[:frozen].state_dict())  # buffers too
    assert [value.requires_grad for value in model.parameters()] == [
        place >= frozen for place, block in enumerate(model) for _ in block.parameters()]
    for name, value in model[frozen:].state_dict().items():
        assert not torch.equal(value, start[frozen:].state_dict()[name]), name


@pytest.mark.parametrize("error, options", [
    (None, OPTIONS), (UserError, {"learning_rate": 1e30}), (ValueError, {"reinit": 9}),
    (TypeError, {"learning_rte": 1})])
def test_fine_tuning_leaves_its_base_alone_also_where_it_is_refused(base, new_task, error, options):
    def properties():
        return [module.training for module in base.modules()], [value.requires_grad for value in base.parameters()]

    base.train()[0].eval().requires_grad_(False)  # as somebody's own code may have done
    values, before = deepcopy(base.state_dict()), properties()
    if error:
        with pytest.raises(error):
            fine_tune(base, new_task.train, new_task.validation, **options)
    else:
        model, _ = fine_tune(base, new_task.train, new_task.validation, frozen=0, **options)
        assert all(value.requires_grad for value in model.parameters())
    assert equal_states(base.state_dict(), values) and properties() == before


def test_a_base_of_another_network_is_refused(base, new_task):
    base.append(nn.Dropout(0.1))
    with pytest.raises(UserError, match="another network"):
        fine_tune(base, new_task.train, new_task.validation)


def test_reinitialising_every_block_is_training_a_fresh_model(base, new_task):
    other, fresh = build_model(3), build_model(FRESH_SEED + 3)  # dropout goes on drawing from the last one's generator
    assert not torch.isclose(next(fresh.parameters()), next(other.parameters())).any()
    expected = fit(fresh, new_task.train, new_task.validation, seed=3, **OPTIONS)
    model, curve = fine_tune(base, new_task.train, new_task.validation, frozen=0, reinit=BLOCKS, seed=3, **OPTIONS)
    assert without_seconds(curve) == without_seconds(expected)
    assert equal_states(model.state_dict(), fresh.state_dict())


def test_the_textbooks_way_of_freezing_gives_the_same_model(base, new_task):
    model, _ = fine_tune(base, new_task.train, new_task.validation, seed=4, **OPTIONS)
    usual = build_model(FRESH_SEED + 4)
    usual[:2].load_state_dict(base[:2].state_dict())
    fit(nn.Sequential(Frozen(usual[:1]), usual[1:]), new_task.train, new_task.validation, seed=4, **OPTIONS)
    agree = predict(model, new_task.test.images) == predict(usual, new_task.test.images)
    assert agree.float().mean() >= 0.98  # rounding may differ
    assert equal_states(usual[:1].state_dict(), base[:1].state_dict())


# The clock


def test_the_curve_of_fine_tuning_begins_with_the_seconds_of_the_training_images_features(
        base, new_task, monkeypatch, clock):
    def slow(part, images):
        clock[0] += {len(new_task.train.labels): 20, len(new_task.validation.labels): 300}.get(len(images), 4000)
        return extract_features(part, images)

    monkeypatch.setattr(finetune, "extract_features", slow)
    _, curve = fine_tune(base, new_task.train, new_task.validation, **OPTIONS)
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


@pytest.mark.parametrize("way", ["fresh", "finetune"])
def test_what_a_process_does_only_the_first_time_is_not_timed(base, new_task, monkeypatch, clock, way):
    done = set()

    def first_time(block, inputs):  # the first pass in training and the first in evaluation take long, as in a process
        if block.training not in done:
            done.add(block.training)
            clock[0] += 100

    def build(seed):
        model = build_model(seed)
        for block in model[:2]:
            block.register_forward_pre_hook(first_time)
        return model

    monkeypatch.setattr(finetune, "build_model", build)
    train = partial(fit, build(0)) if way == "fresh" else partial(fine_tune, base)
    result = train(new_task.train, new_task.validation, epochs=1, batch_size=32)
    curve = result if way == "fresh" else result[1]
    assert done == {True, False} and curve[-1]["seconds"] == 0


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


@pytest.mark.parametrize("epochs, batch_size, expected", [
    (None, 128, 200), (None, 7, 200), (1, 128, 1), (2, 128, 2)])  # what the user asks for is obeyed, one step too
def test_few_images_are_trained_for_200_steps_by_default(new_task, epochs, batch_size, expected):
    few, model, start = few_labels(new_task.train, 10, seed=0), build_model(0), build_model(0)
    assert fit(model, few, new_task.validation, epochs=epochs, batch_size=batch_size)[-1]["epoch"] == expected
    assert not torch.allclose(next(model.parameters()), next(start.parameters()), atol=1e-4)  # a real step
    assert [default_epochs(images) for images in (15, 30, 300, 3000, 16_259)] == [200, 200, 100, 9, 5]


@pytest.mark.parametrize("epochs, rows, expected", [
    (10, 20, [*range(11)]), (33, 20, [*range(0, 33, 2), 33]), (40, 20, [*range(0, 41, 2)]), (33, 1, [0, 33])])
def test_a_curve_has_evenly_spread_rows_and_prints_them(new_task, capsys, epochs, rows, expected):
    curve = fit(build_model(0), few_labels(new_task.train, 10, seed=0), new_task.validation, epochs=epochs, rows=rows,
                verbose=True)
    lines, last = capsys.readouterr().out.splitlines(), curve[-1]
    assert [row["epoch"] for row in curve] == expected
    assert [line.split("  ")[0] for line in lines] == [f"epoch {epoch}/{epochs}" for epoch in expected[1:]]
    assert lines[-1].split("  ")[1] == (
        f"training loss {last['train_loss']:.4f}, accuracy {100 * last['train_accuracy']:.2f} %; validation loss "
        f"{last['validation_loss']:.4f}, accuracy {100 * last['validation_accuracy']:.2f} %; {last['seconds']:.1f} s")


@pytest.mark.parametrize("count, batch_size", [(37, 8), (33, 32), (7, 32), (100, 9)])
def test_every_image_is_seen_once_an_epoch(count, batch_size, monkeypatch):
    monkeypatch.setattr(training, "warm_up", lambda *_: None)
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


def test_images_and_features_stay_though_an_activation_works_in_place(new_task, monkeypatch):
    def build(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Flatten(), nn.LeakyReLU(0.2, inplace=True),
                             nn.Linear(28 * 28, 10))

    monkeypatch.setattr(finetune, "build_model", build)
    splits = [Split(split.images.clone(), split.labels) for split in new_task[1:]]
    for frozen in (0, 2):  # images, then features, are what the activation sees first
        model, curve = fine_tune(build(0), *splits[:2], frozen=frozen, reinit=1, **OPTIONS)
        found = evaluate(model, splits[1])
        assert (curve[-1]["validation_loss"], curve[-1]["validation_accuracy"]) == pytest.approx(found)
        predict(model, splits[2].images)
    for split, before in zip(splits, new_task[1:]):
        assert torch.equal(split.images, before.images)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("part", [
    nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 4), nn.BatchNorm1d(4, track_running_stats=False)),
    nn.Sequential(nn.Conv2d(1, 1, 28), nn.Flatten(0)), nn.Conv2d(1, 3, 5)], ids=["batch-norm", "flat", "images"])
def test_features_are_the_outputs_whatever_their_shape_and_dtype(new_task, part, dtype):
    images = new_task.train.images[:256].to(dtype)
    features = extract_features(part.to(dtype), images)
    expected = part(images)
    assert features.dtype == dtype and torch.allclose(features, expected, atol=1e-5)
    assert features.dim() != 4 or features.is_contiguous(memory_format=torch.channels_last)
