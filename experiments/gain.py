"""The three models, and what transfer gains: by labels, and for other digits."""

import numpy as np
from matplotlib.axes import Axes

from experiments.intervals import student, table
from experiments.runs import CHOICES, FEW, HEAD, Study, both, plot_errors, setting, with_seeds
from plotting import COLOURS, LABELS

WAYS = {"base": "base", "finetune": "once", "fresh": "fresh"}  # the models in the benchmark
LABEL_COUNTS = (None, 1000, 100, FEW, 5)  # per new digit; None: all
SHIFTED_COUNTS = (100, FEW, 5)
CHOICES_AT = ((None, False), (FEW, False), (FEW, True))
ALL_LABELS = 5420  # per digit, on the axis: 16,259 training images of three digits


def decimals(per_digit: int | None) -> int:
    return 1 if per_digit and per_digit <= FEW else 2


def name_labels(per_digit: int | None, shifted: bool) -> str:
    return f"{per_digit:,}{', shifted' if shifted else ''}" if per_digit else "all"


def plan(seeds: range, new_digits: list, study: Study) -> list[dict]:
    """The runs of this file's questions."""
    settings = [setting("base")]
    for count in LABEL_COUNTS:
        settings += both(per_digit=count)
    for count in SHIFTED_COUNTS:
        settings += both(per_digit=count, shifted=True)
    runs = with_seeds(settings, seeds)
    for new in new_digits:
        for count, shifted in CHOICES_AT:
            runs += with_seeds(both(new=new, per_digit=count, shifted=shifted), [CHOICES.index(new)])
    return runs


def models(study: Study, benchmark: dict | None) -> list[str]:
    """How accurate are the three models, and how long does their training take?

    All labels, default settings. Accuracies are means over seeds. Times are means over the benchmark's rounds, of
    other trainings at the same settings; evaluation is not timed.
    """
    rows = []
    for model, way in WAYS.items():
        seeds = study.seeds(setting("base"), *both())
        training, test = (100 * study.accuracy(split, setting(model), seeds).mean() for split in ("train", "test"))
        time = f"{np.mean(benchmark['seconds'][way]):.1f} s" if benchmark else "not measured"
        rows.append((LABELS[model], "0-6" if model == "base" else "7-9", f"{training:.3f} %", f"{test:.2f} %", time,
                     len(seeds)))
    return table(("model", "digits", "training accuracy", "test accuracy", "training time", "seeds"), rows)


def losses(study: Study, benchmark: dict | None) -> list[str]:
    """How do the losses develop?

    All labels, default settings: means over the benchmark's trainings after each epoch, in nats, on the validation
    images and on a sample of as many training images.
    """
    if not benchmark:
        return []
    rows = []
    for model, way in WAYS.items():
        for split, name in (("train", "training"), ("validation", "validation")):
            values = np.array([[row[f"{split}_loss"] for row in curve[1:]] for curve in benchmark["curves"][way]])
            rows.append((LABELS[model], name, *(f"{mean:.4f}" for mean in values.mean(0)), len(values)))
    return table(("model", "loss", *(f"epoch {row['epoch']}" for row in benchmark["curves"]["base"][0][1:]),
                  "trainings"), rows)


def labels(study: Study, benchmark: dict | None) -> list[str]:
    """What does transfer gain, by the number of labels?

    Both models at default settings, trained on all images of the new digits or on some of each, drawn by the seed;
    `shifted`: on each image in all its shifts by up to two pixels. Errors are in % of the test images, gains in
    percentage points; the errors removed are the gain as a share of the fresh model's errors.
    """
    rows = []
    for count, shifted in [*((count, False) for count in LABEL_COUNTS), *((count, True) for count in SHIFTED_COUNTS)]:
        found = study.compare(*both(per_digit=count, shifted=shifted))
        rows.append((name_labels(count, shifted), *found.cells(decimals(count))))
    return table(("labels per digit", *HEAD), rows)


def draw_labels(axes: Axes, study: Study, benchmark: dict | None) -> None:
    """Test error of both models over the number of labels."""
    for side, model in enumerate(("finetune", "fresh")):
        for counts, shifted, line in ((LABEL_COUNTS, False, "o-"), (SHIFTED_COUNTS, True, "o--")):
            accuracies = [study.compare(*both(per_digit=count, shifted=shifted))[side] for count in counts]
            beside = (0.91, 1.1)[side]  # so that the bars of the two models do not hide each other
            plot_errors(axes, [beside * (count or ALL_LABELS) for count in counts], accuracies, line,
                        color=COLOURS[model], label=f"{LABELS[model]}{', shifted' if shifted else ''}")
    axes.legend(loc="lower left", handlelength=2.4, labelspacing=0.2)
    axes.set(xscale="log", yscale="log", ylim=(0.05, None), xlabel="labelled images per digit of 7-9",
             ylabel="test error (%)", title="Default settings")  # from 0.05: room for the legend
    axes.set_xticks((5, 10, 100, 1000, ALL_LABELS), ("5", "10", "100", "1,000", "all"))
    axes.set_yticks((0.1, 0.3, 1, 3, 10), ("0.1", "0.3", "1", "3", "10"))
    axes.minorticks_off()


def choices(study: Study, benchmark: dict | None) -> list[str]:
    """Is it the same for other digits?

    Every choice of three new digits, each tried once, with a base model (of the other seven) and a seed of its own. The
    gain is the mean over choices, in percentage points; its interval is Student's over the choices, and leaves out the
    chance in the test images, of which each serves many choices. Wins are counted on test images.
    """
    rows = []
    for count, shifted in CHOICES_AT:
        gains = {"test": [], "validation": []}
        for number, new in enumerate(CHOICES):
            first, second = both(new=new, per_digit=count, shifted=shifted)
            if study.has(first | {"seed": number}) and study.has(second | {"seed": number}):
                for split, values in gains.items():
                    values += list(study.accuracy(split, first, [number]) - study.accuracy(split, second, [number]))
        test = np.array(gains["test"])
        rows.append((name_labels(count, shifted),
                     *(student(np.array(values)).write_points(decimals(count) + 1) for values in gains.values()),
                     sum(test > 0), sum(test == 0), sum(test < 0), len(test)))
    return table(("labels per digit", "gain", "gain on validation images", "choices that gain", "tie", "lose",
                  "choices"), rows)


QUESTIONS = (models, losses, labels, choices)
