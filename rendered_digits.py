"""Writes a stand-in for MNIST, for machines that cannot download it.

    python rendered_digits.py       # 60,000 + 10,000 images into data/rendered

Digits in the fonts that come with matplotlib, bent, broken and speckled at random, in MNIST's own file format.
They look like MNIST and are about as hard, but are not MNIST: the folder's dataset.json says so, and with it
every result. The same seed gives the same bytes with the same release of matplotlib.
"""

from errors import Parser, UserError  # first: from here on Ctrl-C is one line, in the slow imports too

import functools
import json
import os
import shlex
import sys
import tempfile
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

NAME = "rendered digits"
LEAST, MOST = {"train": 100, "test": 10}, 1_000_000  # images
SIDE, HEIGHT = 28, 20  # of an image and of the digit in it, in pixels, as in MNIST
DETAIL = 2  # template pixels per image pixel: smooth edges, yet all templates stay in the processor's cache
CHUNK = 100  # images at a time, for the same reason

# Named one by one, and from matplotlib's own folder: the fonts of the system differ between machines.
FONTS = """
    DejaVuSans DejaVuSans-Oblique DejaVuSans-Bold DejaVuSans-BoldOblique
    DejaVuSerif DejaVuSerif-Italic DejaVuSerif-Bold DejaVuSerif-BoldItalic
    DejaVuSansMono DejaVuSansMono-Oblique DejaVuSansMono-Bold DejaVuSansMono-BoldOblique
    STIXGeneral STIXGeneralItalic STIXGeneralBol STIXGeneralBolIta
    cmr10 cmb10 cmss10 cmtt10
""".split()
STROKES = (0.4, 0.8, 1.2)  # thicker than in the font, in image pixels; without any, hairlines vanish


def write(data_dir: str | Path, train: int = 60_000, test: int = 10_000, seed: int = 0) -> None:
    """Write the four files and dataset.json below `data_dir`, over an earlier stand-in but over nothing else.

    Raises UserError for sizes and seeds out of range, and for a folder that cannot be written or holds other data.
    """
    for part, count in (("train", train), ("test", test)):
        if not LEAST[part] <= count <= MOST:
            raise UserError(f"--{part} {count}: choose a number of images from {LEAST[part]} to {MOST}")
    if seed < 0:
        raise UserError(f"--seed {seed}: choose 0 or a greater number")

    data_dir = Path(data_dir)
    note, raw = data_dir / "dataset.json", data_dir / "MNIST" / "raw"
    try:
        if (note.exists() or any(raw.glob("*-ubyte*"))) and not _is_own(note):
            raise UserError(f"{data_dir} holds data that this script did not write, and it stays as it is: "
                            "give an empty folder with --data-dir")
        raw.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".rendering-") as new:
            files = []
            for part, count, stream in zip(("train", "t10k"), (train, test), np.random.SeedSequence(seed).spawn(2)):
                images, labels = render(count, np.random.default_rng(stream))
                for file, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
                    header = np.array([0x0800 + array.ndim, *array.shape], ">u4")  # 0x08: of unsigned bytes
                    Path(new, file).write_bytes(header.tobytes() + array.tobytes())
                    files.append(file)
            content = {"name": NAME, "seed": seed, "train": train, "test": test}
            Path(new, note.name).write_text(json.dumps(content) + "\n", encoding="utf-8")

            os.replace(Path(new, note.name), note)  # first, so that half a set cannot look like MNIST
            for file in files:
                (raw / file).unlink(missing_ok=True)  # all before any: half a set cannot mix old and new either
            for file in files:
                os.replace(Path(new, file), raw / file)
    except OSError as error:
        raise UserError(f"cannot use the data folder {data_dir}: {error.strerror or error} ({error.filename}); "
                        "give another one with --data-dir") from error


def _is_own(note: Path) -> bool:
    try:
        return json.loads(note.read_text(encoding="utf-8"))["name"] == NAME
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return False


