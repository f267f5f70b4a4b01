"""Items 4 and 5 side by side: the fine-tuned and the fresh model.

    python compare.py               # after finetune.py and train_fresh.py

Prints the table of the models, their settings, the ratio of their training times, and what else differs between the
two; draws plots/comparison.png and plots/loss_curves.png.
"""

import difflib
import json
from pathlib import Path

import cli
from data import UserError, spell_digits
from plotting import LABELS, comparison_figure, loss_figure, to_png
from results import save

SCRIPTS = {"base": "train_base.py", "finetune": "finetune.py", "fresh": "train_fresh.py"}


def read_results(out: Path) -> dict[str, dict]:
    """What the three scripts left in `out`, by experiment; the base's only where it is there.

    Raises UserError where one is not what its script writes, or one of the other two is missing.
    """
    runs = {}
    for name, script in SCRIPTS.items():
        path = out / "results" / f"{name}.json"
        if name == "base" and not path.exists():
            continue
        try:
            runs[name] = json.loads(path.read_text(encoding="utf-8"))
            if runs[name]["experiment"] != name or not runs[name]["network"]:
                raise ValueError
        except (OSError, ValueError, LookupError, TypeError):
            raise UserError(f"{path} is missing or is not what {script} writes: run {script}, with the same --out if "
                            "you gave one") from None
    return runs


def table(runs: dict[str, dict]) -> str:
    """Items 3 to 5 as a Markdown table."""
    lines = ["| model | digits | training accuracy | test accuracy | training time |", "|---|---|---|---|---|"]
    for name, result in runs.items():
        lines.append(f"| {LABELS[name]} | {spell_digits(result['settings']['digits'])} | "
                     f"{100 * result['train_accuracy']:.3f} % | {100 * result['test_accuracy']:.2f} % | "
                     f"{result['training_seconds']:.1f} s |")
    return "\n".join(lines)


def spell_settings(settings: dict) -> str:
    """Every setting of a training."""
    words = {**settings, "digits": spell_digits(settings["digits"]), "per_digit": settings["per_digit"] or "all"}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in words.items() if name != "checkpoint")


def find_differences(runs: dict[str, dict]) -> list[str]:
    """What differs between the fine-tuned and the fresh model apart from transfer, a phrase for each thing."""
    finetune, fresh = ({**result["settings"], "per_digit": result["settings"]["per_digit"] or "all",
                        **result["environment"]} for result in (runs["finetune"], runs["fresh"]))
    phrases = [f"{key.replace('_', ' ')} (fine-tuned {finetune[key]}, fresh {fresh[key]})"
               for key in finetune if key in fresh and finetune[key] != fresh[key]]
    for line in difflib.ndiff(*(runs[name]["network"].splitlines() for name in ("finetune", "fresh"))):
        if line[0] in "-+":
            phrases.append(f"network (only {'fine-tuned' if line[0] == '-' else 'fresh'}: {line[1:].strip()})")
    if "base" in runs and runs["finetune"]["base"]["checkpoint"] != runs["base"]["checkpoint"]:
        phrases.append("base (the fine-tuned model did not start from that of base.json)")
    return phrases


def main():
    args = cli.parser(__doc__).parse_args()
    runs = read_results(args.out)
    finetune, fresh = runs["finetune"], runs["fresh"]
    if finetune["settings"]["digits"] != fresh["settings"]["digits"]:
        raise UserError("the fine-tuned and the fresh model have different digits: run finetune.py and train_fresh.py "
                        "with the same --digits")
    print(table(runs))
    if "base" not in runs:
        print(f"base of the fine-tuned model: {spell_settings(finetune['base'])}")
    for name, result in runs.items():
        print(f"{LABELS[name]}: {spell_settings(result['settings'])}; {result['test_errors']} errors in "
              f"{result['images']['test']:,} test images")
    ratio, features = (round(100 * seconds / fresh["training_seconds"])
                       for seconds in (finetune["training_seconds"], finetune["curve"][0]["seconds"]))
    print(f"training time: fine-tuning takes {ratio} % of the fresh model's")
    if finetune["settings"]["frozen"]:
        print(f"{ratio - features} % are its steps and {features} % the frozen blocks' features, computed once")
    differences = find_differences(runs)
    for difference in differences:
        print(f"difference: {difference}")
    save(args.out / "plots" / "comparison.png", to_png(comparison_figure, finetune, fresh, differences))
    save(args.out / "plots" / "loss_curves.png", to_png(loss_figure, runs))
    print(f"saved plots/comparison.png and plots/loss_curves.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
