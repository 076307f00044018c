"""What the head answers, on the model, on its shadows and on the negative controls, as one loss.

    s·(CE_D_WM + λ2·R_DA + λ3·CE_negatives), each a mean over the triggers of the step; s is 1, or N in the paper's form

Source: Li et al. 2022, equations 7 to 10.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from wm.branch import logit_margins
from wm.head import Head
from wm.progress import Progress, ProgressCallback
from wm.randomness import generator
from wm.savepoint import State, fill, prefixed, under
from wm.schemes.mtlsign.negatives import Negative, negative_loss
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.tuning_regularizer import TuningRegularizer
from wm.training import cosine, set_rate


@dataclass(frozen=True, slots=True)
class Terms:
    """Cross-entropies of one step, each a scalar with a graph, without its weight; None where there is no such term."""

    mark: Tensor
    tuned: Tensor | None
    negatives: Tensor | None

    def weighted(self, settings: EmbedSettings) -> Tensor:
        """Their sum, weighted as the settings say, without s."""
        loss = self.mark
        if self.tuned is not None:
            loss = loss + settings.lambda2 * self.tuned
        if self.negatives is not None:
            loss = loss + settings.negative_weight * self.negatives
        return loss


class BranchLoss:
    """The loss of one head.

    Args:
        head: being trained.
        labels: the key's, bool, shape (triggers,).
        regularizer: has met the shadows.
        negatives: the negative controls; none for a mark without.
        settings: the recipe.
        seed: decides the noise.

    Attributes:
        negatives: the negative controls, as they are read now.
    """

    def __init__(
        self,
        head: Head,
        labels: Tensor,
        regularizer: TuningRegularizer,
        negatives: Sequence[Negative],
        settings: EmbedSettings,
        *,
        seed: int,
    ) -> None:
        self._head, self._labels, self._settings = head, labels, settings
        self._regularizer, self.negatives = regularizer, list(negatives)
        self._noise = generator(seed, "feature noise")

    def terms(self, read: Tensor, chosen: Tensor) -> Terms:
        """Answer for the present model, for a shadow drawn at random and for the negative controls.

        Args:
            read: the present model's features of the chosen triggers, float32, shape (chosen, d).
            chosen: which triggers, int64.
        """
        labels = self._labels[chosen].long()
        mark = F.cross_entropy(self._head(self._noisy(read)), labels)
        tuned = self._regularizer.tuned(read, chosen)
        tuned_term = None if tuned is None else F.cross_entropy(self._head(self._noisy(tuned)), labels)
        negatives = None
        if self.negatives and self._settings.negative_weight:
            negatives = negative_loss(self._head, self.negatives, chosen, noisy=self._noisy)
        return Terms(mark, tuned_term, negatives)

    def train_head(self, read: Tensor, order: Iterator[Tensor], *, progress: ProgressCallback) -> None:
        """Train the head alone, with Adam and a rate that falls along a cosine.

        Args:
            read: the finished model's features of all triggers, float32, shape (triggers, d).
            order: which triggers, step by step.
            progress: called after every step.
        """
        steps, lr = self._settings.head_steps, self._settings.head_lr
        optimizer = torch.optim.Adam(self._head.parameters(), lr=lr, fused=True)
        for step in range(steps):
            set_rate(optimizer, lr * cosine(step, steps))
            chosen = next(order)
            optimizer.zero_grad()
            torch.autograd.backward(self.terms(read[chosen], chosen).weighted(self._settings))
            optimizer.step()
            progress(Progress("finishing the head", step + 1, steps))

    @torch.no_grad()
    def measured(self, terms: Terms, read: Tensor, chosen: Tensor) -> dict[str, Tensor]:
        """Return what a step tells of itself, by name; the shares are of the step's triggers, answered without noise.

        Args:
            terms: of the step.
            read: the present model's features of the chosen triggers, float32, shape (chosen, d).
            chosen: which triggers, int64.
        """
        losses = {"mark_loss": terms.mark, "tuning_loss": terms.tuned, "negative_loss": terms.negatives}
        values = {name: loss for name, loss in losses.items() if loss is not None}
        values["matched"] = self._share(read, chosen)
        if self.negatives:
            shares = [[self._share(read[chosen], chosen) for read in negative.reads] for negative in self.negatives]
            values["negatives_matched"] = torch.stack([torch.stack(readings).max() for readings in shares])
        return values

    def state(self) -> State:
        """Return the head, what is known of the negative controls, and the noise's generator."""
        return {
            **prefixed("head", self._head.state_dict()),
            **prefixed("negatives", self._reads()),
            "noise": self._noise.get_state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state; errors as of `fill`."""
        fill(self._head.state_dict(), under("head", state))
        reads = under("negatives", state)
        # How often a control was read follows from the settings and the step: as it is, and aligned.
        self.negatives = [
            replace(it, reads=tuple(torch.empty_like(it.reads[0]) for _ in under(str(number), reads) or "0"))
            for number, it in enumerate(self.negatives)
        ]
        fill(self._reads(), reads)
        self._noise.set_state(state["noise"])

    def _reads(self) -> State:
        return {
            f"{number}.{reading}": read
            for number, it in enumerate(self.negatives)
            for reading, read in enumerate(it.reads)
        }

    def _share(self, read: Tensor, chosen: Tensor) -> Tensor:
        # Unlike a count for a report, a training that diverges is not stopped here: its weights will be refused.
        return ((logit_margins(self._head, read) > 0) == self._labels[chosen]).float().mean()

    def _noisy(self, read: Tensor) -> Tensor:
        if not self._settings.feature_noise:
            return read
        noise = torch.randn(read.shape, generator=self._noise).to(read.device)
        return read + self._settings.feature_noise * self._head.std * noise
