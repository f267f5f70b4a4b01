"""What the study's runs say: results/study.jsonl -> results/summary.json and the figures of the study.

    python -m experiments.summary       # seconds: nothing is trained

The summary is a function of that one file: of the seeds and choices of new digits that are complete in it, and it says
how many these are. Accuracies and their differences are fractions in [0, 1]; differences are paired by seed. Where a
`mean` stands, `low` and `high` are the ends of its 95 % confidence interval.
"""

import math

import numpy as np
from scipy import stats

import cli
from data import UserError
from experiments import plan
from experiments.figures import draw
from experiments.study import read_runs
from results import save, to_json

TEST_IMAGES = {"base": 6989, "finetune": 3011, "fresh": 3011, "untrained": 3011}  # of 0-6, and of 7-9


# Intervals


def interval(values: np.ndarray) -> dict:
    """The mean of float [seeds, images] and its 95 % interval, seeds and test images both being samples, crossed.

    Two-way random effects with one value a cell (Cornfield & Tukey 1956): what varies with the seed and what varies
    with the image are added, and the residual, which either of the two contains, is taken off once. Student's t has
    Satterthwaite's (1946) degrees of freedom for that sum of mean squares.
    """
    seeds, images = values.shape
    mean, by_seed, by_image = values.mean(), values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    squares = np.array([images * by_seed.var(ddof=1), seeds * by_image.var(ddof=1),
                        ((values - by_seed - by_image + mean) ** 2).sum() / ((seeds - 1) * (images - 1))])
    freedoms = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    total = max(squares[0] + squares[1] - squares[2], squares[2])
    if total == 0:  # every value is the same
        return ends(mean, 0)
    freedom = total**2 / (squares**2 / freedoms).sum()
    return ends(mean, stats.t.ppf(0.975, freedom) * math.sqrt(total / values.size))


