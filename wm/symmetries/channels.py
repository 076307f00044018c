"""Which channels of a network belong together: the symmetries that leave what it computes unchanged.

The network is traced (torch.fx) and its values are sorted into *streams*: values whose channels must be renumbered
together, since they are added to each other or pass through layers that work channel by channel. A stream has tensors
whose rows make it, and layers whose columns read it. Permute its channels everywhere, or scale them where they are made
and divide where they are read, and the outputs stay what they were. What the sorting does not understand (a
concatenation, a grouped convolution, the input, the output) pins the streams that it touches: they stay as they are.
The hidden units of our Bi-LSTM are listed by themselves (`hidden_units`). Of a network that finds objects the backbone
is traced, where marks are read; what lies behind it chooses boxes by their number.

Source: the invariant neuron transforms of Yan, Pan, Zhang, Yang, "Rethinking White-Box Watermarks on Deep Learning
Models under Neural Structural Obfuscation", 2023, and the same authors' LayerShuffle and NeuronScale.
"""

import operator
from collections import Counter

import torch
import torch.fx
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.fx import Node
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import FrozenBatchNorm2d

from wm.errors import WatermarkError
from wm.networks.bilstm import BiLSTM
from wm.symmetries.hidden_units import hidden_units
from wm.symmetries.streams import Part, Stream

# Channel by channel, and a positive factor passes through.
_HOMOGENEOUS = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)
_HOMOGENEOUS_FUNCTIONS = (F.relu, F.adaptive_avg_pool2d, F.dropout, torch.relu)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_NORMALISATIONS = (nn.BatchNorm2d, FrozenBatchNorm2d)


def free_streams(model: nn.Module) -> list[Stream]:
    """Find the streams whose channels may be renumbered, in the order of the network.

    Args:
        model: in evaluation mode, left untouched.

    Returns:
        At least one.

    Raises:
        WatermarkError: `unknown_architecture`, the network cannot be traced, or nothing in it is free.
    """
    if isinstance(model, BiLSTM):
        return hidden_units(model)
    graph = _traced(model)
    sorting = _Sorting(model, graph)
    for node in graph.nodes:
        sorting.take(node)
    free = [stream for stream in sorting.streams() if not stream.is_pinned and stream.readers]
    if not free:
        raise WatermarkError("unknown_architecture", "no channels of this network can be renumbered")
    return free


def odd_streams(model: nn.Module) -> list[Stream]:
    """Find the channels that may be turned over, made with the other sign: hidden units, and what is normalised.

    A convolution's channel may change its sign where nothing but a batch normalisation reads it, which takes the change
    back with its mean and its factor. Behind a ReLU nothing can be turned over.

    Args:
        model: in evaluation mode, left untouched.

    Returns:
        At least one, in the order of the network.

    Raises:
        WatermarkError: `unknown_architecture`, the network cannot be traced, or nothing in it may be turned over.
    """
    odd = hidden_units(model) if isinstance(model, BiLSTM) else _normalised(model)
    if not odd:
        raise WatermarkError("unknown_architecture", "no channels of this network can be turned over")
    return odd


def neurons(model: nn.Module) -> list[tuple[nn.Conv2d, nn.Module | None]]:
    """List the convolutions, at least one, with the batch normalisation that directly follows, if one does.

    Of a network that finds objects those of its backbone.

    Raises:
        WatermarkError: `unknown_architecture`, the network cannot be traced or has none.
    """
    found: list[tuple[nn.Conv2d, nn.Module | None]] = []
    for node, follower in _convolutions(model):
        convolution = _module(model, node)
        if isinstance(convolution, nn.Conv2d):
            found.append((convolution, None if follower is None else _module(model, follower)))
    if not found:
        raise WatermarkError("unknown_architecture", "this network has no convolutions, so there are no filters")
    return found


def _convolutions(model: nn.Module) -> list[tuple[Node, Node | None]]:
    """The nodes of `neurons`."""
    found: list[tuple[Node, Node | None]] = []
    for node in _traced(model).nodes:
        if isinstance(_module(model, node), nn.Conv2d):
            follower = next(iter(node.users)) if len(node.users) == 1 else None
            is_normalised = follower is not None and isinstance(_module(model, follower), _NORMALISATIONS)
            found.append((node, follower if is_normalised else None))
    return found


def _normalised(model: nn.Module) -> list[Stream]:
    """One stream for each convolution with a batch normalisation of its own."""
    pairs = [(str(node.target), str(follower.target)) for node, follower in _convolutions(model) if follower]
    uses = Counter(name for pair in pairs for name in pair)
    held, streams = model.state_dict(), []
    for convolution, normalisation in pairs:
        names = [f"{convolution}.weight", f"{convolution}.bias", f"{normalisation}.weight"]
        mean = f"{normalisation}.running_mean"
        if uses[convolution] == uses[normalisation] == 1 and {names[2], mean} <= set(held):
            makers = {Part(name) for name in [*names, mean] if name in held}
            streams.append(Stream(len(held[mean]), makers=makers, is_odd=True))
    return streams


