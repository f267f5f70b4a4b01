"""Items 4 and 5 side by side: the fine-tuned and the fresh model.

    python compare.py               # after the three scripts

Prints the table of the three models and draws plots/comparison.png, plots/loss_curves.png and, from the checkpoints,
plots/errors.png. In README.md and report.md of the output folder the table between the two comment lines is replaced.
"""

import re
from pathlib import Path

import torch

import cli
from data import UserError, load_task
from plotting import LABELS, comparison_figure, errors_figure, loss_curves_figure, spell_digits, to_png
from results import SCRIPTS, load_checkpoint, read_results, save

TABLE = re.compile(r"(<!-- table[^\n]*-->\n).*?(<!-- end of table -->)", re.DOTALL)


def table(results: dict[str, dict]) -> str:
    """Items 3 to 5 as a Markdown table."""
    lines = ["| model | digits | training accuracy | test accuracy | test errors | training time |",
             "|---|---|---|---|---|---|"]
    for name, result in results.items():
        lines.append(f"| {LABELS[name]} | {spell_digits(result['digits'])} | {100 * result['train_accuracy']:.2f} % | "
                     f"{100 * result['test_accuracy']:.2f} % | {result['test_errors']} of {result['test_count']:,} | "
                     f"{result['training_seconds']:.1f} s |")
    return "\n".join(lines)


def predict(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The predicted digits: float32 [N, 1, 28, 28] -> int64 [N]."""
    with torch.inference_mode():
        return torch.cat([model.eval()(batch).argmax(1) for batch in images.split(256)])


def refresh_table(document: Path, text: str) -> None:
    """Replace the table between the two comment lines of a Markdown document, and nothing else."""
    if document.exists():
        before = document.read_text(encoding="utf-8")
        after = TABLE.sub(lambda match: f"{match[1]}\n{text}\n\n{match[2]}", before)
        if after != before:
            save(document, after.encode())
            print(f"refreshed the table in {document}")


def main():
    args = cli.parse(cli.parser(__doc__))
    results = read_results(args.out)
    finetune, fresh = results["finetune"], results["fresh"]
    if finetune["digits"] != fresh["digits"]:
        raise UserError(f"the fine-tuned model is on the digits {spell_digits(finetune['digits'])}, the fresh one on "
                        f"{spell_digits(fresh['digits'])}: run both scripts with the same --digits")
    task = load_task(args.data_dir, tuple(fresh["digits"]))
    predictions = {name: predict(load_checkpoint(args.out / "checkpoints" / f"{name}.pt", f"run {SCRIPTS[name]}")[0],
                                   task.test.images) for name in ("finetune", "fresh")}
    for name, figure in {"comparison": comparison_figure(finetune, fresh), "loss_curves": loss_curves_figure(results),
                         "errors": errors_figure(task, predictions)}.items():
        save(args.out / "plots" / f"{name}.png", to_png(figure))
    print(table(results))
    for document in ("README.md", "report.md"):
        refresh_table(args.out / document, table(results))


if __name__ == "__main__":
    cli.run(main)