def render(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` images, uint8 [N, 28, 28], and their labels, uint8 [N]: all digits equally often, shuffled."""
    labels = rng.permutation(np.arange(count) % 10).astype(np.uint8)
    images = np.empty((count, SIDE, SIDE), np.uint8)
    for start in range(0, count, CHUNK):
        done = min(start + CHUNK, count)
        images[start:done] = _draw(labels[start:done], rng)
        if sys.stderr.isatty():
            print(f"\rrendering: {done:,} of {count:,}", end="\n" if done == count else "", file=sys.stderr, flush=True)
    return images, labels


def _draw(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An image of each label, uint8 [N, 28, 28], every one in a font, a bend and a noise of its own.

    In float64: sines differ in the last bit between processors, which then never reaches the rounded pixels.
    """
    def between(low, high):
        return rng.uniform(low, high, (len(labels), 1, 1))

    # Backwards: for each pixel of the image, the place x, y in the template where its ink comes from.
    down, right = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2  # [28, 28], from the middle
    down, right = down + between(-2, 2), right + between(-2, 2)  # [N, 28, 28]
    angle, width, height = np.radians(between(-15, 15)), between(0.7, 1.1), between(0.75, 1.1)
    x = (right * np.cos(angle) + down * np.sin(angle)) / width
    y = (down * np.cos(angle) - right * np.sin(angle)) / height
    x += between(-0.3, 0.3) * y  # slant
    x += between(0, 2) * np.sin(between(0.15, 0.4) * y + between(0, 2 * np.pi))  # an unsteady hand: slow waves,
    y += between(0, 2) * np.sin(between(0.15, 0.4) * x + between(0, 2 * np.pi))  # as fast ones leave nothing legible
    pixels = _sample(labels, rng.integers(len(FONTS) * len(STROKES), size=len(labels)), x, y)

    angle = between(0, np.pi)  # a pen that skips: in half of the images a gap, up to 3 pixels wide, across the digit
    distance = np.abs(right * np.cos(angle) + down * np.sin(angle) + between(-7, 7))
    pixels *= between(0.7, 1) * (distance - between(-1, 1)).clip(0, 1)
    pixels += between(0, 30) * rng.standard_normal(pixels.shape)
    return pixels.clip(0, 255).round().astype(np.uint8)


def _sample(labels: np.ndarray, styles: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The ink of templates [labels, styles] at x, y (image pixels from the middle), bilinear: float64 [N, 28, 28]."""
    ink = _templates()
    side = ink.shape[-1]
    x = (x * DETAIL + (side - 1) / 2).clip(0, side - 1.001)  # the border is empty, and so is all beyond it
    y = (y * DETAIL + (side - 1) / 2).clip(0, side - 1.001)
    left, top = x.astype(np.int32), y.astype(np.int32)
    x, y = x - left, y - top
    first = (labels.astype(np.int32) * ink.shape[1] + styles)[:, None, None] * side**2 + top * side + left
    ink = ink.ravel()
    upper = ink[first] * (1 - x) + ink[first + 1] * x
    lower = ink[first + side] * (1 - x) + ink[first + side + 1] * x
    return upper * (1 - y) + lower * y


@functools.cache
def _templates() -> np.ndarray:
    """Every digit in every font and stroke, ink from 0 to 255: uint8 [10, fonts * strokes, 56, 56]."""
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    fonts = [FontProperties(fname=folder / f"{font}.ttf") for font in FONTS]
    for font in fonts:
        if not Path(font.get_file()).is_file():
            raise UserError(f"{font.get_file()} is missing, which comes with matplotlib: reinstall matplotlib")
    return np.array([[_rasterise(TextPath((0, 0), str(digit), size=100, prop=font), stroke)
                      for font in fonts for stroke in STROKES] for digit in range(10)])


def _rasterise(outline: TextPath, stroke: float) -> np.ndarray:
    """One template, centred and anti-aliased: uint8 [56, 56]."""
    side, box = SIDE * DETAIL, outline.get_extents()
    place = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2)
    place.scale((HEIGHT - stroke) * DETAIL / max(box.width, box.height)).translate(side / 2, side / 2)
    renderer = RendererAgg(side, side, dpi=72)  # at 72 dpi a point, the unit of line widths, is a pixel
    pen = renderer.new_gc()
    pen.set_linewidth(stroke * DETAIL)
    pen.set_joinstyle("round")
    pen.set_snap(False)
    renderer.draw_path(pen, outline, place, rgbFace=(0, 0, 0))
    return np.array(renderer.buffer_rgba())[..., 3]  # the opacity: the page is transparent where no ink is


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--train", type=int, default=60_000, metavar="N", help="training images (%(default)s)")
    parser.add_argument("--test", type=int, default=10_000, metavar="N", help="test images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all that is random (%(default)s)")
    parser.add_argument("--data-dir", default="data/rendered", metavar="DIR", help="where to write (%(default)s)")
    flags = parser.parse_args()
    write(flags.data_dir, flags.train, flags.test, flags.seed)
    folder = shlex.quote(flags.data_dir)
    print(f"{folder}: {flags.train:,} training and {flags.test:,} test images of rendered digits, which are not MNIST. "
          f"Next: python train_base.py --data-dir {folder} --out {folder}")


if __name__ == "__main__":
    main()
