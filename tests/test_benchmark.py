"""The benchmark: that it counts, fits and divides time as it says. Its timings are not tested: they are its result."""

import json

import pytest
import rendered_digits
from conftest import run

from benchmark import count_flops, seconds_to, straight_line, summarise

# By hand, for one image: 2 * output pixels * kernel pixels * input channels * output channels, or 2 * inputs * outputs.
CONV1, CONV2, FC1, FC2 = 2 * 24 * 24 * 25 * 16, 2 * 8 * 8 * 25 * 16 * 32, 2 * 512 * 64, 2 * 64 * 10
TAIL = CONV2 + FC1 + FC2


def test_flops_are_the_layers_formulas():
    # Backward costs a forward for the weights and one for the inputs; the first trained layer needs no latter.
    assert count_flops() == {
        "fresh": {"forward": CONV1 + TAIL, "forward_and_backward": 3 * (CONV1 + TAIL) - CONV1},
        "recompute": {"forward": CONV1 + TAIL, "forward_and_backward": CONV1 + 3 * TAIL - CONV2},
        "once": {"forward": TAIL, "forward_and_backward": 3 * TAIL - CONV2},
        "features": {"forward": CONV1}}


def test_a_straight_line_is_found():
    line = straight_line([1000, 2000, 4000, 8000], [0.3, 0.5, 0.9, 1.7])
    assert line == pytest.approx({"seconds_per_image": 2e-4, "intercept_seconds": 0.1, "r_squared": 1.0,
                                  "largest_relative_deviation": 0.0}, abs=1e-9)


def test_a_bent_line_is_told_by_its_deviation():
    line = straight_line([0, 1, 2], [1, 1, 4])  # least squares: 0.5 + 1.5 x
    assert line["seconds_per_image"] == pytest.approx(1.5) and line["intercept_seconds"] == pytest.approx(0.5)
    assert line["largest_relative_deviation"] == pytest.approx(1.0)  # 1 where the line has 0.5
    assert line["r_squared"] == pytest.approx(0.75)


def test_seconds_to_a_level_are_those_of_its_first_row():
    curve = [{"seconds": seconds, "validation_accuracy": accuracy}
             for seconds, accuracy in ((0.0, 0.1), (0.5, 0.989), (1.0, 0.990), (1.5, 0.985), (2.0, 0.992))]
    assert seconds_to(0.990, curve) == 1.0
    assert seconds_to(0.993, curve) is None


def test_a_round_that_never_arrived_counts_as_later_than_all():
    rounds = [{"seconds": seconds} for seconds in (2.0, None, 1.0)]
    assert summarise(rounds) == {"seconds": {"median": 2.0, "lowest": 1.0, "highest": None}}
    assert summarise([{"seconds": None}] * 2) == {"seconds": {"median": None, "lowest": None, "highest": None}}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """A short run as a user runs it, on few rendered digits: what it printed, its results, its folder."""
    out = tmp_path_factory.mktemp("benchmark")
    rendered_digits.write(out / "data", train=400, test=50)
    done = run("benchmark.py", "--data-dir", out / "data", "--out", out, "--rounds", 1, "--epochs", 1)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode(), json.loads((out / "results/benchmark.json").read_text()), out


def test_a_run_leaves_its_results_and_its_figure(outcome):
    printed, results, out = outcome
    assert (out / "plots/benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert results["dataset"]["name"] == "rendered digits" and results["dataset"]["verified"] is False
    assert "not MNIST" in printed
    for item in ("flops_per_image", "throughput", "ways", "explanation", "scaling", "time_to_accuracy"):
        assert item.replace("_", " ") in printed and item in results


def test_the_groups_account_for_the_whole_difference(outcome):
    _, results, _ = outcome
    explanation, ways = results["explanation"], results["ways"]
    for way in ("recompute", "once"):
        ratio = explanation["ratio_to_fresh"][way]
        parts = sum(part[way] for part in explanation["measured_less_predicted"].values())
        assert parts == pytest.approx(ratio["measured"] - ratio["predicted"])
        milliseconds = sum(group[way] for group in explanation["milliseconds_per_step"].values())
        assert milliseconds * explanation["steps"] / 1000 == pytest.approx(ways[f"{way}_training_seconds"]["median"])
        assert ratio["measured"] == pytest.approx(ways[f"{way}_to_fresh"]["median"])  # one round: one ratio
        # The operations that count are only a part of the time, so that they alone go at a higher rate than the whole.
        images, counted = results["dataset"]["train"], results["flops_per_image"][way]["forward_and_backward"]
        rate = images * counted / 1e9 / ways[f"{way}_training_seconds"]["median"]
        assert explanation["counted_operations_gflops_per_second"][way] > rate


def test_every_group_is_found_in_a_profile(outcome):
    """Names of operations change between versions of PyTorch; a group that finds none would hide in 'other'."""
    _, results, _ = outcome
    groups = results["explanation"]["milliseconds_per_step"]
    for name, milliseconds in groups.items():
        assert milliseconds["once"] > 0, name
        assert milliseconds["fresh"] > 0 or name == "features, once"
