"""What the study's runs say: results/study.jsonl -> results/summary.json and the figures of the study.

    python -m experiments.summary       # seconds: nothing is trained

The summary is a function of that one file: of the seeds and choices of new digits that are complete in it, and it says
how many these are. Accuracies and their differences are fractions in [0, 1]; differences are paired by seed.
"""

import math

import numpy as np
from scipy import stats

import cli
from data import UserError
from experiments import study
from experiments.figures import choices_figure, cuts_figure, labels_figure
from plotting import to_png
from results import save, to_json

TEST_IMAGES = {"base": 6989, "finetune": 3011, "fresh": 3011, "untrained": 3011}  # of 0-6, and of 7-9


class Outcomes:
    """The outcomes of the study's runs, by their settings: keyword arguments as those of `setting`."""

    def __init__(self, runs: list[dict]):
        self.by_key = {study.key(run): run["outcome"] for run in runs}

    def of(self, model: str, seed: int, **settings) -> dict:
        return self.by_key[study.key(study.setting(model, seed, **settings))]

    def have(self, runs: list[dict]) -> bool:
        return all(study.key(run) in self.by_key for run in runs)

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
        """Test accuracy of both models, each at its own settings, and the gain: fine-tuned less fresh."""
        first, second = self.correct("finetune", seeds, **finetune), self.correct("fresh", seeds, **fresh)
        return {"finetune": interval(first), "fresh": interval(second), "gain": interval(first - second)}


def interval(values: np.ndarray) -> dict:
    """Mean of float [seeds, images], and its 95 % confidence interval over seeds and test images together.

    Both are samples: the variance over seeds divided by their number is added to the variance over images (of the mean
    over seeds) divided by theirs. Student's t has the seeds' degrees of freedom. `p`: if the true mean were zero.
    """
    seeds, images = values.shape
    error = math.sqrt(values.mean(1).var(ddof=1) / seeds + values.mean(0).var(ddof=1) / images)
    mean, margin = float(values.mean()), float(stats.t.ppf(0.975, seeds - 1)) * error
    return {"mean": mean, "low": mean - margin, "high": mean + margin, "sd": float(values.mean(1).std(ddof=1)),
            "p": float(2 * stats.t.sf(abs(mean) / error, seeds - 1)) if error else 1.0}


# The parts


def summarise_models(outcomes: Outcomes, seeds) -> dict:
    """The three models of the exercise, with all labels."""
    models = outcomes.compare(seeds, {}, {}) | {"base": interval(outcomes.correct("base", seeds))}
    for model in ("base", "finetune", "fresh"):
        models[model]["train_accuracy"] = float(outcomes.accuracy("train", model, seeds).mean())
    better = outcomes.accuracy("test", "fresh", seeds) > outcomes.accuracy("test", "finetune", seeds)
    return models | {"seeds_where_fresh_is_better": int(better.sum())}


def summarise_labels(outcomes: Outcomes, seeds) -> list[dict]:
    """Few labels at the default settings, images shifted or not."""
    rows = []
    for count, shifted in study.FEW_LABELS:
        settings = {"per_digit": count, "shifted": shifted}
        rows.append({**settings, **outcomes.compare(seeds, settings, settings)})
        if shifted:  # is what shifts do without transfer more than what transfer does without shifts?
            shifts, transfer = (outcomes.correct("fresh", seeds, **settings),
                                outcomes.correct("finetune", seeds, per_digit=count))
            rows[-1]["shifts_alone_minus_transfer_alone"] = interval(shifts - transfer)
    return rows


def summarise_untrained(outcomes: Outcomes, seeds) -> list[dict]:
    """The control: fine-tuned from a base that was never trained, with few labels."""
    rows = []
    for shifted in (False, True):
        untrained, finetune, fresh = (outcomes.correct(model, seeds, per_digit=study.FEW, shifted=shifted)
                                      for model in ("untrained", "finetune", "fresh"))
        rows.append({"shifted": shifted, "untrained_minus_fresh": interval(untrained - fresh),
                     "finetune_minus_untrained": interval(finetune - untrained)})
    return rows


def summarise_cuts(outcomes: Outcomes, seeds) -> list[dict]:
    """Every cut, with all labels and with few, against the default cut and against fresh."""
    rows = []
    for count in (None, study.FEW):
        default, fresh = (outcomes.correct(model, seeds, per_digit=count) for model in ("finetune", "fresh"))
        for cut in study.CUTS:
            correct = fresh if cut == study.FRESH_CUT else outcomes.correct("finetune", seeds, per_digit=count, cut=cut)
            rows.append({"per_digit": count, "frozen": cut[0], "reinit": cut[1], "test": interval(correct),
                         "minus_default": interval(correct - default), "minus_fresh": interval(correct - fresh)})
    return rows


