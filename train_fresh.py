"""Item 5: train a fresh CNN, of the same architecture as the base model, on the digits 7-9.

    python train_fresh.py

Saves results/fresh.json, plots/fresh_loss.png and checkpoints/fresh.pt. The fine-tuned model is compared with it.
"""

import cli
import results
from data import load_task
from model import FRESH_SEED, build_model
from training import fit


def main():
    args = cli.parse(cli.training_parser(__doc__, digits="7-9"))
    task = load_task(args.data_dir, args.digits, args.device, per_digit=args.per_digit, seed=args.seed)
    model = build_model(FRESH_SEED + args.seed).to(args.device)
    curve = fit(model, task.train, task.validation, **cli.training_options(args))
    results.finish_run("fresh", args, task, model, curve)


if __name__ == "__main__":
    cli.run(main)
