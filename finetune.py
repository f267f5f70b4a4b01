"""Item 4: fine-tune the base model on the digits 7-9, in three parts.

    python finetune.py              # needs checkpoints/base.pt from train_base.py

Initial blocks have the base model's values, frozen; intermediate blocks start from them and are trained further;
final blocks start as those of the fresh model, as if training had just begun, and are trained.
Saves results/finetune.json, plots/finetune_loss.png and checkpoints/finetune.pt.
"""

from pathlib import Path

from torch import nn

import cli
import results
from data import Split, UserError, load_task
from model import FRESH_SEED, build_model, count_parameters, divide
from training import EVALUATION_BATCH, extract_features, fit, now

FROZEN_BLOCKS, REINIT_BLOCKS = 1, 2  # conv1; fc1 and fc2


def fine_tune(base: nn.Sequential, train: Split, validation: Split, *, frozen: int = FROZEN_BLOCKS,
              reinit: int = REINIT_BLOCKS, seed: int = 0, **options) -> tuple[nn.Sequential, list[dict]]:
    """Train the fresh model of `seed` with the base's values in all but its last `reinit` blocks.

    Returns that model and its curve, as `fit` does; `base` stays as it is. The curve's seconds begin with those of the
    training images' features; the validation images' serve evaluation alone and are not counted.
    `seed` draws the fresh model (it seeds PyTorch's global generator) and orders the images. `options` go to `fit`.
    Raises UserError as `divide` and `fit` do, and where `base` is another network than `build_model`'s.
    """
    device = train.labels.device
    model = build_model(FRESH_SEED + seed).to(device)
    if str(base) != str(model):
        raise UserError("the base model is another network than that of build_model")
    base_initial, base_intermediate, _ = divide(base, frozen, reinit)
    initial, intermediate, final = divide(model, frozen, reinit)

    # (a) Initial blocks: the base's values, frozen. Nothing in them can move: they are not in `trained` below, and in
    # evaluation mode BatchNorm keeps its statistics.
    initial.load_state_dict(base_initial.state_dict())
    initial.eval().requires_grad_(False)
    # (b) Intermediate blocks: the base's values, trained further.
    intermediate.load_state_dict(base_intermediate.state_dict())
    # (c) Final blocks: those of the fresh model, as if training had just begun. There is nothing to do.
    trained = nn.Sequential(*intermediate, *final)

    # Frozen blocks and the same images in every epoch: the initial part's output never changes, so it is computed once.
    extract_features(initial, train.images[:EVALUATION_BATCH])  # warm-up, not timed, as in `fit`
    start = now(device)
    train = Split(extract_features(initial, train.images), train.labels)
    seconds = now(device) - start
    validation = Split(extract_features(initial, validation.images), validation.labels)
    curve = fit(trained, train, validation, seed=seed, seconds=seconds, **options)
    return model.eval(), curve


def main():
    flags = cli.training_parser(__doc__, digits="7-9")
    flags.add_argument("--base", type=Path, metavar="FILE",
                       help="the base model's checkpoint (default: checkpoints/base.pt in --out)")
    flags.add_argument("--frozen", type=cli.whole(0), default=FROZEN_BLOCKS, metavar="N",
                       help="how many of the first blocks to freeze (default: %(default)s)")
    flags.add_argument("--reinit", type=cli.whole(0), default=REINIT_BLOCKS, metavar="N",
                       help="how many of the last blocks to reinitialise (default: %(default)s)")
    args = cli.parse(flags)
    path = args.base or args.out / "checkpoints" / "base.pt"
    base, origin = results.load_checkpoint(path)
    if overlap := sorted(set(origin["digits"]) & set(args.digits)):
        raise UserError(f"the base model in {path} was trained on {', '.join(map(str, overlap))} already: give other "
                        "--digits")
    parts = divide(base, args.frozen, args.reinit)
    for name, part in zip(("frozen", "trained further", "reinitialised"), parts):
        blocks = [f"{block} ({count_parameters(module):,} parameters)" for block, module in part.named_children()]
        print(f"{name}: {', '.join(blocks) or 'nothing'}")
    task = load_task(args.data_dir, args.digits, args.device, per_digit=args.per_digit, seed=args.seed)
    model, curve = fine_tune(base, task.train, task.validation, frozen=args.frozen, reinit=args.reinit,
                             **cli.training_options(args))
    results.finish_run("finetune", args, task, model, curve, origin)


if __name__ == "__main__":
    cli.run(main)
