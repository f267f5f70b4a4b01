"""The study: its statistics against textbook values, its draws, and that a stopped study is not a different one."""

import json
import signal
import sys
import time

import pytest
import torch
from conftest import call, start

import study
from errors import UserError


def test_interval_is_the_textbook_s():
    # scipy.stats.ttest_1samp([1, 2, 3, 4, 5], 0) and its confidence_interval(0.95)
    result = study.interval([1, 2, 3, 4, 5])
    assert result["low"] == pytest.approx(1.036757, abs=1e-5) and result["high"] == pytest.approx(4.963243, abs=1e-5)
    assert result["p"] == pytest.approx(0.013236, abs=1e-5) and result["n"] == 5


def test_interval_of_a_difference_that_never_varies():
    assert study.interval([0.0, 0.0, 0.0])["p"] == 1
    assert study.interval([0.5, 0.5, 0.5])["p"] == 0


def test_intervals_cover_the_true_mean_about_95_times_in_100():
    draws = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0)).tolist()
    covered = sum(result["low"] < 0 < result["high"] for result in map(study.interval, draws))
    assert 0.935 < covered / len(draws) < 0.965


def test_draws_of_few_labels_are_nested_balanced_and_the_same_for_a_seed(new_task):
    def identities(count, seed):
        drawn = study.few_labels(new_task.train, count, seed)
        assert [int((drawn.labels == digit).sum()) for digit in (7, 8, 9)] == [count] * 3
        return {image.numpy().tobytes() for image in drawn.images}

    assert identities(5, 0) < identities(30, 0)
    assert identities(5, 0) == identities(5, 0) != identities(5, 1)
    assert study.few_labels(new_task.train, None, 0) is new_task.train


@pytest.mark.parametrize("images", (15, 30, 300, 900, 16259))
def test_few_labels_take_at_least_the_steps_of_all_labels(images):
    task = torch.zeros(16259)
    task = type("Task", (), {"train": type("Split", (), {"labels": task})})
    steps = study.epochs_for(images, task, epochs=5, batch_size=128) * max(1, images // 128)
    assert 635 <= steps < 635 * 1.2


def test_the_plan_has_every_cut_of_the_network_once_and_no_run_twice():
    plan = [json.dumps(run) for run in study.plan(10)]
    assert len(set(plan)) == len(plan)
    assert len(study.CUTS) == 14 and all(frozen + reinit <= 4 for frozen, reinit in study.CUTS)


@pytest.fixture
def small(monkeypatch):
    """A study of a few runs."""
    monkeypatch.setattr(study, "LABELS", (5, None))
    monkeypatch.setattr(study, "CUTS", [(1, 2)])
    monkeypatch.setattr(study, "RATES", (0.008,))


def without_times(value):
    """`value` less all that a clock said; a p or an interval of times is of times."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if "second" not in key and key != "time_ratio"}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def test_a_stopped_study_that_goes_on_gives_the_same_numbers(small, rendered, tmp_path, monkeypatch, capsys):
    flags = ("--data-dir", rendered, "--seeds", 3, "--epochs", 1, "--jobs", 2)
    call("study.py", *flags, "--out", tmp_path / "whole")

    written, save = [], study.runs.save

    def stop_after_eleven(out, files):
        save(out, files)
        written.extend(name for name in files if name == "results/study.json")
        if len(written) == 11:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(study.runs, "save", stop_after_eleven)
        call("study.py", *flags, "--out", tmp_path / "stopped")
    path = tmp_path / "stopped" / "results" / "study.json"
    assert len(json.loads(path.read_text())["runs"]) == 11
    call("study.py", *flags, "--out", tmp_path / "stopped")
    assert "11 of 29 runs" in capsys.readouterr().out

    whole = json.loads((tmp_path / "whole" / "results" / "study.json").read_text())
    assert without_times(json.loads(path.read_text())) == without_times(whole)
    assert not whole["dataset"]["verified"]

    with pytest.raises(UserError, match="other settings"):
        call("study.py", "--data-dir", rendered, "--seeds", 3, "--epochs", 2, "--out", tmp_path / "whole")
    path.write_text("{")
    with pytest.raises(UserError, match="not a study"):
        call("study.py", *flags, "--out", tmp_path / "stopped")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_study_and_its_processes_with_one_line(rendered, tmp_path):
    process = start("study.py", "--data-dir", rendered, "--out", tmp_path, "--seeds", 3, "--epochs", 1,
                    start_new_session=True)
    results = tmp_path / "results" / "study.json"
    deadline = time.monotonic() + 100
    while not (results.exists() and len(json.loads(results.read_text())["runs"]) > 6):  # the pool is at work by then
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130 and stderr.decode().count("\n") == 1 and b"interrupted" in stderr
    assert len(json.loads(results.read_text())["runs"]) > 6
    assert not [path for path in tmp_path.rglob(".saving-*")]


def test_a_task_smaller_than_a_batch_is_trained_too():
    task = type("Task", (), {"train": type("Split", (), {"labels": torch.zeros(81)})})
    assert study.epochs_for(81, task, epochs=5, batch_size=128) == 5
