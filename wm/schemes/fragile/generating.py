"""Training the generator: triggers that are classified as the key says, and barely.

    loss = CE(M(G(z)), labels) + 150 Var(all posteriors of all triggers)

The posteriors of a trigger add up to 1, so the mean of all of them is 1/C whatever the network says, and their variance
is a sum over triggers. So triggers are taken in parts, which bounds the memory, and the loss is the paper's still.

The pixels that the network is shown are rounded to 8 bits already; gradients pass the rounding as if it were not there.

Source: Yin et al. 2022, loss and recipe; SCHEMES 1.3.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import device_of
from wm.pixels import LEVELS
from wm.progress import Progress, ProgressCallback
from wm.randomness import generator
from wm.schemes.fragile.drawing import draw_latents, weight_seed
from wm.schemes.fragile.generator import Generator
from wm.schemes.fragile.settings import Boundary, Settings
from wm.schemes.scheme import ClassTriggers
from wm.triggers import InputSpec


class Generating:
    """A generator in training, and what it makes of the key's latents.

    Args:
        model: the network to mark, in evaluation mode, without parameters that need gradients.
        spec: what it takes.
        labels: the key's, int64, shape (n,).
        watermark_key: 32 bytes.
        settings: the recipe.
        seed: decides, with the key, the first weights.
    """

    def __init__(
        self, model: nn.Module, spec: InputSpec, labels: Tensor, watermark_key: bytes, settings: Settings, *, seed: int
    ) -> None:
        self._model, self._spec, self._labels = model, spec, labels
        self._key, self._settings = watermark_key, settings
        self._place = device_of(model)
        draws = generator("fragile generator", weight_seed(watermark_key), seed)
        self._generator = Generator(
            latent=settings.latent,
            width=settings.width,
            channels=spec.channels,
            height=spec.height,
            width_pixels=spec.width,
            draws=draws,
        ).to(self._place)
        mean, std = (
            torch.tensor([float(value) for value in values], device=self._place)[:, None, None]
            for values in (spec.normalisation.mean, spec.normalisation.std)
        )
        self._mean, self._std = mean, std

    def train(self, progress: ProgressCallback) -> list[dict[str, float]]:
        """Train until all labels match, or to the last iteration.

        Returns:
            Of each iteration the loss's parts and how many triggers matched.
        """
        settings = self._settings
        optimizer = torch.optim.Adam(
            self._generator.parameters(), lr=settings.lr, betas=(settings.beta1, settings.beta2)
        )
        latents = self._latents(attempt=0)
        history: list[dict[str, float]] = []
        for iteration in range(settings.iterations):
            optimizer.zero_grad()
            row = self._accumulate(latents)
            history.append(row)
            detail = f"{row['matched']:.0f} of {settings.triggers} match"
            progress(Progress("generator", iteration + 1, settings.iterations, detail))
            if row["matched"] == settings.triggers:
                break
            optimizer.step()
        return history

    @torch.no_grad()
    def triggers(self, *, attempt: int) -> ClassTriggers:
        """Make triggers of the latents of an attempt, from 0; those of the first are what the generator learnt on."""
        latents = self._latents(attempt=attempt)
        parts = [(self._generator(part) * LEVELS).round().to(torch.uint8).cpu() for part, _ in self._parts(latents)]
        return ClassTriggers(torch.cat(parts), self._labels)

    def _latents(self, *, attempt: int) -> Tensor:
        count = len(self._labels)
        drawn = draw_latents(self._key, first=attempt * count, count=count, size=self._settings.latent)
        return drawn.to(self._place)

    def _parts(self, latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        batch = self._settings.batch
        return zip(torch.split(latents, batch), torch.split(self._labels.to(self._place), batch), strict=True)

    def _accumulate(self, latents: Tensor) -> dict[str, float]:
        """Add the gradient of the whole loss to the generator's parameters."""
        total, settings = len(latents), self._settings
        row = {"cross_entropy": 0.0, "variance": 0.0, "matched": 0.0}
        for part, labels in self._parts(latents):
            logits = self._model(self._shown(self._generator(part)))
            entropy = F.cross_entropy(logits, labels, reduction="sum") / total
            variance = variance_share(logits, labels, settings.boundary, total=total)
            torch.autograd.backward(entropy + settings.variance_weight * variance)
            row["cross_entropy"] += float(entropy.detach())
            row["variance"] += float(variance.detach())
            row["matched"] += float((logits.argmax(1) == labels).sum())
        return row

    def _shown(self, unit: Tensor) -> Tensor:
        """Round pixels in [0, 1] to 8 bits, with the gradient of not rounding, and normalise them."""
        rounded = unit + ((unit * LEVELS).round() / LEVELS - unit).detach()
        return (rounded - self._mean) / self._std


def variance_share(logits: Tensor, labels: Tensor, boundary: Boundary, *, total: int) -> Tensor:
    """Return what some triggers add to the variance of the posteriors of all.

    Args:
        logits: shape (n, classes).
        labels: int64, shape (n,).
        boundary: whether all classes shall tie, or the label and the nearest other alone.
        total: how many triggers there are in all.
    """
    if boundary == "pair":
        labelled = logits.gather(1, labels[:, None])
        nearest = logits.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True)
        logits = torch.cat([labelled, nearest], 1)
    classes = logits.shape[1]
    return (logits.softmax(1) - 1 / classes).square().sum() / (total * classes - 1)
