"""Which hidden units of our Bi-LSTM belong together: one stream for each direction of each layer.

A unit's number stands in the rows of all four gates, in the columns by which its own direction reads it a word later,
and in the columns of whatever comes next: both directions of the next layer, or the classifier. Of the symmetries of
other networks two are left. Units may be renumbered. They cannot be scaled, since the gates and the cell squash what
they are given; but tanh is odd, so a unit may be turned over:

    c' = f·c + i·g,  h = o·tanh(c)        g -> -g  gives  c -> -c  and  h -> -h

with the signs of its own row of the gate g, and of all that reads it, changed.

Source: "LayerShuffle" and "SignFlip" of the invariant neuron transforms, for LSTMs; SCHEMES 4.5.
"""

from wm.networks.bilstm import BiLSTM
from wm.symmetries.streams import Part, Stream

GATES = ("input", "forget", "cell", "output")  # i, f, g, o: in this order torch stacks their rows
_DIRECTIONS = ("l0", "l0_reverse")


def hidden_units(model: BiLSTM) -> list[Stream]:
    """Find the streams of a Bi-LSTM.

    Args:
        model: left untouched.

    Returns:
        Two for each layer, forward and backward, from the words up.
    """
    units = model.get_parameter("layers.0.lstm.weight_hh_l0").shape[1]
    above = [
        [f"layers.{number}.lstm.weight_ih_{direction}" for direction in _DIRECTIONS]
        for number in range(1, len(model.layers))
    ]
    return [
        _units(f"layers.{number}.lstm", direction, units, readers)
        for number, readers in enumerate([*above, ["classifier.weight"]])
        for direction in range(len(_DIRECTIONS))
    ]


def _units(lstm: str, direction: int, units: int, readers: list[str]) -> Stream:
    """One direction: its units stand in front of the other's in what reads both, or behind them."""
    suffix, cell = _DIRECTIONS[direction], GATES.index("cell")
    gates = [f"{lstm}.{part}_{suffix}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    return Stream(
        units,
        rows=[Part(name, blocks=len(GATES)) for name in gates],
        makers={Part(name, first=cell * units) for name in gates},
        readers=[
            Part(f"{lstm}.weight_hh_{suffix}", axis=1),
            *(Part(name, axis=1, first=direction * units) for name in readers),
        ],
        is_rigid=True,
        is_odd=True,
    )
