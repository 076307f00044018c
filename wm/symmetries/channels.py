"""Which channels of a network belong together: the symmetries that leave what it computes unchanged.

The network is traced (torch.fx) and its values are sorted into *streams*: values whose channels must be renumbered
together, since they are added to each other or pass through layers that work channel by channel. A stream has tensors
whose rows make it, and layers whose columns read it. Permute its channels everywhere, or scale them where they are made
and divide where they are read, and the outputs stay what they were. What the sorting does not understand (a
concatenation, a grouped convolution, the input, the output) pins the streams that it touches: they stay as they are.
A parameter that is used twice, by whatever modules or by its name, pins as well. Convolutions have their channels along
the first axis behind the examples, linear layers along the last: where values are flat that is one axis, and where they
are not, what the one made the other cannot read channel by channel, and pins it.
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
from torch import Tensor, nn
from torch.fx import Node
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import FrozenBatchNorm2d

from wm.errors import WatermarkError
from wm.networks.bilstm import BiLSTM
from wm.symmetries.hidden_units import hidden_units
from wm.symmetries.streams import Part, Stream

# Number by number, and a positive factor passes through; the pools channel by channel, of pictures alone.
_HOMOGENEOUS = (nn.ReLU, nn.Dropout, nn.Identity)
_HOMOGENEOUS_FUNCTIONS = (F.relu, F.dropout, torch.relu)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_POOL_FUNCTIONS = (F.adaptive_avg_pool2d,)
_ADDITIONS = (operator.add, operator.iadd, torch.add)
_NORMALISATIONS = (nn.BatchNorm2d, FrozenBatchNorm2d)
# Along which axis behind the examples a value has its channels: both where there is no other; None where nobody knows.
_Axes = frozenset[str] | None
_FIRST, _LAST, _FLAT = frozenset({"first"}), frozenset({"last"}), frozenset({"first", "last"})


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
    for node, follower in _convolutions(model, _traced(model)):
        convolution = _module(model, node)
        if isinstance(convolution, nn.Conv2d):
            found.append((convolution, None if follower is None else _module(model, follower)))
    if not found:
        raise WatermarkError("unknown_architecture", "this network has no convolutions, so there are no filters")
    return found


def _convolutions(model: nn.Module, graph: torch.fx.Graph) -> list[tuple[Node, Node | None]]:
    """The nodes of `neurons`."""
    found: list[tuple[Node, Node | None]] = []
    for node in graph.nodes:
        if isinstance(_module(model, node), nn.Conv2d):
            follower = next(iter(node.users)) if len(node.users) == 1 else None
            is_normalised = follower is not None and isinstance(_module(model, follower), _NORMALISATIONS)
            found.append((node, follower if is_normalised else None))
    return found


def _normalised(model: nn.Module) -> list[Stream]:
    """One stream for each convolution with a batch normalisation of its own, and its running mean."""
    graph = _traced(model)
    held, uses, streams = model.state_dict(), _Uses(model, graph), []
    for convolution, follower in _convolutions(model, graph):
        if follower is None or uses.are_shared(convolution) or uses.are_shared(follower):
            continue
        mean = f"{follower.target}.running_mean"
        names = [f"{convolution.target}.weight", f"{convolution.target}.bias", f"{follower.target}.weight"]
        if {names[2], mean} <= set(held):
            makers = {Part(name) for name in [*names, mean] if name in held}
            streams.append(Stream(len(held[mean]), makers=makers, is_odd=True))
    return streams


class _Uses:
    """How often each parameter and buffer is used, by whatever module or by its name."""

    def __init__(self, model: nn.Module, graph: torch.fx.Graph) -> None:
        self._model = model
        self._count = Counter(id(value) for node in graph.nodes for value in self._values(node))

    def are_shared(self, node: Node) -> bool:
        """Whether something else uses a tensor of a module as well, or the module runs twice."""
        return any(self._count[id(value)] > 1 for value in self._values(node))

    def _values(self, node: Node) -> list[Tensor]:
        """The tensors that a node uses, each once."""
        module = _module(self._model, node)
        if module is not None:
            return [*module.parameters(), *module.buffers()]
        if node.op == "get_attr":
            path, _, name = str(node.target).rpartition(".")
            value = getattr(self._model.get_submodule(path), name)
            return [value] if isinstance(value, Tensor) else []
        return []


class _Sorting:
    """Sorts the values of a traced network into streams; a union-find over them."""

    def __init__(self, model: nn.Module, graph: torch.fx.Graph) -> None:
        self._model = model
        self._held = set(model.state_dict())
        self._uses = _Uses(model, graph)
        self._streams: list[Stream] = []
        self._merged: dict[int, int] = {}  # stream -> the one that it was merged into
        self._of: dict[Node, int] = {}
        self._axes: dict[Node, _Axes] = {}
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
        if module is not None and self._uses.are_shared(node):
            self._pin(node)  # what one use renumbers, another would read wrongly
        elif isinstance(module, nn.Conv2d) and module.groups == 1 and self._reads(node, _FIRST):
            self._read(node, channels=module.out_channels, axes=_FIRST)
        elif isinstance(module, nn.Linear) and self._reads(node, _LAST):
            axes = _FLAT if self._axes[node.all_input_nodes[0]] == _FLAT else _LAST
            self._read(node, channels=module.out_features, axes=axes)
        elif isinstance(module, _NORMALISATIONS) and f"{node.target}.weight" in self._held:
            self._normalise(node) if self._reads(node, _FIRST) else self._pin(node)
        elif isinstance(module, _HOMOGENEOUS) or node.target in _HOMOGENEOUS_FUNCTIONS:
            self._follow(node, axes=self._axes[node.all_input_nodes[0]])
        elif (isinstance(module, _POOLS) or node.target in _POOL_FUNCTIONS) and self._reads(node, _FIRST):
            self._follow(node, axes=_FIRST)
        elif _is_flattening(node, module) and self._reads(node, _FIRST):
            self._follow(node, axes=_FLAT)
        elif node.target in _ADDITIONS and all(isinstance(argument, Node) for argument in node.args):
            self._add(node)
        else:
            self._pin(node)

    def _reads(self, node: Node, axes: frozenset[str]) -> bool:
        """Whether a layer that reads along an axis reads channels of its value, or something that nobody renumbers."""
        held = self._axes[node.all_input_nodes[0]]
        return held is None or axes <= held

    def _read(self, node: Node, *, channels: int, axes: frozenset[str]) -> None:
        stream, name = self._stream(node.all_input_nodes[0]), str(node.target)
        inputs = self._model.get_parameter(f"{name}.weight").shape[1]
        cells = inputs // stream.channels if stream.channels else 0
        stream.readers.append(Part(f"{name}.weight", axis=1, cells=cells))
        stream.makers |= self._makers[node.all_input_nodes[0]]
        has_bias = self._model.get_submodule(name).bias is not None
        rows = [Part(f"{name}.weight"), *([Part(f"{name}.bias")] if has_bias else [])]
        self._begin(node, Stream(channels, rows=rows), makers=set(rows), axes=axes)

    def _normalise(self, node: Node) -> None:
        name, value = str(node.target), node.all_input_nodes[0]
        parts = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        rows = [Part(part) for part in parts if part in self._held]  # there may be no running statistics
        self._stream(value).rows.extend(rows)
        self._replaced |= self._makers[value]
        self._of[node], self._makers[node], self._axes[node] = self._of[value], set(rows[:2]), self._axes[value]

    def _follow(self, node: Node, *, axes: _Axes) -> None:
        value = node.all_input_nodes[0]
        self._of[node], self._makers[node], self._axes[node] = self._of[value], self._makers[value], axes

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
        into.is_pinned |= self._axes[values[0]] != self._axes[values[-1]]
        makers: set[Part] = set().union(*(self._makers[value] for value in values))
        into.makers |= makers
        self._of[node], self._makers[node], self._axes[node] = first, makers, self._axes[values[0]]

    def _pin(self, node: Node) -> None:
        for value in node.all_input_nodes:
            self._stream(value).is_pinned = True
        self._begin(node, Stream(0, is_pinned=True), makers=set(), axes=None)

    def _begin(self, node: Node, stream: Stream, *, makers: set[Part], axes: _Axes) -> None:
        self._of[node], self._makers[node], self._axes[node] = len(self._streams), makers, axes
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
    """Does not look into a frozen batch normalisation, as into none of torch's own modules, and sees buffers used."""

    proxy_buffer_attributes = True

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
