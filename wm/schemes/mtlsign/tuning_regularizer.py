"""R_DA, the tuning regulariser: the branch must answer rightly for what a thief's tuning makes of the model, W^t.

    R_DA = mean of CE(head(f^{W^t}(x)), y)

Differentiating it through the tuning itself is out of reach, and the straight-through estimate
`h(f + (f_shadow - f).detach())` is a constant with a constant gradient, which diverges (SCHEMES 0, item 6). Left is
the choice of whom it teaches:

* `head`: the head alone, on features of shadows that stay as they were when they were made (the authors' code).
* `fomaml`: the head likewise, and the backbone by the gradient at W^t as if it were one at W, once for each shadow and
  at the step at which it is fresh: a gradient at weights that the model has left long ago points nowhere.
* `delta`: head and backbone, through f_W(x) + δ. δ = f_{W^t}(x) - f_{W_snap}(x) is the tuning's own shift, a constant
  stored when the shadow was made; a δ that follows the present f_W would be the straight-through estimate again.

In each a shadow's features are taken as a verifier reads them. Where he centres them (`wm.alignment`), their mean over
the triggers, which is what tuning moves most, is put back to the model's own. A head that meets the shift itself spends
itself on it: of the triggers that a fine-tuning at 1e-3 leaves it kept 10 points less (docs/attacks.md).

Sources: Li et al. 2022, equation 9; Finn, Abbeel, Levine 2017, section 5.2 (first-order MAML); SCHEMES 5.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from wm.backbone import evaluating, features, features_in_evaluation
from wm.head import Head
from wm.randomness import generator
from wm.savepoint import State, prefixed, under
from wm.schemes.mtlsign.shadows import Shadowing, shadow_of


class TuningRegularizer:
    """The shadows of one embedding, met one after the other, and what each teaches.

    Args:
        shadowing: what every shadow shares; its settings say which form R_DA takes.
    """

    def __init__(self, shadowing: Shadowing) -> None:
        self._shadowing, self._settings = shadowing, shadowing.settings
        self._draws = generator(shadowing.seed, "shadow drawn")
        probing = shadowing.info.reference
        self._is_centred = probing is not None and probing.centred
        self._kept: list[Tensor] = []  # features of shadows, or with `delta` their shifts; shape (triggers, d)
        self._fresh: tuple[nn.Module, Tensor] | None = None  # only with `fomaml`: W^t, its shift

    @property
    def met(self) -> int:
        """Number of shadows so far."""
        return len(self._kept)

    def is_due(self, step: int) -> bool:
        """Whether a new shadow is to be met before this step."""
        settings = self._settings
        if settings.tuning_regularizer == "none" or not settings.shadows:
            return False
        # The first fifth is left to the mark itself: R_DA needs something to protect.
        start = settings.steps // 5
        every = max(1, (settings.steps - start) // settings.shadows)
        return step >= start and (step - start) % every == 0 and self.met < settings.shadows

    def meet(self, model: nn.Module) -> Tensor:
        """Make the next shadow of the model as it is now; return its features as they are kept, shape (triggers, d)."""
        shadow = shadow_of(model, self._shadowing, number=self.met)
        read, present = self._read(shadow), self._read(model)
        shift = present.mean(0) - read.mean(0) if self._is_centred else torch.zeros_like(read[0])
        if self._settings.tuning_regularizer == "fomaml":
            self._fresh = (shadow, shift)
        read = read + shift
        is_delta = self._settings.tuning_regularizer == "delta"
        self._kept.append(read - present if is_delta else read)
        return read

    def tuned(self, read: Tensor, chosen: Tensor) -> Tensor | None:
        """Features of one shadow drawn at random; None while there is none.

        The paper sums over the shadows; drawing one has the same expectation at a fraction of the cost.

        Args:
            read: the present model's features of the chosen triggers, shape (chosen, d); `delta` adds to them.
            chosen: which triggers, int64.
        """
        if not self._kept:
            return None
        drawn = int(torch.randint(self.met, (), generator=self._draws))
        self._kept[drawn] = self._kept[drawn].to(read.device)  # what was restored is on the CPU
        kept = self._kept[drawn][chosen]
        return read + kept if self._settings.tuning_regularizer == "delta" else kept

    def fresh_term(
        self, model: nn.Module, head: Head, chosen: Tensor, labels: Tensor, *, weight: float
    ) -> Tensor | None:
        """With `fomaml`, a term of value 0 whose gradient at W is weight · ∇CE at a fresh W^t; else None.

        Args:
            model: W.
            head: what reads the taps; it gets no gradient, it learns from `tuned`.
            chosen: which triggers, int64.
            labels: of the chosen, int64.
            weight: λ2, times what stands before the sum.
        """
        fresh, self._fresh = self._fresh, None
        if fresh is None:
            return None
        shadow, shift = fresh
        info = self._shadowing.info
        images = self._shadowing.triggers.images[chosen.cpu()].to(head.mean.device)
        with evaluating(shadow):
            read = features(shadow, info.modules, images, pooling=info.pooling)
        values = [value for value in shadow.parameters() if value.requires_grad]
        loss = weight * F.cross_entropy(head(read + shift), labels)
        gradients = torch.autograd.grad(loss, values, allow_unused=True)  # nothing behind the last tap has one
        present = [value for value in model.parameters() if value.requires_grad]
        terms = [
            (gradient * (value - value.detach())).sum()
            for value, gradient in zip(present, gradients, strict=True)
            if gradient is not None
        ]
        return torch.stack(terms).sum()

    def state(self) -> State:
        """Return what is kept of the shadows, and the generator that draws them."""
        kept = {str(number): it for number, it in enumerate(self._kept)}
        return {**prefixed("kept", kept), "draws": self._draws.get_state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to a state; between steps no shadow is fresh."""
        kept = under("kept", state)
        self._kept = [kept[str(number)] for number in range(len(kept))]
        self._draws.set_state(state["draws"])

    def _read(self, model: nn.Module) -> Tensor:
        info = self._shadowing.info
        return features_in_evaluation(model, info.modules, self._shadowing.triggers.images, pooling=info.pooling)
