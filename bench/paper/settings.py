"""The settings of the measurements: the same code, other numbers.

`small` is what two idle cores without a GPU can do in some hours: subsets and few epochs of training. `full` has all of
the data, and needs a GPU. Overwriting lasts as long as in the paper with both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

PAPER_OVERWRITING_EPOCHS = (50, 150, 250, 350)  # table 3
FIRST_OVERWRITING_EPOCHS = (2, 6, 10, 14)  # of which the paper does not tell
THIEFS_FRACTION = 0.1  # D'_primary of the paper, and what its adversary tunes with
THIEFS_RATES = (1e-4, 3e-4, 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A primary task of the paper's table 2.

    Attributes:
        name: as the tables call it.
        sources: where its data may be, below the data directory, the first that is there; as `wm.datasets` spells them.
        arch: of the catalogue.
        arguments: of the network, beside those that follow from the data.
        examples: of the training set, stratified; None for all of it.
        epochs: of the plain training.
        tokens: to which texts are cut; None for the loader's own length.
        vectors: word vectors to begin with, frozen, below the data directory; None for pictures.
    """

    name: str
    sources: tuple[str, ...]
    arch: str = "resnet18"
    arguments: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    examples: int | None
    epochs: int
    tokens: int | None = None
    vectors: str | None = None

    def source(self, directory: Path) -> str | None:
        """Spell where the data are; None where there are none."""
        for source in self.sources:
            name, _, place = source.rpartition(":")
            if (directory / place).exists():
                return f"{name}:{directory / place}" if name else str(directory / place)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How much of it is done.

    Attributes:
        name: "small" or "full".
        seeds: of every row.
        tasks: in the order of the tables.
        pruned_share: of each layer's filters, before fine-pruning's tuning.
        spoil_steps: until the mark fails.
        independent: models that have nothing to do with the owner, for each seed.
        independent_examples, independent_epochs: how they are trained.
        siblings: honest users of one base, for each seed.
        universal_networks: fresh networks that a universal head is trained on.
        ablated: the task of the ablation.
    """

    name: str
    seeds: tuple[int, ...] = (1, 2, 3)
    tasks: tuple[Task, ...]
    pruned_share: float = 0.05
    spoil_steps: tuple[int, ...] = (10, 40, 160, 640)
    independent: int
    independent_examples: int | None
    independent_epochs: int
    siblings: int
    universal_networks: int
    ablated: str = "MNIST"

    def task(self, name: str) -> Task:
        """Find a task by its name."""
        return next(task for task in self.tasks if task.name == name)


_VECTORS = "glove/imdb_trained_100d.npz"
_SMALL_LSTM = MappingProxyType({"hidden": 32, "layers": 2})

SMALL_NET = "shufflenet_v2_x0_5"  # 0.35 million parameters
SMALL_TAPS = ("maxpool", "stage2", "stage3")  # behind the stem and two stages

SMALL = Setting(
    name="small",
    tasks=(
        Task(name="MNIST", sources=("small/mnist.npz", "mnist:MNIST"), examples=1_000, epochs=4),
        Task(
            name="Fashion-MNIST",
            sources=("small/fashion_mnist.npz", "fashion-mnist:FashionMNIST"),
            examples=1_000,
            epochs=4,
        ),
        Task(name="CIFAR-10", sources=("small/cifar10.npz", "cifar10:cifar10"), examples=1_000, epochs=4),
        Task(
            name="SST",
            sources=("sst:sst",),
            arch="bilstm",
            arguments=_SMALL_LSTM,
            examples=2_000,
            epochs=3,
            tokens=32,
            vectors=_VECTORS,
        ),
        Task(
            name="IMDb",
            sources=("imdb:imdb",),
            arch="bilstm",
            arguments=_SMALL_LSTM,
            examples=1_000,
            epochs=3,
            tokens=96,
            vectors=_VECTORS,
        ),
    ),
    independent=17,
    independent_examples=None,
    independent_epochs=10,
    siblings=3,
    universal_networks=20,
)


FULL = Setting(
    name="full",
    tasks=(
        Task(name="MNIST", sources=("mnist:MNIST",), examples=None, epochs=10),
        Task(name="Fashion-MNIST", sources=("fashion-mnist:FashionMNIST",), examples=None, epochs=20),
        Task(
            name="CIFAR-10",
            sources=("cifar10:cifar-10-batches-bin", "cifar10/cifar10_full.npz"),
            examples=None,
            epochs=60,
        ),
        Task(name="SST", sources=("sst-fine:sst",), arch="bilstm", examples=None, epochs=10, vectors=_VECTORS),
        Task(name="IMDb", sources=("imdb:imdb",), arch="bilstm", examples=None, epochs=10, vectors=_VECTORS),
    ),
    independent=50,
    independent_examples=None,
    independent_epochs=3,
    siblings=8,
    universal_networks=240,
)

SETTINGS = MappingProxyType({setting.name: setting for setting in (SMALL, FULL)})