def summarise_tuned(outcomes: Outcomes, seeds, count: int) -> dict:
    """Each model at the settings that are best for it by mean validation accuracy, compared on the test set."""
    tried = {"finetune": [], "fresh": []}
    for model, rows in tried.items():
        for shifted in (False, True):
            for rate in study.TUNED_RATES:
                mean = outcomes.accuracy("validation", model, seeds, per_digit=count, shifted=shifted, rate=rate).mean()
                rows.append({"shifted": shifted, "rate": rate, "validation_accuracy": float(mean)})
    result = {"seeds": len(seeds), "tried": tried}
    for name, allowed in (("best", (False, True)), ("best_unshifted", (False,))):
        best = {}
        for model, rows in tried.items():
            best[model] = max((row for row in rows if row["shifted"] in allowed),
                              key=lambda row: row["validation_accuracy"])
        settings = [{"per_digit": count, "shifted": row["shifted"], "rate": row["rate"]} for row in best.values()]
        result[name] = {"settings": best, **outcomes.compare(seeds, *settings)}
    return result


def summarise_choices(outcomes: Outcomes, seeds, choices: list[tuple[int, ...]], count: int | None,
                      shifted: bool) -> dict:
    """The gain of transfer over the choices of new digits, and the share of the fresh model's errors that it removes.

    The choices overlap, so they are described and not tested. What is uncertain about their mean is the noise of each
    choice's one seed: `within_sd`, pooled over the choices that were repeated with other seeds.
    """
    def test(model: str, new: tuple[int, ...], seeds) -> np.ndarray:
        return outcomes.accuracy("test", model, seeds, new=new, per_digit=count, shifted=shifted)

    fresh, finetune = (np.array([test(model, new, study.choice_seeds(new)[:1])[0] for new in choices])
                       for model in ("fresh", "finetune"))
    gains, errors = finetune - fresh, 1 - fresh
    repeats = {study.EXERCISE: seeds} | {new: study.choice_seeds(new) for new in choices if new != study.EXERCISE}
    groups = [test("finetune", new, each) - test("fresh", new, each) for new, each in repeats.items() if len(each) > 1]
    freedom = sum(len(group) - 1 for group in groups)
    within = sum((len(group) - 1) * group.var(ddof=1) for group in groups) / freedom
    margin = stats.t.ppf(0.975, freedom) * math.sqrt(within / len(gains))
    total = gains.var(ddof=1)
    numbers = {"mean": gains.mean(), "low": gains.mean() - margin, "high": gains.mean() + margin,
               "within_sd": math.sqrt(within), "total_sd": math.sqrt(total),
               "between_sd": math.sqrt(max(0, total - within)),
               "share_of_errors_removed": gains.mean() / errors.mean()}
    return {name: float(number) for name, number in numbers.items()} | {
        "better": int((gains > 0).sum()), "equal": int((gains == 0).sum()), "worse": int((gains < 0).sum()),
        "by_choice": [{"new": list(new), "gain": float(gain), "fresh_error": float(error)}
                      for new, gain, error in zip(choices, gains, errors)]}


def summarise(runs: list[dict]) -> dict:
    """The summary of the runs. Raises UserError where too little is complete in them."""
    outcomes = Outcomes(runs)
    number = 0
    while outcomes.have(study.plan(number + 1, 0)):
        number += 1
    choices = [new for new in study.CHOICES
               if all(outcomes.have(study.both(seed, new=new, per_digit=count, shifted=shifted))
                      for seed in study.choice_seeds(new) for count, shifted in study.CHOICES_AT)]
    if number < study.RATE_SEEDS or len(choices) < 2:
        raise UserError("the study is not far enough to be summarised: start experiments.study again; it goes on where "
                        "it was")
    seeds = range(number)

    def validation(models: tuple[str, ...], seeds, **settings) -> dict:
        return {model: float(outcomes.accuracy("validation", model, seeds, **settings).mean()) for model in models}

    return {
        "seeds": number, "number_of_choices": len(choices), "models": summarise_models(outcomes, seeds),
        "labels": summarise_labels(outcomes, seeds), "untrained": summarise_untrained(outcomes, seeds),
        "cuts": summarise_cuts(outcomes, seeds),
        "tuned": {str(count): summarise_tuned(outcomes, range(study.tuned_seeds(count, number)), count)
                  for count in study.TUNED},
        "choices": {name: summarise_choices(outcomes, seeds, choices, count, shifted)
                    for name, (count, shifted) in zip(("few", "few_shifted", "all"), study.CHOICES_AT)},
        # Where the default settings come from: mean accuracies on validation images.
        "rates": [{"rate": rate, **validation(("base", "finetune", "fresh"), range(study.RATE_SEEDS), rate=rate)}
                  for rate in study.RATES],
        "steps": [{"per_digit": count, "shifted": shifted, "steps": steps,
                   **validation(("finetune", "fresh"), seeds, per_digit=count, shifted=shifted, steps=steps)}
                  for count, shifted in study.STEPS_TRIED_AT for steps in study.STEPS_TRIED],
    }


def main():
    args = cli.parse(cli.parser(__doc__, loads_mnist=False))
    path = args.out / "results" / "study.jsonl"
    if not path.exists():
        raise UserError(f"there is no {path}: run experiments.study")
    summary = summarise(study.read_runs(path))
    plots = args.out / "plots"
    save({args.out / "results" / "summary.json": to_json(summary),
          plots / "labels.png": to_png(labels_figure(summary)), plots / "cuts.png": to_png(cuts_figure(summary)),
          plots / "choices.png": to_png(choices_figure(summary))})
    print(f"{summary['seeds']} seeds and {summary['number_of_choices']} choices of new digits are complete\n"
          f"saved results/summary.json and plots/labels.png, cuts.png and choices.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
