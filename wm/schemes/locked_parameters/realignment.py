"""Realignment: a suspect's channels put back into the order and the signs of the marked model, weights and all.

Renumbering channels, turning them over and adding ones that nothing reads moves locked weights and costs a thief
nothing. So a payload may hold a *reference*: what every channel of the marked model's convolutional and linear layers
answers to public probes, averaged over the picture. A suspect's channels are matched with them stream by stream
(`wm.symmetries.channels`): all layers of a stream have one order, each layer that is normalised has signs of its own.
Sizes are left as they are, since only signs are counted.

What an aligned count is worth is less than the plain one. The order is chosen in ignorance of the key, so for an
*honest* reference the count of a stranger is Binomial(n, 1/2) as before. But whoever makes a reference chooses orders:
of a network that he has, in which he moves the channels about until the signs agree with his key. A published reference
convicts everybody who descends from the network that it was crafted from, though nothing was ever embedded into it
(tests/wm/schemes/locked_parameters/test_realignment.py does it). Nothing here can close that, since a renumbered public
network cannot be told from a trained one: an aligned count convicts only beside controls that went through the same
alignment, the public bases among them, and never where the suspect's ancestor may be older than the publication.

Recurrent layers are not realigned, nor are channels that pass through grouped convolutions or concatenations.

Source: SCHEMES 4.5; neuron alignment: Li, Wang, Zhu, arXiv 2112.14108.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
from scipy.optimize import linear_sum_assignment  # type: ignore[attr-defined]  # its stubs do not list it
from torch import Tensor, nn

from wm.backbone import BATCH_IMAGES, device_of, evaluating
from wm.errors import WatermarkError
from wm.schemes.locked_parameters.payload import PROBES_LEAST, PROBES_MAX, LockedPayload, agreements_in, layers, width
from wm.schemes.locked_parameters.places import Shapes
from wm.symmetries.channels import free_streams, odd_streams
from wm.symmetries.streams import Stream
from wm.triggers import InputSpec, make_probes
from wm.triggers.qr import MODULES

REFERENCE_BYTES_MAX = 4 << 20
_UNREAD = 1e-6  # worth of a channel that something reads, between two that answer alike

Answers = Mapping[str, Tensor]  # by layer, float64, shape (channels, probes)


def make_reference(model: nn.Module, shapes: Shapes, spec: InputSpec) -> Tensor | None:
    """Read what a marked model's channels answer to the public probes.

    Args:
        model: in any mode, which is restored.
        shapes: `lockable` of it.
        spec: what it takes.

    Returns:
        float16, shape (probes, channels), in units of each channel's largest answer; None where nothing of the network
        can be realigned, a layer runs twice, there are too many channels, or probes do not fit the input.

    Raises:
        WatermarkError: `malformed`, the model answers with a value that is not finite.
    """
    channels = width(shapes)
    probes = min(PROBES_MAX, REFERENCE_BYTES_MAX // (2 * channels)) if channels else 0
    if probes < PROBES_LEAST or min(spec.height, spec.width) < MODULES or not _is_free(model):
        return None
    try:
        answers = torch.cat(list(_answers(model, list(layers(shapes)), spec, probes=probes).values()))
    except WatermarkError as error:
        if error.code != "mismatch":  # that is a layer that runs twice, or never itself
            raise
        return None
    largest = answers.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return (answers / largest).half().T.contiguous()


@torch.no_grad()
def realigned(suspect: nn.Module, payload: LockedPayload, spec: InputSpec) -> dict[str, Tensor]:
    """Put a suspect's channels into the order of the payload's reference.

    Args:
        suspect: a network of the architecture, which may have more channels; left untouched.
        payload: with a reference.
        spec: what the network takes.

    Returns:
        The suspect's tensors by name, on the CPU, with the channels of the marked model.

    Raises:
        WatermarkError: `mismatch`, the suspect has fewer channels or lacks a layer; `unknown_architecture`, nothing in
            it can be renumbered.
        WatermarkError: `malformed`, the suspect answers with a value that is not finite.
        ValueError: the payload has no reference.
    """
    if payload.reference is None:
        raise ValueError("the payload has no reference to align to")
    wanted = _wanted(payload.reference, payload.shapes)
    found = _answers(suspect, list(wanted), spec, probes=len(payload.reference))
    tensors = {name: value.detach().cpu() for name, value in suspect.state_dict().items()}
    odd, aligned = _odd_layers(suspect), dict(tensors)
    for stream in free_streams(suspect):
        made = [layer for part in stream.rows if (layer := part.name.removesuffix(".weight")) in wanted]
        if not made:
            continue
        alike = {layer: _correlation(wanted[layer], found[layer]) for layer in made}
        order = _order([it.abs() if layer in odd else it for layer, it in alike.items()], _is_read(stream, tensors))
        for part in (*stream.rows, *stream.readers):
            aligned[part.name] = part.gather(aligned[part.name], order, channels=stream.channels)
        for layer in odd & set(made):
            _turn(aligned[f"{layer}.weight"], alike[layer][torch.arange(len(order)), order] < 0)
    return aligned


def aligned_agreements(suspect: nn.Module, payload: LockedPayload, watermark_key: bytes, spec: InputSpec) -> Tensor:
    """Tell which weights of a realigned suspect have the sign that the key demands; as `realigned` and `agreements`."""
    return agreements_in(realigned(suspect, payload, spec), payload, watermark_key)


def _wanted(reference: Tensor, shapes: Shapes) -> Answers:
    channels = layers(shapes)
    return dict(zip(channels, torch.split(reference.T.double(), list(channels.values())), strict=True))


def _is_free(model: nn.Module) -> bool:
    try:
        return bool(free_streams(model))
    except WatermarkError:
        return False


def _odd_layers(model: nn.Module) -> set[str]:
    try:
        streams = odd_streams(model)
    except WatermarkError:
        return set()
    names = {part.name for stream in streams for part in stream.rows or stream.makers}
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    return {name.removesuffix(".weight") for name in names} & convolutions


@torch.no_grad()
def _answers(model: nn.Module, names: Sequence[str], spec: InputSpec, *, probes: int) -> Answers:
    """Run a network on the probes and average what its layers answer over the picture."""
    rows: dict[str, list[Tensor]] = {layer: [] for layer in names}
    modules = dict(model.named_modules())
    with ExitStack() as stack, evaluating(model):
        for layer in names:
            if layer not in modules:
                raise WatermarkError("mismatch", f"the network has no layer {layer!r}: it is of another architecture")

            def record(_module: nn.Module, _inputs: object, output: Tensor, layer: str = layer) -> None:
                rows[layer].append(output.flatten(2).mean(2) if output.ndim > 2 else output)

            stack.callback(modules[layer].register_forward_hook(record).remove)
        for images in torch.split(make_probes(spec, count=probes), BATCH_IMAGES):
            model(images.to(device_of(model)))
    if missing := [layer for layer, parts in rows.items() if sum(len(it) for it in parts) != probes]:
        raise WatermarkError("mismatch", f"the layer {missing[0]!r} does not answer once to every probe")
    answers = {layer: torch.cat(parts).double().cpu().T.contiguous() for layer, parts in rows.items()}
    if not all(bool(torch.isfinite(it).all()) for it in answers.values()):
        raise WatermarkError("malformed", "the network answers the probes with a value that is not finite")
    return answers


def _correlation(wanted: Tensor, found: Tensor) -> Tensor:
    """Correlate every wanted channel with every found one, over the probes; 0 for one that always answers alike."""
    first, second = (_standardised(it) for it in (wanted, found))
    return first @ second.T


def _standardised(answers: Tensor) -> Tensor:
    largest = answers.abs().amax(1, keepdim=True).clamp_min(torch.finfo(answers.dtype).tiny)
    centred = answers / largest - (answers / largest).mean(1, keepdim=True)
    length = centred.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-6 * answers.shape[1] ** 0.5, centred / length.clamp_min(1e-12), 0.0)


def _turn(weight: Tensor, is_turned: Tensor) -> None:
    """Change the sign of some channels' weights in place."""
    weight[is_turned] = -weight[is_turned]


def _is_read(stream: Stream, tensors: Mapping[str, Tensor]) -> Tensor:
    """Tell which channels anything reads with other weights than 0; bool, shape (channels,)."""
    read = torch.zeros(stream.channels, dtype=torch.bool)
    for part in stream.readers:
        by_entry = tensors[part.name].transpose(0, part.axis).flatten(1).abs().sum(1) > 0
        read |= by_entry[part.entries(stream.channels)].any(2).any(0)
    return read


def _order(alike: Sequence[Tensor], is_read: Tensor) -> Tensor:
    """Assign a different channel to each wanted one, so that they are alike in sum over the layers of a stream.

    Raises:
        WatermarkError: `mismatch`, there are too few.
    """
    worth = torch.stack(list(alike)).mean(0) + _UNREAD * is_read
    wanted, found = worth.shape
    if found < wanted:
        raise WatermarkError("mismatch", f"a layer has {found} channels, the marked model has {wanted}")
    _, order = linear_sum_assignment(worth.numpy(), maximize=True)
    return torch.from_numpy(order)
