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


def numbers(results: dict[str, dict], study: dict | None, benchmark: dict | None) -> dict[str, str]:
    """Every number that report.md and README.md may ask for, as it is to be printed, by the name in its marker."""
    known = {"table": "\n\n" + table(results) + "\n\n"}
    for name, result in results.items():
        known |= {f"{name}.train": percent(result["train_accuracy"]), f"{name}.test": percent(result["test_accuracy"]),
                  f"{name}.errors": f"{result['test_errors']}", f"{name}.count": f"{result['test_count']:,}",
                  f"{name}.seconds": f"{result['training_seconds']:.1f}",
                  f"{name}.train_loss": f"{result['curve'][-1]['train_loss']:.4f}",
                  f"{name}.validation_loss": f"{result['curve'][-1]['validation_loss']:.4f}",
                  f"{name}.first_validation": percent(result["curve"][1]["validation_accuracy"]),
                  f"{name}.images": f"{result['dataset']['train']:,}",
                  f"{name}.validation_images": f"{result['dataset']['validation']:,}",
                  f"{name}.parameters": f"{result['model']['parameters']:,}",
                  f"{name}.trainable": f"{result['model']['trainable_parameters']:,}"}
    known["cpu"] = f"{results['base']['environment']['threads']} cores of an {results['base']['environment']['cpu']}"
    known["torch"] = results["base"]["environment"]["torch"].split("+")[0]
    if study:
        known |= study_numbers(study, {name: result["test_count"] for name, result in results.items()})
    if benchmark:
        known |= benchmark_numbers(benchmark)
    return known


def study_numbers(study: dict, test_counts: dict[str, int]) -> dict[str, str]:
    summary, seeds, known = study["summary"], study["summary"]["seeds"], {}
    for name in ("base", "finetune", "fresh"):
        accuracy = seeds[name]["test_accuracy"]
        known |= {f"study.{name}": percent(accuracy["mean"]), f"study.{name}.sd": percent(accuracy["sd"]),
                  f"study.{name}.errors": f"{(1 - accuracy['mean']) * test_counts[name]:.1f}",
                  f"study.{name}.seconds": f"{seeds[name]['training_seconds']['mean']:.2f}",
                  f"study.{name}.interval": between(accuracy, "{:.2f}")}
    known |= {"study.n": str(seeds["base"]["test_accuracy"]["n"]), "study.runs": str(len(study["runs"])),
              "study.steps": str(study["steps_with_few_labels"]),
              "study.time_ratio": f"{seeds['time_ratio']['mean']:.2f}",
              "study.time_ratio.interval": between(seeds["time_ratio"], "{:.2f}", 1),
              "study.old.before": percent(seeds["old_digits"]["before"]["mean"]),
              "study.old.after": percent(seeds["old_digits"]["after"]["mean"]),
              "study.difference.seconds": f"{seeds['difference']['training_seconds']['mean']:+.2f}",
              "study.difference.seconds.interval": between(seeds["difference"]["training_seconds"], "{:+.2f}", 1),
              **difference("study.difference", seeds["difference"]["test_accuracy"])}
    for row in summary["labels"]:
        key = f"labels.{row['per_digit'] or 'all'}"
        known |= {f"{key}.{name}": percent(row[name]["mean"], 1 if row["finetune"]["mean"] < 0.985 else 2)
                  for name in ("finetune", "fresh", "untrained")}
        known |= difference(key, row["finetune_minus_fresh"])
        known |= difference(f"{key}.untrained", row["finetune_minus_untrained"])
    for row in summary["cuts"]:
        key = f"cuts.{row['per_digit'] or 'all'}.{row['frozen']}.{row['reinit']}"
        known |= {key: percent(row["mean"], 1 if row["per_digit"] else 2), f"{key}.seconds": f"{row['seconds']:.1f}"}
    lines = ["| learning rate | base | fine-tuned | fresh | mean |", "|---|---|---|---|---|"]
    for row in summary["rates"]:
        accuracies = [row[name] for name in ("base", "finetune", "fresh")]
        lines.append(f"| {row['learning_rate']} | "
                     + " | ".join(percent(value) for value in (*accuracies, sum(accuracies) / 3)) + " |")
    return known | {"rates": "\n\n" + "\n".join(lines) + "\n\n"}


def benchmark_numbers(benchmark: dict) -> dict[str, str]:
    throughput, ways, flops = benchmark["throughput"], benchmark["ways"], benchmark["flops_per_image"]
    explanation, one_epoch = benchmark["explanation"], benchmark["time_to_accuracy"]["epochs_1"]
    known = {
        "bench.rounds": str(benchmark["rounds"]),
        "bench.images_per_second": f"{throughput['images_per_second']['median']:,.0f}",
        "bench.usual": f"{throughput['ratio_to_best_usual_recipe']['median']:.1f}",
        "bench.gflops": f"{throughput['gflops_per_second']['median']:.0f}",
        "bench.matrix": f"{throughput['matrix_product_gflops_per_second']['median']:.0f}",
        "bench.share": percent(throughput["share_of_matrix_product"]["median"], 0),
        "bench.deviation": percent(benchmark["scaling"]["straight_line"]["largest_relative_deviation"], 0),
    }
    for way in ("fresh", "recompute", "once"):
        known |= {f"bench.{way}.seconds": f"{ways[f'{way}_training_seconds']['median']:.2f}",
                  f"bench.{way}.mflop": f"{flops[way]['forward_and_backward'] / 1e6:.1f}",
                  f"bench.{way}.forward": f"{flops[way]['forward'] / 1e6:.2f}",
                  f"bench.{way}.predicted": f"{explanation['ratio_to_fresh'][way]['predicted']:.2f}"}
    for way, other in (("once", "fresh"), ("recompute", "fresh"), ("once", "recompute")):
        medians = [ways[f"{name}_training_seconds"]["median"] for name in (way, other)]
        rounds = ways[f"{way}_to_{other}"]
        known |= {f"bench.{way}_to_{other}": f"{medians[0] / medians[1]:.2f}",
                  f"bench.{way}_to_{other}.range": f"{rounds['lowest']:.2f} to {rounds['highest']:.2f}"}
    known["bench.once_less_recompute"] = percent(1 - float(known["bench.once_to_recompute"]), 0)
    for group, milliseconds in explanation["milliseconds_per_step"].items():
        known |= {f"bench.{group.replace(' ', '_')}.{way}": f"{value:.2f}" for way, value in milliseconds.items()}
    for name, result in one_epoch.items():
        known |= {f"bench.one_epoch.{name}.test": percent(result["test_accuracy"]["median"]),
                  f"bench.one_epoch.{name}.seconds": f"{result['training_seconds']['median']:.2f}"}
    return known


def difference(key: str, value: dict) -> dict[str, str]:
    """A paired difference of accuracies in percentage points, its interval and its p."""
    p = "< 0.001" if value["p"] < 0.001 else f"= {value['p']:.3f}" if value["p"] < 0.1 else f"= {value['p']:.2f}"
    return {f"{key}.difference": f"{100 * value['mean']:+.2f}", f"{key}.interval": between(value, "{:+.2f}"), f"{key}.p": p}


def between(value: dict, form: str, scale: float = 100) -> str:
    return f"{form.format(scale * value['low'])} to {form.format(scale * value['high'])}"


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