class _Sorting:
    """Sorts the values of a traced network into streams; a union-find over them."""

    def __init__(self, model: nn.Module, graph: torch.fx.Graph) -> None:
        self._model = model
        self._uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self._streams: list[Stream] = []
        self._merged: dict[int, int] = {}  # stream -> the one that it was merged into
        self._of: dict[Node, int] = {}
        self._makers: dict[Node, set[Part]] = {}
        self._replaced: set[Part] = set()  # makers whose size a batch normalisation forgets

    def streams(self) -> list[Stream]:
        """Return the streams that are left; one whose values are read before and after a normalisation is rigid."""
        left = [stream for number, stream in enumerate(self._streams) if number not in self._merged]
        for stream in left:
            stream.is_rigid |= bool(stream.makers & self._replaced)
        return left

    def take(self, node: Node) -> None:
        """Sort the value of one node; all before it have been taken."""
        module = _module(self._model, node)
        if module is not None and list(module.parameters()) and self._uses[node.target] > 1:
            self._pin(node)  # what one use renumbers, another would read wrongly
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            self._read(node, channels=module.out_channels)
        elif isinstance(module, nn.Linear):
            self._read(node, channels=module.out_features)
        elif isinstance(module, _NORMALISATIONS) and getattr(module, "weight", None) is not None:
            self._normalise(node)
        elif isinstance(module, _HOMOGENEOUS) or node.target in _HOMOGENEOUS_FUNCTIONS or _is_flattening(node, module):
            self._follow(node)
        elif node.target in _ADDITIONS and all(isinstance(argument, Node) for argument in node.args):
            self._add(node)
        else:
            self._pin(node)

    def _read(self, node: Node, *, channels: int) -> None:
        stream, name = self._stream(node.all_input_nodes[0]), str(node.target)
        inputs = self._model.get_parameter(f"{name}.weight").shape[1]
        cells = inputs // stream.channels if stream.channels else 0
        stream.readers.append(Part(f"{name}.weight", axis=1, cells=cells))
        stream.makers |= self._makers[node.all_input_nodes[0]]
        has_bias = self._model.get_submodule(name).bias is not None
        rows = [Part(f"{name}.weight"), *([Part(f"{name}.bias")] if has_bias else [])]
        self._begin(node, Stream(channels, rows=rows), makers=set(rows))

    def _normalise(self, node: Node) -> None:
        name, value = str(node.target), node.all_input_nodes[0]
        rows = [Part(f"{name}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        self._stream(value).rows.extend(rows)
        self._replaced |= self._makers[value]
        self._of[node], self._makers[node] = self._of[value], set(rows[:2])

    def _follow(self, node: Node) -> None:
        value = node.all_input_nodes[0]
        self._of[node], self._makers[node] = self._of[value], self._makers[value]

    def _add(self, node: Node) -> None:
        values = node.all_input_nodes
        first, second = (self._find(self._of[value]) for value in (values[0], values[-1]))  # x + x has one only
        into, other = self._streams[first], self._streams[second]
        if first != second:
            into.rows += other.rows
            into.readers += other.readers
            into.makers |= other.makers
            into.is_pinned |= other.is_pinned or into.channels != other.channels
            self._merged[second] = first
        makers: set[Part] = set().union(*(self._makers[value] for value in values))
        into.makers |= makers
        self._of[node], self._makers[node] = first, makers

    def _pin(self, node: Node) -> None:
        for value in node.all_input_nodes:
            self._stream(value).is_pinned = True
        self._begin(node, Stream(0, is_pinned=True), makers=set())

    def _begin(self, node: Node, stream: Stream, *, makers: set[Part]) -> None:
        self._of[node], self._makers[node] = len(self._streams), makers
        self._streams.append(stream)

    def _stream(self, node: Node) -> Stream:
        return self._streams[self._find(self._of[node])]

    def _find(self, number: int) -> int:
        while number in self._merged:
            number = self._merged[number]
        return number


def _traced(model: nn.Module) -> torch.fx.Graph:
    """The graph of a network, its modules named as the network names them."""
    part = "backbone." if isinstance(model, GeneralizedRCNN) else ""
    try:
        graph = _Tracer().trace(model.get_submodule(part.rstrip(".")))
    except (torch.fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise WatermarkError("unknown_architecture", f"this network cannot be traced: {error}") from error
    for node in graph.nodes:
        if isinstance(node.target, str) and node.op in {"call_module", "get_attr"}:
            node.target = f"{part}{node.target}"
    return graph


class _Tracer(torch.fx.Tracer):
    """Does not look into a frozen batch normalisation, as into none of torch's own modules."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        """Whether a module is one node of the graph."""
        return isinstance(module, FrozenBatchNorm2d) or super().is_leaf_module(module, name)


def _module(model: nn.Module, node: Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_flattening(node: Node, module: nn.Module | None) -> bool:
    """Whether all axes behind the channels become one with them."""
    if isinstance(module, nn.Flatten):
        return (module.start_dim, module.end_dim) == (1, -1)
    return node.target is torch.flatten and node.args[1:] == (1,)