def over_seeds(values: np.ndarray) -> dict:
    """The mean of float [seeds], with Student's interval: the seeds alone are a sample."""
    return ends(values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def ends(mean: float, margin: float) -> dict:
    return {"mean": float(mean), "low": float(mean - margin), "high": float(mean + margin)}


class Outcomes:
    """The outcomes of the study's runs, by their settings: keyword arguments as those of `plan.setting`."""

    def __init__(self, runs: list[dict]):
        self.by_key = {plan.key(run): run["outcome"] for run in runs}

    def of(self, model: str, seed: int, **settings) -> dict:
        return self.by_key[plan.key(plan.setting(model, seed, **settings))]

    def have(self, runs: list[dict]) -> bool:
        return all(plan.key(run) in self.by_key for run in runs)

    def accuracy(self, split: str, model: str, seeds, **settings) -> np.ndarray:
        """Each seed's accuracy on the train, validation or test images: float [seeds]."""
        return np.array([self.of(model, seed, **settings)[f"{split}_accuracy"] for seed in seeds])

    def correct(self, model: str, seeds, **settings) -> np.ndarray:
        """1 where a seed's model is right on a test image of the exercise, else 0: float [seeds, images]."""
        correct = np.ones((len(seeds), TEST_IMAGES[model]))
        for row, seed in zip(correct, seeds):
            row[self.of(model, seed, **settings)["wrong"]] = 0
        return correct

    def compare(self, seeds, finetune: dict, fresh: dict) -> dict:
        """Test accuracy of both models, each at its own settings, and the gain: fine-tuned minus fresh."""
        first, second = self.correct("finetune", seeds, **finetune), self.correct("fresh", seeds, **fresh)
        return {"finetune": interval(first), "fresh": interval(second), "gain": interval(first - second),
                "share_of_errors_removed": float((first - second).mean() / (1 - second).mean())}


# The parts


def summarise_models(outcomes: Outcomes, seeds) -> dict:
    """The three models of the exercise, with all labels."""
    models = outcomes.compare(seeds, {}, {}) | {"base": interval(outcomes.correct("base", seeds))}
    for model in ("base", "finetune", "fresh"):
        models[model]["train_accuracy"] = over_seeds(outcomes.accuracy("train", model, seeds))
    return models


def summarise_labels(outcomes: Outcomes, seeds, few_seeds) -> list[dict]:
    """Few labels at the default settings, images shifted or not; where both are, by how much shifts lower the gain."""
    rows = []
    for count, shifted in plan.LABEL_COUNTS:
        settings, its_seeds = {"per_digit": count, "shifted": shifted}, few_seeds if count == plan.FEW else seeds
        rows.append({**settings, "seeds": len(its_seeds), **outcomes.compare(its_seeds, settings, settings)})
        if shifted:
            gains = [outcomes.correct("finetune", its_seeds, per_digit=count, shifted=each)
                     - outcomes.correct("fresh", its_seeds, per_digit=count, shifted=each) for each in (False, True)]
            rows[-1]["gain_lost_to_shifts"] = interval(gains[0] - gains[1])
    return rows


def summarise_untrained(outcomes: Outcomes, seeds) -> list[dict]:
    """The control: fine-tuned from a base that was never trained, with few labels."""
    rows = []
    for shifted in (False, True):
        untrained, finetune, fresh = (outcomes.correct(model, seeds, per_digit=plan.FEW, shifted=shifted)
                                      for model in ("untrained", "finetune", "fresh"))
        rows.append({"shifted": shifted, "untrained_minus_fresh": interval(untrained - fresh),
                     "finetune_minus_untrained": interval(finetune - untrained)})
    return rows


def summarise_cuts(outcomes: Outcomes, seeds, few_seeds) -> list[dict]:
    """The gain of every cut, with all labels and with few."""
    rows = []
    for count, its_seeds in ((None, seeds), (plan.FEW, few_seeds)):
        fresh = outcomes.correct("fresh", its_seeds, per_digit=count)
        for cut in plan.CUTS:
            correct = outcomes.correct("finetune", its_seeds, per_digit=count, cut=cut)
            rows.append({"per_digit": count, "frozen": cut[0], "reinit": cut[1], "gain": interval(correct - fresh)})
    return rows


def summarise_tuned(outcomes: Outcomes, seeds) -> dict:
    """Each model at the settings that are best for it by mean validation accuracy, compared on the test set."""
    def best(model: str, allowed: tuple[bool, ...]) -> dict:
        tried = []
        for shifted, steps, rate in plan.TUNING_GRID:
            if shifted in allowed:
                settings = {"shifted": shifted, "steps": steps, "rate": rate}
                accuracies = outcomes.accuracy("validation", model, seeds, per_digit=plan.FEW, **settings)
                tried.append((accuracies.mean(), settings))
        return max(tried, key=lambda pair: pair[0])[1]

    result = {"seeds": len(seeds)}
    for name, allowed in (("best", (False, True)), ("best_unshifted", (False,))):
        settings = {model: best(model, allowed) for model in ("finetune", "fresh")}
        result[name] = {"settings": settings, **outcomes.compare(
            seeds, *({"per_digit": plan.FEW} | each for each in settings.values()))}
    return result


def summarise_choices(outcomes: Outcomes, seeds, choices: list[tuple[int, ...]], count: int | None,
                      shifted: bool) -> dict:
    """The gain of transfer over the choices of new digits, and the share of the fresh model's errors that it removes.

    The choices overlap, so they are described and not tested. What is uncertain about their mean is the noise of each
    choice's one seed, pooled over the choices that were repeated with other seeds.
    """
    def test(model: str, new: tuple[int, ...], seeds) -> np.ndarray:
        return outcomes.accuracy("test", model, seeds, new=new, per_digit=count, shifted=shifted)

    fresh, finetune = (np.array([test(model, new, plan.choice_seeds(new)[:1])[0] for new in choices])
                       for model in ("fresh", "finetune"))
    gains, errors = finetune - fresh, 1 - fresh
    repeats = {plan.EXERCISE: seeds} | {new: plan.choice_seeds(new) for new in choices if new != plan.EXERCISE}
    groups = [test("finetune", new, each) - test("fresh", new, each) for new, each in repeats.items() if len(each) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    within = sum((len(group) - 1) * group.var(ddof=1) for group in groups) / freedom
    return ends(gains.mean(), stats.t.ppf(0.975, freedom) * math.sqrt(within / len(gains))) | {
        "share_of_errors_removed": float(gains.mean() / errors.mean()),
        "better": int((gains > 0).sum()), "equal": int((gains == 0).sum()), "worse": int((gains < 0).sum()),
        "by_choice": [{"new": list(new), "gain": float(gain)} for new, gain in zip(choices, gains)]}


def summarise_rates(outcomes: Outcomes) -> list[dict]:
    """Where the default learning rate comes from: mean accuracies on validation images, all labels."""
    seeds = range(plan.RATE_SEEDS)
    return [{"rate": rate, **{model: over_seeds(outcomes.accuracy("validation", model, seeds, rate=rate))
                              for model in ("base", "finetune", "fresh")}} for rate in plan.RATES]


def summarise(runs: list[dict]) -> dict:
    """The summary of the runs. Raises UserError where too little is complete in them."""
    outcomes = Outcomes(runs)
    number = 0
    while outcomes.have(plan.plan(number + 1, 0)):
        number += 1
    choices = [new for new in plan.CHOICES
               if all(outcomes.have(plan.both(seed, new=new, per_digit=count, shifted=shifted))
                      for seed in plan.choice_seeds(new) for count, shifted in plan.CHOICES_AT)]
    if number < plan.RATE_SEEDS or len(choices) < 2:
        raise UserError("the study is not far enough to be summarised: start experiments.study again; it goes on where "
                        "it was")
    seeds, few_seeds = range(number), range(plan.MORE_SEEDS * number)
    machines = sorted({tuple(run[name] for name in plan.MACHINE) for run in runs})
    return {
        "seeds": number, "number_of_choices": len(choices),
        "machines": [dict(zip(plan.MACHINE, machine)) for machine in machines],
        "models": summarise_models(outcomes, seeds), "labels": summarise_labels(outcomes, seeds, few_seeds),
        "untrained": summarise_untrained(outcomes, few_seeds), "cuts": summarise_cuts(outcomes, seeds, few_seeds),
        "tuned": summarise_tuned(outcomes, few_seeds),
        "choices": {name: summarise_choices(outcomes, few_seeds if count else seeds, choices, count, shifted)
                    for name, (count, shifted) in zip(("few", "few_shifted", "all"), plan.CHOICES_AT)},
        "rates": summarise_rates(outcomes),
    }


def main():
    args = cli.parse(cli.parser(__doc__))
    path = args.out / "results" / "study.jsonl"
    if not path.exists():
        raise UserError(f"there is no {path}: run experiments.study, with the same --out")
    summary = summarise(read_runs(path))
    save(args.out / "results" / "summary.json", to_json(summary))
    draw("summary", summary, args.out)
    print(f"{summary['seeds']} seeds and {summary['number_of_choices']} choices of new digits are complete\n"
          f"saved results/summary.json and plots/few_labels.png and cuts.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
