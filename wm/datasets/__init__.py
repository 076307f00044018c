"""Real data sets, read from the directories in which people have them; nothing is downloaded, nothing unpickled.

mnist:DIR, fashion-mnist:DIR   the four idx files, plain or gzipped
cifar10:DIR                    the binary version
imdb:DIR                       the folders of aclImdb, or one CSV file
sst:DIR, sst-fine:DIR          train, dev and test as TSV files
pennfudan:DIR                  pictures of pedestrians and their masks
voc:DIR                        pictures and masks of twenty classes
shapes:COUNT                   as many generated pictures of shapes and their masks
DIR                            pictures, train/<class>/ and test/<class>/
FILE.npz                       `wm.data.load_npz`
digits                         `wm.data.digits`, which comes with scikit-learn
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from wm import data
from wm.data import Dataset
from wm.datasets import masks, pictures, texts
from wm.datasets.shapes import COUNT_LEAST, COUNT_MAX, shapes
from wm.datasets.word_list import WordList
from wm.errors import WatermarkError

DIGITS, SHAPES = "digits", "shapes"
_PICTURES: dict[str, Callable[[Path], Dataset]] = {
    "mnist": partial(pictures.mnist, name="mnist"),
    "fashion-mnist": partial(pictures.mnist, name="fashion-mnist"),
    "cifar10": pictures.cifar10,
}
_TEXTS: dict[str, Callable[[Path, WordList | None], Dataset]] = {
    "imdb": texts.imdb,
    "sst": partial(texts.sst, kind="binary"),
    "sst-fine": partial(texts.sst, kind="fine"),
}
_MASKS: dict[str, Callable[..., Dataset]] = {"pennfudan": masks.penn_fudan, "voc": masks.voc}
NAMES = (*_PICTURES, *_TEXTS, *_MASKS)
SHAPES_SIDE = 64  # pixels
_COUNT_DIGITS_MAX = 9  # more than can be drawn


HINT = (
    f"no such data set; give {DIGITS}, {SHAPES}:COUNT ({COUNT_LEAST} to {COUNT_MAX} pictures), "
    f"{', '.join(f'{name}:DIRECTORY' for name in NAMES)}, a directory of pictures, or an existing .npz file"
)


def is_known(source: str) -> bool:
    """Tell whether `load` would find something there, whatever it is worth."""
    name, _, place = source.partition(":")
    if name == SHAPES:
        return _count(place) is not None
    if name in NAMES:
        return bool(place) and (Path(place).is_dir() or (name == "imdb" and Path(place).is_file()))
    path = Path(source)
    return bool(source) and (source == DIGITS or path.is_dir() or (path.suffix == ".npz" and path.is_file()))


def has_masks(source: str) -> bool:
    """Tell by its name whether a data set is of pictures with objects, which have a size that can be chosen."""
    return source.partition(":")[0] in {SHAPES, *_MASKS}


def load(source: str, *, words: WordList | None = None, side: int | None = None) -> Dataset:
    """Load a data set.

    Args:
        source: as the list above spells it.
        words: of texts, the word list to use; None makes one of the training set.
        side: of pictures with masks, the pixels that they are drawn with or brought to; None for the usual.

    Returns:
        The data set; its split is always the same.

    Raises:
        WatermarkError: `malformed` or `too_large`: no such source, or its files are not what they should be, naming
            the first.
        OSError: a file cannot be read.
    """
    if not is_known(source):
        raise WatermarkError("malformed", HINT)
    name, _, place = source.partition(":")
    if source == DIGITS:
        return data.digits()
    if name in _PICTURES:
        return _PICTURES[name](Path(place))
    if name == SHAPES:
        return shapes(_count(place) or 0, side=side or SHAPES_SIDE)
    if name in _MASKS:
        return _MASKS[name](Path(place), side=side or masks.SIDE)
    if name in _TEXTS:
        return _TEXTS[name](Path(place), words)
    path = Path(source)
    return pictures.folder(path) if path.is_dir() else data.load_npz(path)


def _count(digits: str) -> int | None:
    """The number of pictures to draw; None for what is no number."""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _COUNT_DIGITS_MAX else None
