"""Which channels of a network belong together: the symmetries that leave what it computes unchanged.

The network is traced (torch.fx) and its values are sorted into *streams*: values whose channels must be renumbered
together, since they are added to each other or pass through layers that work channel by channel. A stream has tensors
whose rows make it, and layers whose columns read it. Permute its channels everywhere, or scale them where they are made
and divide where they are read, and the outputs stay what they were. What the sorting does not understand (a
concatenation, a grouped convolution, the input, the output) pins the streams that it touches: they stay as they are.

Source: the invariant neuron transforms of Yan, Pan, Zhang, Yang, "Rethinking White-Box Watermarks on Deep Learning
Models under Neural Structural Obfuscation", 2023, and the same authors' LayerShuffle and NeuronScale.
"""

import operator
from collections import Counter
from dataclasses import dataclass, field

import torch
import torch.fx
import torch.nn.functional as F  # noqa: N812
from torch import nn
from torch.fx import Node

from wm.errors import WatermarkError

# Channel by channel, and a positive factor passes through.
_HOMOGENEOUS = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)
_HOMOGENEOUS_FUNCTIONS = (F.relu, F.adaptive_avg_pool2d, F.dropout, torch.relu)
_ADDITIONS = (operator.add, operator.iadd, torch.add)


@dataclass(slots=True)
class Stream:
    """Values whose channels are numbered alike.

    Attributes:
        channels: how many.
        rows: names of the tensors with one entry of the first axis for each channel.
        makers: those of them that the size of the values that are read follows from.
        readers: names of the weights whose second axis reads the stream, with the entries that each channel has there.
        is_pinned: its channels must stay where they are.
        is_rigid: they must keep their size as well.
    """

    channels: int
    rows: list[str] = field(default_factory=list)
    makers: set[str] = field(default_factory=set)
    readers: list[tuple[str, int]] = field(default_factory=list)
    is_pinned: bool = False
    is_rigid: bool = False


def free_streams(model: nn.Module) -> list[Stream]:
    """Find the streams whose channels may be renumbered, in the order of the network.

    Args:
        model: in evaluation mode, left untouched.

    Returns:
        At least one.

    Raises:
        WatermarkError: `unknown_architecture`, the network cannot be traced, or nothing in it is free.
    """
    graph = _traced(model)
    sorting = _Sorting(model, graph)
    for node in graph.nodes:
        sorting.take(node)
    free = [stream for stream in sorting.streams() if not stream.is_pinned and stream.readers]
    if not free:
        raise WatermarkError("unknown_architecture", "no channels of this network can be renumbered")
    return free


def neurons(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """List the convolutions with the batch normalisation that directly follows, if one does.

    Raises:
        WatermarkError: `unknown_architecture`, the network cannot be traced.
    """
    found: list[tuple[nn.Conv2d, nn.BatchNorm2d | None]] = []
    for node in _traced(model).nodes:
        module = _module(model, node)
        if isinstance(module, nn.Conv2d):
            followers = [_module(model, user) for user in node.users]
            follower = followers[0] if len(followers) == 1 else None
            found.append((module, follower if isinstance(follower, nn.BatchNorm2d) else None))
    return found


class _Sorting:
    """Sorts the values of a traced network into streams; a union-find over them."""

    def __init__(self, model: nn.Module, graph: torch.fx.Graph) -> None:
        self._model = model
        self._uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
        self._streams: list[Stream] = []
        self._merged: dict[int, int] = {}  # stream -> the one that it was merged into
        self._of: dict[Node, int] = {}
        self._makers: dict[Node, set[str]] = {}
        self._replaced: set[str] = set()  # makers whose size a batch normalisation forgets

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
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            self._normalise(node)
        elif isinstance(module, _HOMOGENEOUS) or node.target in _HOMOGENEOUS_FUNCTIONS or _is_flattening(node):
            self._follow(node)
        elif node.target in _ADDITIONS and all(isinstance(argument, Node) for argument in node.args):
            self._add(node)
        else:
            self._pin(node)

    def _read(self, node: Node, *, channels: int) -> None:
        stream, name = self._stream(node.all_input_nodes[0]), str(node.target)
        inputs = self._model.get_parameter(f"{name}.weight").shape[1]
        stream.readers.append((f"{name}.weight", inputs // stream.channels if stream.channels else 0))
        stream.makers |= self._makers[node.all_input_nodes[0]]
        rows = [f"{name}.weight", *([f"{name}.bias"] if self._model.get_submodule(name).bias is not None else [])]
        self._begin(node, Stream(channels, rows=rows), makers=set(rows))

    def _normalise(self, node: Node) -> None:
        name, value = str(node.target), node.all_input_nodes[0]
        rows = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
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
        makers = set().union(*(self._makers[value] for value in values))
        into.makers |= makers
        self._of[node], self._makers[node] = first, makers

    def _pin(self, node: Node) -> None:
        for value in node.all_input_nodes:
            self._stream(value).is_pinned = True
        self._begin(node, Stream(0, is_pinned=True), makers=set())

    def _begin(self, node: Node, stream: Stream, *, makers: set[str]) -> None:
        self._of[node], self._makers[node] = len(self._streams), makers
        self._streams.append(stream)

    def _stream(self, node: Node) -> Stream:
        return self._streams[self._find(self._of[node])]

    def _find(self, number: int) -> int:
        while number in self._merged:
            number = self._merged[number]
        return number


def _traced(model: nn.Module) -> torch.fx.Graph:
    try:
        return torch.fx.symbolic_trace(model).graph
    except (torch.fx.proxy.TraceError, TypeError, ValueError, RuntimeError) as error:
        raise WatermarkError("unknown_architecture", f"this network cannot be traced: {error}") from error


def _module(model: nn.Module, node: Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_flattening(node: Node) -> bool:
    return node.target is torch.flatten and node.args[1:] == (1,)
