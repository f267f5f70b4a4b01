"""Items 4 and 5 side by side: the fine-tuned and the fresh model.

    python compare.py               # after finetune.py and train_fresh.py

Prints the table of the models, their settings, the ratio of their training times, and what is not alike in the two;
draws plots/comparison.png and plots/loss_curves.png.
"""

import json
from pathlib import Path

import cli
from data import UserError
from plotting import LABELS, comparison_figure, loss_figure, spell_digits, spell_settings, to_png
from results import save

SCRIPTS = {"base": "train_base.py", "finetune": "finetune.py", "fresh": "train_fresh.py"}


def read_results(out: Path) -> dict[str, dict]:
    """What the three scripts left in `out`, by experiment; the base's only where it is there.

    Raises UserError where one is not what its script writes, or one of the other two is missing.
    """
    results = {}
    for name, script in SCRIPTS.items():
        path = out / "results" / f"{name}.json"
        if name == "base" and not path.exists():
            continue
        try:
            results[name] = json.loads(path.read_text(encoding="utf-8"))
            if results[name]["experiment"] != name or not results[name]["curve"]:
                raise ValueError
        except (OSError, ValueError, LookupError, TypeError):
            raise UserError(f"{path} is missing or is not what {script} writes: run {script}, with the same --out if "
                            "you gave one") from None
    return results


def table(results: dict[str, dict]) -> str:
    """Items 3 to 5 as a Markdown table."""
    lines = ["| model | digits | seed | epochs | training accuracy | test accuracy | test errors | training time |",
             "|---|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        settings = result["settings"]
        lines.append(f"| {LABELS[name]} | {spell_digits(settings['digits'])} | {settings['seed']} | "
                     f"{settings['epochs']} | {100 * result['train_accuracy']:.2f} % | "
                     f"{100 * result['test_accuracy']:.2f} % | {result['test_errors']} of "
                     f"{result['images']['test']:,} | {result['training_seconds']:.1f} s |")
    return "\n".join(lines)


def not_alike(results: dict[str, dict]) -> list[str]:
    """What differs between the fine-tuned and the fresh model apart from transfer, a phrase for each thing."""
    finetune, fresh = ({**result["settings"], **result["environment"], "parameters": result["parameters"]}
                       for result in (results["finetune"], results["fresh"]))
    phrases = [f"{key.replace('_', ' ')} (fine-tuned {finetune[key]}, fresh {fresh[key]})"
               for key in finetune if key in fresh and finetune[key] != fresh[key]]
    if "base" in results and results["finetune"]["base"]["checkpoint"] != results["base"]["checkpoint"]:
        phrases.append("base (the fine-tuned model did not start from that of base.json)")
    return phrases


def main():
    args = cli.parse(cli.parser(__doc__), ("plots",))
    results = read_results(args.out)
    finetune, fresh = results["finetune"], results["fresh"]
    if finetune["settings"]["digits"] != fresh["settings"]["digits"]:
        raise UserError("the fine-tuned and the fresh model have different digits: run finetune.py and train_fresh.py "
                        "with the same --digits")
    differences = not_alike(results)
    save({args.out / "plots" / "comparison.png": to_png(comparison_figure(finetune, fresh, differences)),
          args.out / "plots" / "loss_curves.png": to_png(loss_figure(results))})
    print(table(results))
    for name, result in results.items():
        print(f"{LABELS[name]}: {spell_settings(result['settings'])}")
    ratio = finetune["training_seconds"] / fresh["training_seconds"]
    print(f"training time: fine-tuned takes {ratio:.2f} of fresh")
    if features := finetune["curve"][0]["seconds"] / fresh["training_seconds"]:
        print(f"that is {ratio - features:.2f} for its steps and {features:.2f} for the frozen blocks' features, "
              "computed once; finetune.py --recompute-frozen computes them in each step")
    for difference in differences:
        print(f"not alike: {difference}")
    print(f"saved plots/comparison.png and plots/loss_curves.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
