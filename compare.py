"""Items 4 and 5 side by side: the fine-tuned and the fresh model.

    python compare.py               # after the three scripts

Prints the table of the three models and, below it, what is not alike in the two; draws plots/comparison.png and
plots/loss_curves.png.
"""

import cli
from data import UserError
from plotting import LABELS, comparison_figure, loss_curves_figure, spell_cut, spell_digits, to_png
from results import read_results, save


def table(results: dict[str, dict]) -> str:
    """Items 3 to 5 as a Markdown table."""
    lines = ["| model | digits | training accuracy | test accuracy | test errors | training time |",
             "|---|---|---|---|---|---|"]
    for name, result in results.items():
        lines.append(f"| {LABELS[name]} | {spell_digits(result['digits'])} | {100 * result['train_accuracy']:.2f} % | "
                     f"{100 * result['test_accuracy']:.2f} % | {result['test_errors']} of {result['test_count']:,} | "
                     f"{result['training_seconds']:.1f} s |")
    return "\n".join(lines)


def not_alike(results: dict[str, dict]) -> list[str]:
    """What differs between the fine-tuned and the fresh model apart from transfer, a phrase for each thing."""
    finetune, fresh = ({"seed": result["seed"], "parameters": result["model"]["parameters"],
                        **result["hyperparameters"], **result["environment"]}
                       for result in (results["finetune"], results["fresh"]))
    phrases = [f"{key.replace('_', ' ')} (fine-tuned {finetune[key]}, fresh {fresh[key]})"
               for key in finetune if key in fresh and finetune[key] != fresh[key]]
    if results["finetune"].get("base", {}).get("checkpoint") != results["base"]["checkpoint"]:
        phrases.append("base (the fine-tuned model did not start from that of base.json)")
    return phrases


def main():
    args = cli.parse(cli.parser(__doc__, loads_mnist=False))
    results = read_results(args.out)
    finetune, fresh = results["finetune"], results["fresh"]
    if finetune["digits"] != fresh["digits"]:
        raise UserError(f"the fine-tuned model is on the digits {spell_digits(finetune['digits'])}, the fresh one on "
                        f"{spell_digits(fresh['digits'])}: run both scripts with the same --digits")
    differences = not_alike(results)
    save({args.out / "plots" / "comparison.png": to_png(comparison_figure(finetune, fresh, differences)),
          args.out / "plots" / "loss_curves.png": to_png(loss_curves_figure(results))})
    print(f"{table(results)}\nfine-tuned: {spell_cut(finetune)}")
    for difference in differences:
        print(f"not alike: {difference}")
    print(f"saved plots/comparison.png and plots/loss_curves.png in {args.out.resolve()}")


if __name__ == "__main__":
    cli.run(main)
