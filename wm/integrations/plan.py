"""What an owner decides before a trainer runs: which network is marked, with what, and where the result is written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch import nn

from wm.architectures import Architecture, OwnArchitecture
from wm.data import Examples
from wm.savepoint import fingerprint
from wm.schemes.mtlsign import EmbedSettings, Mark
from wm.schemes.mtlsign.preparation import check_precision, check_tuning, described
from wm.schemes.mtlsign.shadows import TuningLoss
from wm.triggers import Spec
from wm.triggers.prg import KEY_BYTES

_SHOWN_MODULES_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MarkPlan:
    """How a trainer's model is to be marked.

    Attributes:
        watermark_key: 32 bytes, as `client.keystore.load_watermark_key` reads it.
        directory: where the marked weights and the evidence are written at the end; beside the `watermark_key.json` of
            `wmreg keygen --watermark-key` they are a bundle.
        network: which part of the trainer's model is marked and written: its module path, a function that returns it,
            or None for the model itself.
        input_spec, taps, architecture, tuning, negatives, seed: as of `wm.Mark`; the negatives are moved to the
            network's device.
        settings: the recipe, by default the measured one, see `recipe`. The mark takes the last `steps` optimiser steps
            of the training; `head_lr` is the rate of the head, which falls along a cosine, while the backbone's rate is
            the trainer's.
        base: the public weights that the training began with, safetensors: declared, and copied beside.

    Raises:
        ValueError: the key's length.
    """

    watermark_key: bytes = field(repr=False)
    directory: Path | str
    input_spec: Spec | tuple[int, int, int]
    network: str | Callable[[nn.Module], nn.Module] | None = None
    taps: Sequence[str] | None = None
    architecture: Architecture | None = None
    settings: EmbedSettings | None = None
    tuning: Examples | TuningLoss | None = field(default=None, repr=False)
    negatives: Sequence[nn.Module] = field(default=(), repr=False)
    base: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.watermark_key) != KEY_BYTES:
            raise ValueError(f"a watermark key has {KEY_BYTES} bytes, not {len(self.watermark_key)}")

    @property
    def recipe(self) -> EmbedSettings:
        """The settings; where there are none, the measured ones with or without negatives, as of `wm.Mark`."""
        return self.settings or EmbedSettings.usual(self.tuning, has_base=bool(self.negatives))

    def network_of(self, model: nn.Module) -> nn.Module:
        """Return the network that is marked, without what `torch.compile` put around it.

        Args:
            model: the trainer's.

        Raises:
            ValueError: the model has no such module, or the function returned something else.
        """
        network: object = model
        if isinstance(self.network, str):
            try:
                network = model.get_submodule(self.network)
            except AttributeError as error:
                message = f"{type(model).__name__} has no module {self.network!r}, the plan's network; it has: "
                raise ValueError(message + _modules_of(model)) from error
        elif self.network is not None:
            network = self.network(model)
        if not isinstance(network, nn.Module):
            raise ValueError(f"the plan's network is to return a module, not a {type(network).__name__}")  # noqa: TRY004
        inner = getattr(network, "_orig_mod", network)
        return inner if isinstance(inner, nn.Module) else network

    def check(self, network: nn.Module) -> None:
        """Check what can be known before the training; a mistake would otherwise show after hours of it.

        Args:
            network: that is to be marked, as it is now.

        Raises:
            WatermarkError, ValueError: as of `wm.Mark`.
            OSError: the directory cannot be made, or the base is not there.
        """
        check_tuning(self.recipe, self.tuning, self.negatives)
        check_precision(network)
        described(
            network,
            self.taps,
            self.input_spec,
            self.architecture or OwnArchitecture(),
            self.recipe,
            has_negatives=bool(self.negatives),
        )
        Path(self.directory).mkdir(parents=True, exist_ok=True)
        if self.base is not None and not self.base.is_file():
            raise FileNotFoundError(f"{self.base}: no such file; it is the plan's base")

    def mark(self, network: nn.Module) -> Mark:
        """Make the mark of the network as it is now; errors as of `wm.Mark`."""
        device = next(network.parameters()).device
        return Mark(
            network,
            self.watermark_key,
            taps=self.taps,
            input_spec=self.input_spec,
            architecture=self.architecture,
            settings=self.recipe,
            tuning=self.tuning,
            negatives=[negative.to(device) for negative in self.negatives],
            seed=self.seed,
        )

    def conditions(self) -> dict[str, str]:
        """Return what must be the same for a marking to go on, by name, without secrets."""
        architecture = self.architecture or OwnArchitecture()
        return {
            "kind": "marking in a trainer",
            "watermark key": fingerprint(self.watermark_key),
            "seed": str(self.seed),
            "architecture": f"{architecture.name} {dict(sorted(architecture.arguments.items()))}",
            "choice of taps": str(None if self.taps is None else tuple(self.taps)),
            "input": str(self.input_spec),
            **{f"setting {it.name}": str(getattr(self.recipe, it.name)) for it in fields(self.recipe)},
        }


def _modules_of(model: nn.Module) -> str:
    names = [name for name, _ in model.named_children()]
    more = ", ..." if len(names) > _SHOWN_MODULES_MAX else ""
    return (", ".join(names[:_SHOWN_MODULES_MAX]) or "no modules at all") + more
