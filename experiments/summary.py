"""What the study's runs say: results/study.jsonl -> results/summary.json, rows of tables, and figures.

    python -m experiments.summary       # seconds: nothing is trained

The summary is a function of that one file: of the seeds and choices of new digits that are complete in it for today's
network, and it says how many these are. Accuracies and their differences are fractions in [0, 1]; differences are
paired by seed. Where a `mean` stands, `low` and `high` are the ends of its 95 % confidence interval.
"""

import math

import numpy as np
from scipy import stats

import cli
from data import UserError
from experiments import figures, plan, tables
from experiments.study import outcomes_by_key, read_runs
from finetune import FROZEN
from results import save, to_json

TEST_IMAGES = {"base": 6989, "finetune": 3011, "fresh": 3011, "untrained": 3011}  # of 0-6, and of 7-9


# Intervals


def interval(values: np.ndarray) -> dict:
    """The mean of float [seeds, images] and its 95 % interval, seeds and test images both being samples, crossed.

    Two-way random effects with one value a cell (Cornfield & Tukey 1956): what varies with the seed and what varies
    with the image are added; both contain the residual, so it is subtracted once. Student's t has
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


def student_interval(values: np.ndarray) -> dict:
    """The mean of float [n], with Student's interval: seeds, or choices with a seed each, are the only sample."""
    return ends(values.mean(), stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def ends(mean: float, margin: float) -> dict:
    return {"mean": float(mean), "low": float(mean - margin), "high": float(mean + margin)}


class Outcomes:
    """The outcomes of the study's runs, by their settings: keyword arguments as those of `plan.setting`."""

    def __init__(self, runs: list[dict]):
        self.by_key = outcomes_by_key(runs)

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
        return {"finetune": interval(first), "fresh": interval(second), "gain": interval(first - second)}


# The parts


def summarise_models(outcomes: Outcomes, seeds) -> dict:
    """The three models of the exercise, with all labels."""
    models = outcomes.compare(seeds, {}, {}) | {"base": interval(outcomes.correct("base", seeds))}
    for model in ("base", "finetune", "fresh"):
        models[model]["train_accuracy"] = student_interval(outcomes.accuracy("train", model, seeds))
    return models


def summarise_labels(outcomes: Outcomes, seeds, few_seeds) -> list[dict]:
    """Few labels at the default settings, as they are and shifted; `by_shifts`: what shifts add to each accuracy."""
    rows = []
    for count, shifted in plan.LABEL_COUNTS:
        settings, its_seeds = {"per_digit": count, "shifted": shifted}, few_seeds if count == plan.FEW else seeds
        row = {**settings, "seeds": len(its_seeds), **outcomes.compare(its_seeds, settings, settings)}
        if shifted:
            row["by_shifts"] = {model: interval(outcomes.correct(model, its_seeds, per_digit=count, shifted=True)
                                                - outcomes.correct(model, its_seeds, per_digit=count))
                                for model in ("finetune", "fresh")}
        rows.append(row)
    return rows


def summarise_epochs(outcomes: Outcomes, seeds) -> list[dict]:
    """All labels and fewer epochs, each training with a schedule of its own.

    `default_finetune_minus_fresh`: what fine-tuning with the default epochs gains on a fresh training with these.
    """
    default, rows = outcomes.correct("finetune", seeds), []
    for epochs in plan.EPOCH_COUNTS:
        settings = {"epochs": epochs}
        fresh = outcomes.correct("fresh", seeds, **settings)
        rows.append({**settings, **outcomes.compare(seeds, settings, settings),
                     "default_finetune_minus_fresh": interval(default - fresh)})
    return rows


def summarise_untrained(outcomes: Outcomes, seeds) -> list[dict]:
    """The control: fine-tuned from the base before its training, with few labels."""
    rows = []
    for cut in plan.CONTROL_CUTS:
        for shifted in (False, True):
            settings = {"per_digit": plan.FEW, "shifted": shifted}
            untrained, finetune = (outcomes.correct(model, seeds, cut=cut, **settings)
                                   for model in ("untrained", "finetune"))
            fresh = outcomes.correct("fresh", seeds, **settings)
            rows.append({"frozen": cut[0], "shifted": shifted, "untrained_minus_fresh": interval(untrained - fresh),
                         "finetune_minus_untrained": interval(finetune - untrained)})
    return rows


def summarise_sources(outcomes: Outcomes, seeds) -> dict:
    """Where the gain with few labels comes from: the initial blocks first, then the intermediate ones on top."""
    fresh = outcomes.correct("fresh", seeds, per_digit=plan.FEW)
    initial = outcomes.correct("finetune", seeds, per_digit=plan.FEW, cut=(FROZEN, len(plan.BLOCKS) - FROZEN))
    both = outcomes.correct("finetune", seeds, per_digit=plan.FEW)
    return {"initial": interval(initial - fresh), "intermediate_on_top": interval(both - initial)}


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
    """Each model at the settings that are best for it on validation images of the tuning seeds, measured on `seeds`.

    `grid`: all that were tried on the tuning seeds; `longer`: what the last three quarters of the steps add to each.
    """
    tuning_seeds = [seed for seed in plan.TUNING_SEEDS if outcomes.have(plan.tuning_runs(seed))]
    grid = []
    for model in ("finetune", "fresh"):
        for settings in plan.TUNING_GRID:
            validation = outcomes.accuracy("validation", model, tuning_seeds, **settings)
            correct = outcomes.correct(model, tuning_seeds, **settings)
            grid.append({"model": model, "steps": settings["steps"], "rate": settings["rate"],
                         "validation": student_interval(validation), "test": interval(correct)})
    best = plan.best_settings(outcomes.by_key)
    longer = {}
    for model, settings in best.items():
        quarter = settings | {"steps": settings["steps"] // 4}
        longer[model] = interval(outcomes.correct(model, seeds, **settings) - outcomes.correct(model, seeds, **quarter))
    return {"seeds": len(tuning_seeds), "grid": grid, "longer": longer,
            "best": {"settings": best, "seeds": len(seeds), **outcomes.compare(seeds, best["finetune"], best["fresh"])}}


def summarise_choices(outcomes: Outcomes, choices: list[tuple[int, ...]], count: int | None, shifted: bool) -> dict:
    """The gain of transfer over the choices of new digits, one seed each: on test images, and on validation images.

    The choices are all that there are, but differences between them count as noise here, as the seeds' do: the
    interval is wider than for the seeds' alone.
    """
    def gains(split: str) -> np.ndarray:
        finetune, fresh = ([outcomes.of(model, plan.CHOICES.index(new), new=new, per_digit=count, shifted=shifted)
                            [f"{split}_accuracy"] for new in choices] for model in ("finetune", "fresh"))
        return np.array(finetune) - np.array(fresh)

    test = gains("test")
    return student_interval(test) | {
        "validation": student_interval(gains("validation")),
        "better": int((test > 0).sum()), "equal": int((test == 0).sum()), "worse": int((test < 0).sum())}


def summarise_rates(outcomes: Outcomes) -> list[dict]:
    """Where the default learning rate comes from: mean accuracies on validation images, all labels."""
    seeds = range(plan.RATE_SEEDS)
    return [{"rate": rate, **{model: student_interval(outcomes.accuracy("validation", model, seeds, rate=rate))
                              for model in ("base", "finetune", "fresh")}} for rate in plan.RATES]


def summarise(runs: list[dict]) -> dict:
    """The summary of the runs. Raises UserError where too little is complete in them."""
    runs = [run for run in runs if run["network"] == plan.NETWORK]
    outcomes = Outcomes(runs)
    number = 0
    while outcomes.have(plan.plan(number + 1, 0, outcomes.by_key)):
        number += 1
    choices = [new for new in plan.CHOICES
               if all(outcomes.have(plan.both(plan.CHOICES.index(new), new=new, per_digit=count, shifted=shifted))
                      for count, shifted in plan.CHOICES_AT)]
    if number < plan.RATE_SEEDS or len(choices) < 2:
        raise UserError("the study is not far enough to be summarised: start experiments.study again; it goes on where "
                        "it was")
    seeds, few_seeds = range(number), range(plan.MORE_SEEDS * number)
    machines = sorted({tuple(run[name] for name in plan.MACHINE) for run in runs})
    return {
        "seeds": number, "number_of_choices": len(choices),
        "machines": [dict(zip(plan.MACHINE, machine)) for machine in machines],
        "few_seeds": len(few_seeds), "models": summarise_models(outcomes, seeds),
        "labels": summarise_labels(outcomes, seeds, few_seeds), "epochs": summarise_epochs(outcomes, seeds),
        "untrained": summarise_untrained(outcomes, few_seeds), "sources": summarise_sources(outcomes, few_seeds),
        "cuts": summarise_cuts(outcomes, seeds, few_seeds),
        "tuned": summarise_tuned(outcomes, plan.tuned_seeds(number)),
        "choices": {name: summarise_choices(outcomes, choices, count, shifted)
                    for name, (count, shifted) in zip(("few", "few_shifted", "all"), plan.CHOICES_AT)},
        "rates": summarise_rates(outcomes),
    }


def main():
    args = cli.parser(__doc__).parse_args()
    path = args.out / "results" / "study.jsonl"
    if not path.exists():
        raise UserError(f"there is no {path}: run experiments.study, with the same --out")
    summary = summarise(read_runs(path))
    save(args.out / "results" / "summary.json", to_json(summary))
    print("\n".join(tables.of_summary(summary)))
    print(f"{summary['seeds']} seeds and {summary['number_of_choices']} choices of new digits are complete")
    print("saved results/summary.json; drew", figures.draw(args.out))


if __name__ == "__main__":
    cli.run(main)
