"""Item 4: fine-tune the base model on the digits 7-9, in three parts.

    python finetune.py              # needs train_base.py's checkpoint

Initial blocks keep the base model's weights, frozen; intermediate blocks start from them and are trained on; final
blocks are initialised anew and trained. Writes results/finetune.json, plots/finetune_loss.png and
checkpoints/finetune.pt.

Last result: 99.77 % test accuracy, about 1.5 s of training on 2 cores.
"""

import runs  # first, so that Ctrl-C during the slow imports is one line too

import time
from pathlib import Path

from data import load_task
from model import divide
from training import fine_tune


def main():
    began = time.perf_counter()
    flags = runs.parser(__doc__, digits="7-9")
    flags.add_argument("--base", type=Path, metavar="FILE",
                       help="the base model's checkpoint (default: checkpoints/base.pt below --out)")
    flags.add_argument("--frozen", type=runs.whole(0), default=1, metavar="N",
                       help="blocks, from the first, that stay as they are (default: %(default)s)")
    flags.add_argument("--reinit", type=runs.whole(0), default=2, metavar="N",
                       help="blocks, up to the last, that are initialised anew (default: %(default)s)")
    flags.add_argument("--recompute-frozen", action="store_true",
                       help="run the frozen blocks in every step, as is usual, not once: same result, more time")
    args = runs.start(flags)
    model, base = runs.load_base(args.base or Path(args.out, "checkpoints", "base.pt"), args.digits, args.device)
    divide(model, args.frozen, args.reinit)  # a cut that cannot be is said before the data are loaded
    task = load_task(args.data_dir, args.digits, args.device)
    if base["dataset"] != task.name or not base["verified"]:
        name = task.name if base["dataset"] == task.name else f"{task.name} from a base of {base['dataset']}"
        task = task._replace(name=name, verified=False)
    progress = runs.Progress(f"fine-tuned model ({args.frozen} blocks frozen, {args.reinit} initialised anew)", task)
    curve, feature_seconds = fine_tune(
        model, task.train, task.validation, frozen=args.frozen, reinit=args.reinit,
        recompute_frozen=args.recompute_frozen, **runs.hyperparameters(args), **progress.callbacks)
    runs.finish("finetune", args, task, model, curve, began, feature_seconds, args.frozen, args.reinit)


if __name__ == "__main__":
    main()
