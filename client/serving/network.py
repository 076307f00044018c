"""The network that is served: what it takes, and the scores that it gives. Importing this module imports torch."""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import wm
from client.bundle import Bundle
from client.errors import InputError, InvalidError
from client.marking.models import device_of, watermark_errors
from wm.architectures import SIDE_MAX, classifiers
from wm.pixels import from_pixels
from wm.schemes import mtlsign
from wm.schemes.evidence import load_scheme_evidence, scheme_named_in
from wm.weights import load_weights

CHANNELS_MAX = 16
_SIZE = re.compile(r"([0-9]{1,2})x([0-9]{1,4})x([0-9]{1,4})")
_DECIMAL = re.compile(r"-?[0-9]{1,6}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Which network a file holds, and what it takes."""

    architecture: wm.Architecture
    input: wm.InputSpec


@dataclass(frozen=True, slots=True)
class Network:
    """A network that answers.

    Attributes:
        model: in evaluation mode.
        input: what it takes.
        classes: how many it tells apart.
    """

    model: nn.Module
    input: wm.InputSpec
    classes: int

    @property
    def picture_bytes(self) -> int:
        """Pixels of a picture, of all its channels."""
        return self.input.channels * self.input.height * self.input.width

    def scores(self, pixels: bytes) -> list[list[float]]:
        """The logits of pictures.

        Args:
            pixels: 8 bits each, shape (n, channels, height, width) in row-major order.

        Returns:
            A row for each picture.

        Raises:
            ValueError: a logit is not finite.
        """
        rows: list[list[float]] = _logits(self.model, self.input, pixels).tolist()
        return rows


def kind_in(bundle: Bundle) -> Kind:
    """What the evidence in an owner's directory says of his network.

    Raises:
        InvalidError: it names no network of the catalogue.
        InputError: the network takes no pictures.
    """
    with watermark_errors(bundle.evidence):
        has_branch = scheme_named_in(bundle.evidence) == mtlsign.NAME
        load = wm.load_evidence if has_branch else load_scheme_evidence
        info = load(bundle.evidence).info
    if not isinstance(info.input, wm.InputSpec):
        raise InputError(f"{bundle.evidence}: of a network for texts; only classifiers of pictures are served")
    return Kind(architecture=info.architecture, input=info.input)


def kind_named(arch: str, *, classes: int, size: str, mean: str | None, std: str | None) -> Kind:
    """The network that options name.

    Args:
        arch: its name in the catalogue.
        classes: how many it tells apart.
        size: of a picture, such as "3x32x32".
        mean: of each channel, decimals with commas between them; None for 0.
        std: likewise; None for 1.

    Raises:
        InputError: naming the option.
        InvalidError: the catalogue does not build it so.
    """
    matched = _SIZE.fullmatch(size)
    channels, height, width = map(int, matched.groups()) if matched else (0, 0, 0)
    if not 1 <= channels <= CHANNELS_MAX or not 1 <= height <= SIDE_MAX or not 1 <= width <= SIDE_MAX:
        raise InputError(f"--input {size}: expected channels x height x width, such as 3x32x32, sides up to {SIDE_MAX}")
    levels = wm.Normalisation(mean=_decimals("--mean", mean, "0", channels), std=_decimals("--std", std, "1", channels))
    if not all(float(value) > 0 for value in levels.std):
        raise InputError(f"--std {std}: every value must be greater than 0")
    with watermark_errors():
        architecture = wm.Architecture(arch, {"num_classes": classes})
    return Kind(architecture=architecture, input=wm.InputSpec(channels, height, width, levels))


def load_network(weights: Path, kind: Kind, *, device: str) -> Network:
    """Load a network, and show it a black picture, which tells whether it takes such pictures.

    Raises:
        InputError: it is no classifier of pictures, or the device is none.
        InvalidError: the file is not such a network's, or the network does not take such pictures.
        OSError: the file cannot be read.
    """
    arch = kind.architecture.name
    if arch not in classifiers():
        raise InputError(f"--arch {arch}: no classifier of the catalogue; take one such as resnet18")
    with watermark_errors(weights):
        model = load_weights(weights, kind.architecture).to(device_of(device)).eval()
    black = bytes(kind.input.channels * kind.input.height * kind.input.width)
    try:
        classes = _logits(model, kind.input, black).shape[1]
    except (RuntimeError, ValueError, IndexError) as error:
        message = f"{weights}: {arch} does not answer a picture of {kind.input}: {error}"
        raise InvalidError(message, code="mismatch") from error
    return Network(model, kind.input, classes)


@torch.inference_mode()
def _logits(model: nn.Module, spec: wm.InputSpec, pixels: bytes) -> torch.Tensor:
    shape = (-1, spec.channels, spec.height, spec.width)
    pictures = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).reshape(shape)
    place = next(model.parameters()).device
    logits: torch.Tensor = model(from_pixels(pictures, spec).to(place)).cpu()
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("the network answers with a value that is not finite")
    return logits


def _decimals(option: str, text: str | None, usual: str, channels: int) -> tuple[str, ...]:
    values = (usual,) * channels if text is None else tuple(text.split(","))
    if len(values) != channels or not all(map(_DECIMAL.fullmatch, values)):
        raise InputError(f"{option} {text}: expected {channels} decimals, one for each channel, such as 0.5,0.5,0.5")
    return values
