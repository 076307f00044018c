"""A bidirectional LSTM that classifies texts, laid out so that a watermark branch can read it by module paths.

    token ids (n, L) -> embedding -> layers.0 -> layers.1 -> mean over the words -> classifier

Each layer shows the two things at which a mark is read as modules of its own, whose answers nothing else uses:

    layers.i.final    the last hidden state of each direction                shape (n, 2·hidden, 1, 1)
    layers.i.states   the hidden states of both at position ⌊kL/5⌋, k = 1..4   shape (n, 2·hidden, 1, 4)

A row of positions is a picture of height 1, so taps, pooling and channel permutations are those of pictures.

A text that is shorter than its row ends in padding, id 0: its vector is 0 and stays 0, and the classifier averages
over the other positions only. Rows are padded to one length whatever else is in the batch, so an answer never depends
on its neighbours. There is no dropout: it would draw from torch's global generator, and one seed must give one model.

Source: Li et al. 2022, figure 4; the authors' Feb_sa.py (two layers of 100, states at tenths of a text, final ones).
"""

import torch
from torch import Tensor, nn

PADDING = 0
VOCABULARY = 20_000
DIMENSION = HIDDEN = 100
LAYERS = 2
EMBEDDING = "embedding.weight"  # shape (vocabulary, dimension)
FIFTHS = 5  # where the states are read; the ends of the text are the final states' business

# Argument -> type, least, most, as the catalogue checks them.
ARGUMENTS: dict[str, tuple[type, int, int]] = {
    "vocabulary": (int, 64, 1 << 20),
    "dimension": (int, 1, 1_024),
    "hidden": (int, 1, 1_024),
    "layers": (int, 1, 4),
}


class BiLSTM(nn.Module):
    """Embedding, bidirectional LSTM layers, and a linear classifier over their mean."""

    def __init__(
        self,
        *,
        vocabulary: int = VOCABULARY,
        dimension: int = DIMENSION,
        hidden: int = HIDDEN,
        layers: int = LAYERS,
        num_classes: int = 2,
    ) -> None:
        """Allocate and initialise.

        Args:
            vocabulary: number of token ids, padding among them.
            dimension: of a word's vector.
            hidden: width of each direction.
            layers: one on top of the other.
            num_classes: width of the output.
        """
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dimension, padding_idx=PADDING)
        self.layers = nn.ModuleList(Layer(2 * hidden if above else dimension, hidden) for above in range(layers))
        self.classifier = nn.Linear(2 * hidden, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids, int64, shape (n, L), to logits, shape (n, num_classes)."""
        read: Tensor = self.embedding(tokens)
        for layer in self.layers:
            read = layer(read)
        logits: Tensor = self.classifier(_mean_over_words(read, tokens))
        return logits


class Layer(nn.Module):
    """One bidirectional LSTM, with its taps."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
        self.states = States()
        self.final = Final()

    def forward(self, read: Tensor) -> Tensor:
        """Map (n, L, inputs) to the hidden states of both directions, shape (n, L, 2·hidden)."""
        states: Tensor
        states, _ = self.lstm(read)
        self.states(states)
        self.final(states)
        return states


class States(nn.Module):
    """The hidden states at the inner fifths of a text, for a tap."""

    def forward(self, states: Tensor) -> Tensor:
        """Map (n, L, channels) to (n, channels, 1, 4)."""
        length = states.shape[1]
        positions = [k * length // FIFTHS for k in range(1, FIFTHS)]
        return states[:, positions].transpose(1, 2)[:, :, None]


class Final(nn.Module):
    """The last hidden state of each direction, for a tap: the backward one has read the whole text at position 0."""

    def forward(self, states: Tensor) -> Tensor:
        """Map (n, L, channels) to (n, channels, 1, 1)."""
        forward, backward = states[:, -1].chunk(2, dim=1)[0], states[:, 0].chunk(2, dim=1)[1]
        return torch.cat([forward, backward], dim=1)[:, :, None, None]


def taps(layers: int) -> tuple[str, ...]:
    """Name the default taps: both of every layer."""
    return tuple(f"layers.{number}.{part}" for number in range(layers) for part in ("states", "final"))


def begin_with(model: nn.Module, vectors: Tensor, known: Tensor) -> None:
    """Put word vectors into the embedding of a fresh network, in place.

    Args:
        model: a `BiLSTM`.
        vectors: float32, shape (vocabulary, dimension).
        known: which rows of it mean something, bool, shape (vocabulary,); the other words keep their random vectors,
            brought to the size of the known ones.
    """
    weight = model.get_parameter(EMBEDDING)
    with torch.no_grad():
        drawn = weight * vectors[known].std().to(weight.device)
        weight.copy_(torch.where(known[:, None].to(weight.device), vectors.to(weight.device), drawn))
        weight[PADDING] = 0


def freeze_embedding(model: nn.Module) -> None:
    """Leave the word vectors of a network out of every training that follows.

    A few thousand texts meet most words once or twice: what they would learn of such a word is those texts by heart,
    while vectors that come from millions of texts already know it. It also keeps nine tenths of the parameters still.
    """
    model.get_parameter(EMBEDDING).requires_grad = False


def _mean_over_words(states: Tensor, tokens: Tensor) -> Tensor:
    """Average states (n, L, channels) over the positions that are not padding; a text of none gives 0."""
    is_word = (tokens != PADDING).to(states.dtype)
    return torch.einsum("nlc,nl->nc", states, is_word) / is_word.sum(1, keepdim=True).clamp_min(1)
