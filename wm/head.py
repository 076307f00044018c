"""The watermark branch's own part, c_WM: a two-layer perceptron over pooled features.

    logits = output(relu(hidden((features - mean) / std)))

`mean` and `std` are constants of the owner's model. Nothing depends on the other inputs of a batch:
a head that standardised over the suspect's own triggers could carry a mark to models it has never seen
(SCHEMES 0, item 3). A head reaches a node as six tensors, never as code.

Source: Li et al. 2022, section 4.1 (two-layer perceptron on the first three stages).
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import Tap, feature_count
from wm.errors import WatermarkError
from wm.randomness import seeded

FAMILY = "mlp2"
HIDDEN_WIDTH = 256
PARAMETERS_MAX = 1 << 22
STD_LEAST = 1e-6  # keeps a tap that is dead altogether from dividing by zero


class Head(nn.Module):
    """c_WM. Build one with `initial_head` or `head_from_tensors`."""

    mean: Tensor
    std: Tensor

    def __init__(self, *, inputs: int, hidden: int) -> None:
        """Allocate the tensors.

        Args:
            inputs: d, the number of pooled features.
            hidden: width of the hidden layer.
        """
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("std", torch.ones(inputs))
        self.hidden = nn.Linear(inputs, hidden)
        self.output = nn.Linear(hidden, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (n, d) to logits (n, 2)."""
        return self.output(F.relu(self.hidden((features - self.mean) / self.std)))  # type: ignore[no-any-return]

    def tensors(self) -> dict[str, Tensor]:
        """Return contiguous CPU copies of the tensors by name, as the evidence file holds them."""
        return {name: value.detach().cpu().contiguous().clone() for name, value in self.state_dict().items()}


def initial_head(features: Tensor, taps: Sequence[Tap], *, pooling: int, hidden: int, seed: int) -> Head:
    """Make an untrained head that centres the given features and scales them tap by tap.

    One deviation serves a whole tap (the root mean square over its features). With one for each feature, a feature
    that is all but dead on the owner's triggers and comes alive in a tuned copy would be blown up a hundredfold.

    Args:
        features: of the owner's model on his triggers, shape (n, d), n at least 2.
        taps: where the features were read, in order.
        pooling: cells per side.
        hidden: width of the hidden layer.
        seed: decides the initial weights.

    Returns:
        The head, on the features' device.
    """
    with seeded("head", seed):
        head = Head(inputs=features.shape[1], hidden=hidden)
    head.mean.copy_(features.mean(0))
    widths = [feature_count([tap], pooling=pooling) for tap in taps]
    variances = torch.split(features.var(0), widths)
    head.std.copy_(torch.cat([part.mean().sqrt().clamp_min(STD_LEAST).expand(len(part)) for part in variances]))
    return head.to(features.device)


def distance_from_centre(head: Head, features: Tensor) -> float:
    """Return how far features lie from where a head is centred: root mean square over them, in its deviations.

    Args:
        head: on the features' device.
        features: shape (n, d).
    """
    return float(((features.mean(0) - head.mean) / head.std).square().mean().sqrt())


@torch.no_grad()
def recentre(head: Head, features: Tensor) -> None:
    """Centre a trained head on other features. What it answers stays as it was, but for rounding.

    Their scales stay too: noise is drawn by them, and where a training has made features much larger, a head that is
    trained with as much more noise reads less.

    Args:
        head: changed; on the features' device.
        features: what it is to be centred on, shape (n, d).
    """
    mean = features.mean(0)
    head.hidden.bias.add_((head.hidden.weight / head.std) @ (mean - head.mean))
    head.mean.copy_(mean)


def head_from_tensors(tensors: Mapping[str, Tensor], *, inputs: int, hidden: int) -> Head:
    """Rebuild a head from an evidence file's tensors.

    Args:
        tensors: by name, any device.
        inputs: d, as the taps and the pooling demand.
        hidden: width of the hidden layer, at least 1.

    Returns:
        The head in evaluation mode, on the CPU.

    Raises:
        WatermarkError: `too_large` over 2^22 parameters; `mismatch` for a missing, surplus or misshapen
            tensor; `malformed` for one that is not finite, or a std that is not positive.
    """
    parameters = (inputs + 1) * hidden + (hidden + 1) * 2 + 2 * inputs
    if parameters > PARAMETERS_MAX:
        raise WatermarkError(
            "too_large", f"a head of {parameters} parameters is over {PARAMETERS_MAX}: pool more or tap less"
        )
    head = Head(inputs=inputs, hidden=hidden)
    _check(tensors, head.state_dict())
    head.load_state_dict(dict(tensors))
    return head.eval()


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    if sorted(tensors) != sorted(expected):
        raise WatermarkError("mismatch", f"a head has the tensors {sorted(expected)}, not {sorted(tensors)}")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.shape != expected[name].shape:
            raise WatermarkError(
                "mismatch",
                f"head tensor {name!r} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"expected float32 {tuple(expected[name].shape)}",
            )
        if not bool(torch.isfinite(tensor).all()):
            raise WatermarkError("malformed", f"head tensor {name!r} holds a value that is not finite")
    if not bool((tensors["std"] > 0).all()):
        raise WatermarkError("malformed", "head tensor 'std' holds a value that is not positive")
