"""Which part of the base the gain comes from, and whether it is what the base has learnt."""

from experiments.gain import decimals
from experiments.intervals import table
from experiments.runs import CUT, FEW, Study, block_names, setting, with_seeds
from finetune import FROZEN_BLOCKS


def plan(seeds: range, new_digits: list, study: Study) -> list[dict]:
    """The runs of this file's questions."""
    controls = [setting("shuffled_base"), *(setting(model, per_digit=FEW) for model in ("shuffled", "untrained"))]
    cuts = [setting("finetune", per_digit=count, cut=cut) for count in (None, FEW) for cut in all_cuts()]
    return with_seeds(controls + cuts, seeds)


def all_cuts() -> list[tuple[int, int]]:
    """How many blocks are frozen and how many reinitialised: every cut but the fresh model's."""
    blocks = len(block_names())
    cuts = [(frozen, reinit) for frozen in range(blocks) for reinit in range(blocks + 1 - frozen)]
    return [cut for cut in cuts if cut != (0, blocks)]


def sources(study: Study, benchmark: dict | None) -> list[str]:
    """Which of the base's blocks does the gain with few labels come from?

    The initial blocks first, frozen, and all others as in the fresh model; then the intermediate ones on top of these.
    Test accuracy, in percentage points. The runs are among those of every cut, below.
    """
    blocks = block_names()
    fresh, finetune = (setting(model, per_digit=FEW) for model in ("fresh", "finetune"))
    initial = setting("finetune", per_digit=FEW, cut=(FROZEN_BLOCKS, len(blocks) - FROZEN_BLOCKS))
    found = study.compare(initial, fresh), study.compare(finetune, initial)
    names = " and ".join(blocks[:FROZEN_BLOCKS]), f"{' and '.join(blocks[FROZEN_BLOCKS:-CUT[1]])}, on top of it"
    return table(("labels per digit", "from the base", "gain", "seeds"),
                 [(FEW, name, each.gain.write_points(decimals(FEW)), each.seeds) for name, each in zip(names, found)])


def control(study: Study, benchmark: dict | None) -> list[str]:
    """Is it what the base has learnt?

    Two controls, each fine-tuned as the true base is, with few labels, at the default cut. A base trained on the same
    images of the old digits, but with their labels permuted: it has seen the same images, and cannot learn a digit from
    them. And the base as it was before its training. Test accuracy, in percentage points.
    """
    fresh, finetune = (setting(model, per_digit=FEW) for model in ("fresh", "finetune"))
    rows, base = [], setting("shuffled_base")
    for name, model in (("with permuted labels", "shuffled"), ("untrained", "untrained")):
        found = [study.compare(first, second) for first, second in (
            (setting(model, per_digit=FEW), fresh), (finetune, setting(model, per_digit=FEW)))]
        rows.append((FEW, name, *(each.gain.write_points(decimals(FEW)) for each in found), found[0].seeds))
    seeds = study.seeds(base)
    learnt, right = (100 * study.accuracy(split, base, seeds) for split in ("train", "test"))
    return [*table(("labels per digit", "base", "this minus fresh", "trained base minus this", "seeds"), rows), "",
            f"The base with permuted labels is right on {learnt.mean():.1f} % of its own, permuted, training labels, "
            f"and on {right.mean():.1f} % of the test images of the old digits, from {right.min():.1f} % to "
            f"{right.max():.1f} % by seed ({len(seeds)} seeds)."]


def cuts(study: Study, benchmark: dict | None) -> list[str]:
    """Where should the network be cut?

    The gain over the fresh model, in percentage points, for every number of frozen and reinitialised blocks.
    """
    blocks, rows = block_names(), []
    for frozen, reinit in all_cuts():
        found = {count: study.compare(setting("finetune", per_digit=count, cut=(frozen, reinit)),
                                      setting("fresh", per_digit=count)) for count in (None, FEW)}
        names = (", ".join(part) or "nothing" for part in (blocks[:frozen], blocks[len(blocks) - reinit:]))
        rows.append((*names, *(each.gain.write_points(decimals(count)) for count, each in found.items()),
                     found[None].seeds))
    return table(("frozen", "reinitialised", "gain, all labels", f"gain, {FEW} labels per digit", "seeds"), rows)


QUESTIONS = (sources, control, cuts)
