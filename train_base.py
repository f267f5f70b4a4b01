"""Item 3: train the base model, a CNN on the digits 0-6.

    python train_base.py

Saves results/base.json, plots/base_loss.png and checkpoints/base.pt, which finetune.py starts from.
"""

import cli
import results
from data import load_task
from model import build_model
from training import fit


def main():
    args = cli.parse(cli.training_parser(__doc__, digits="0-6"))
    task = load_task(args.data_dir, args.digits, args.device, per_digit=args.per_digit, seed=args.seed)
    model = build_model(args.seed).to(args.device)
    curve = fit(model, task.train, task.validation, **cli.training_options(args))
    results.finish_run("base", args, task, model, curve)


if __name__ == "__main__":
    cli.run(main)
