"""Items 4 and 5 of the report: fine-tuned against fresh, side by side.

    python compare.py               # after the three scripts

Reads results/{base,finetune,fresh}.json, prints the table of all three, draws plots/comparison.png and
plots/loss_curves.png and, from the checkpoints, plots/errors.png and plots/filters.png. The numbers in report.md and
README.md stand between markers, <!--=name-->value<!--/-->; they are refreshed from results/, and nothing outside the
markers is touched.
"""

import runs  # first, so that Ctrl-C during the slow imports is one line too

import json
import re
from pathlib import Path

import torch

from data import load_task, spell_digits
from errors import UserError
from plotting import comparison_figure, errors_figure, filters_figure, loss_curves_figure

EXPERIMENTS = {"base": "train_base.py", "finetune": "finetune.py", "fresh": "train_fresh.py"}
DOCUMENTS = ("README.md", "report.md")
MARKED = re.compile(r"(<!--=(\S+?)-->)(.*?)(<!--/-->)", re.DOTALL)


def read_results(out: str | Path) -> dict[str, dict]:
    """The results of the three scripts, by experiment. Raises UserError for those that are missing or unreadable."""
    results = {}
    for name, script in EXPERIMENTS.items():
        path = Path(out, "results", f"{name}.json")
        if not path.exists():
            raise UserError(f"no {path}: run {script} first")
        try:
            results[name] = json.loads(path.read_text(encoding="utf-8"))
            results[name]["curve"][-1]["validation_loss"], results[name]["test_accuracy"]
        except (ValueError, KeyError, TypeError, IndexError):
            raise UserError(f"{path} is not what {script} writes: run it again") from None
    if results["finetune"]["digits"] != results["fresh"]["digits"]:
        raise UserError(f"results/finetune.json is on digits {spell_digits(results['finetune']['digits'])}, "
                        f"results/fresh.json on {spell_digits(results['fresh']['digits'])}: run both with the same --digits")
    if len(names := {result["dataset"]["name"].split(" from a base")[0] for result in results.values()}) > 1:
        raise UserError(f"the results are of different data ({', '.join(sorted(names))}): run the three scripts on one")
    return results


def table(results: dict[str, dict]) -> str:
    """Items 3 to 5 as a Markdown table."""
    lines = ["| model | digits | training accuracy | test accuracy | test errors | training time |",
             "|---|---|---|---|---|---|"]
    for name, label in (("base", "base"), ("finetune", "fine-tuned"), ("fresh", "fresh")):
        result = results[name]
        lines.append(f"| {label} | {spell_digits(result['digits'])} | {percent(result['train_accuracy'])} | "
                     f"{percent(result['test_accuracy'])} | {result['test_errors']} of {result['test_count']:,} | "
                     f"{result['training_seconds']:.1f} s |")
    return "\n".join(lines)


def percent(fraction: float, digits: int = 2) -> str:
    return f"{100 * fraction:.{digits}f} %"


def draw_from_checkpoints(out: Path, data_dir: str, results: dict[str, dict]) -> dict[str, bytes]:
    """Figures that need the models themselves: wrong test images, first kernels. None without the checkpoints."""
    models = {}
    for name in EXPERIMENTS:
        path = out / "checkpoints" / f"{name}.pt"
        if not path.exists():
            print(f"no {path}: plots/errors.png and plots/filters.png are left as they are")
            return {}
        models[name], _ = runs.load_base(path, (), torch.device("cpu"))
    task = load_task(data_dir, tuple(results["fresh"]["digits"]))
    predictions = {}
    for name in ("finetune", "fresh"):
        with torch.inference_mode():
            predictions[name] = torch.cat([models[name].eval()(images).argmax(1) for images in task.test.images.split(256)])
    kernels = {name: model.conv1[0].weight.detach().squeeze(1) for name, model in models.items()}  # [16, 5, 5] each
    return {"plots/errors.png": runs.to_png(errors_figure(task, predictions)),
            "plots/filters.png": runs.to_png(filters_figure(kernels, results["fresh"]))}


def refresh(text: str, numbers: dict[str, str]) -> str:
    """`text` with the value between each pair of markers replaced by the number of that name, where there is one."""
    return MARKED.sub(lambda match: match[1] + numbers.get(match[2], match[3]) + match[4], text)


def read_evidence(out: str | Path, name: str) -> dict | None:
    """What study.py or benchmark.py wrote, if it is there, whole and on MNIST."""
    try:
        evidence = json.loads(Path(out, "results", f"{name}.json").read_text(encoding="utf-8"))
        return evidence if evidence["dataset"]["verified"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main():
    args = runs.start(runs.parser(__doc__))
    out = Path(args.out)
    results = read_results(out)
    verified = all(result["dataset"]["verified"] for result in results.values())
    name = results["finetune"]["dataset"]["name"]
    title = "" if verified else f"{name}, not MNIST: no result for MNIST follows from this.\n\n"
    text = title + table(results)
    runs.save(out, {"results/comparison.md": (text + "\n").encode(),
                    "plots/comparison.png": runs.to_png(comparison_figure(results["finetune"], results["fresh"])),
                    "plots/loss_curves.png": runs.to_png(loss_curves_figure(results))}
              | draw_from_checkpoints(out, args.data_dir, results))
    print(text)
    if verified and out.resolve() == Path.cwd():
        documents = {}
        known = numbers(results, read_evidence(out, "study"), read_evidence(out, "benchmark"))
        for document in DOCUMENTS:
            if (path := Path(document)).exists():
                documents[document] = refresh(path.read_text(encoding="utf-8"), known).encode()
        runs.save(out, documents)
        print(f"\nrefreshed the numbers in {' and '.join(documents)}")


if __name__ == "__main__":
    main()
