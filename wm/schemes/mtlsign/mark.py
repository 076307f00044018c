"""A mark that is being embedded: what stage 2 adds to the loss of a model's own task, for anybody's training loop.

    minimise  s·(CE_D_WM + λ2·R_DA + λ3·CE_negatives) + λ1·||W - W0||²  [+ the loss of the primary task]

where the cross-entropies are means over the triggers and s is 1, or N in the paper's form. W0 is the model as it was
when the mark was made. The taps are read in evaluation mode, whatever mode the model is in: triggers never touch the
statistics of a batch normalisation, dropout is off, and the branch trains on exactly what verification reads. R_DA is
the module `tuning_regularizer`'s, the negative controls are `negatives`'. At the end the head is trained alone, on
features that no longer change.

Source: Li et al. 2022, equations 7 to 10. The primary term is ours: without it task accuracy falls (SCHEMES 1.1-C).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wm.architectures import Architecture, OwnArchitecture
from wm.backbone import full_precision
from wm.computing import reproducible
from wm.data import Examples
from wm.errors import WatermarkError
from wm.head import distance_from_centre, initial_head, recentre
from wm.progress import ProgressCallback, silent
from wm.randomness import EndlessOrder, generator
from wm.savepoint import Stateful, fingerprint, prefixed, under
from wm.schemes.mtlsign.anchor import Anchor, distance
from wm.schemes.mtlsign.branch_loss import BranchLoss
from wm.schemes.mtlsign.history import MARKED, NEGATIVE, SHADOW, History
from wm.schemes.mtlsign.mark_files import write_mark
from wm.schemes.mtlsign.negatives import aligned, make_negatives, matched_by
from wm.schemes.mtlsign.preparation import check_precision, check_tuning, described
from wm.schemes.mtlsign.reading import Reading
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.schemes.mtlsign.shadows import Shadowing, TuningLoss
from wm.schemes.mtlsign.specificity import settled
from wm.schemes.mtlsign.tuning_regularizer import TuningRegularizer
from wm.triggers import Spec, make_triggers

# From here on, in deviations, a training is taken to have left the head's centre behind; `wm.embed` stays below half.
LEFT_BEHIND = 1.0
_KEY = "watermark key's hash"


class Mark:
    """Head, triggers and W0 of one watermark, for a training loop of the caller's own.

    ::

        mark = wm.Mark(model, key, taps=("layer2", "layer3"), input_spec=(3, 32, 32), tuning=examples)
        optimizer = torch.optim.Adam([*model.parameters(), *mark.parameters()], lr=1e-4)
        for images, labels in loader:
            loss = criterion(model(images), labels) + mark.loss(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        mark.finish(model)
        mark.save(directory, model)

    Any `nn.Module` will do whose tapped modules answer with channels, height and width. What comes of it depends on
    whether a stranger can rebuild the network:

    * With an `architecture` of the catalogue, what `save` writes is what `wmreg embed` writes: it can be published and
      claimed, since every node rebuilds the network by that name.
    * Without one the network is the caller's own. He measures suspects himself, `wm.verify(..., builder=...)`, with
      alignment, permutations and fresh controls. A publication of it can be made and shows later that the head is as
      old as it is; but nodes run no stranger's code: they find a claim on it UNVERIFIABLE, `unknown_architecture`.

    Make the mark when the primary training is done, on the model's final device, and train on gently: this is stage 2
    of the paper, and what was measured. Not of an untrained one: R_func would hold its training back.

    Attributes:
        head: c_WM, in float32; it belongs into the optimiser.
        info: how the head connects; `finish` may take the centre out of it.
        fresh_aligned: of a finished mark without negative controls, the triggers that fresh networks answer once they
            are aligned to the released model; empty where none can be made. Nodes ask for no more than 59 %.
        settings: the recipe; of its fields `steps` is how many calls of `loss` there will be, over which the shadows of
            R_DA are spread, and the rates of backbone and head are the caller's optimiser's own business.
    """

    def __init__(  # noqa: PLR0913 (the public face; all but the model and its key by name)
        self,
        model: nn.Module,
        watermark_key: bytes,
        *,
        taps: Sequence[str] | None = None,
        input_spec: Spec | tuple[int, int, int],
        architecture: Architecture | None = None,
        settings: EmbedSettings | None = None,
        tuning: Examples | TuningLoss | None = None,
        negatives: Sequence[nn.Module] = (),
        seed: int = 0,
    ) -> None:
        """Take the model as it is for W0 and make an untrained head for it.

        Args:
            model: with parameters in float32; left untouched. Its modules are read by hooks: give the module itself,
                not what DataParallel or torch.compile made of it.
            watermark_key: 32 bytes.
            taps: module paths, as `named_modules` gives them; by default the settings', or the architecture's.
            input_spec: what the model takes; channels, height and width alone stand for pixels in [0, 1] that are not
                normalised. Triggers are normalised as the model's own inputs are.
            architecture: what the model was built from, where it is of the catalogue; `OwnArchitecture(builder)` for an
                own one of which fresh negative controls are wanted.
            settings: the recipe, by default the measured one with or without negatives.
            tuning: what R_DA tunes copies of the model with, as a thief would: examples of a classification, or for any
                other task a function that returns a network's loss on the next batch.
            negatives: networks that must answer by chance, such as the public base that the model was fine-tuned from;
                on the model's device, left untouched.
            seed: decides the head's first weights and every order.

        Raises:
            WatermarkError: `unknown_architecture` for a tap that does not exist, never runs or answers with something
                else; `mismatch` for an input that the model does not take, parameters that are not float32, or a model
                that is not of the architecture; `malformed` or `too_large` for what no info may hold.
            ValueError: the key's length, or nothing to tune with.
        """
        self.settings = settings = settings or EmbedSettings.usual(tuning, has_base=bool(negatives))
        check_tuning(settings, tuning, negatives)
        check_precision(model)
        self.info = info = described(
            model, taps, input_spec, architecture or OwnArchitecture(), settings, has_negatives=bool(negatives)
        )
        triggers = make_triggers(watermark_key, info.input, count=info.triggers)
        self.fresh_aligned: tuple[int, ...] = ()
        self._key = torch.frombuffer(bytearray.fromhex(fingerprint(watermark_key)), dtype=torch.uint8)
        self._shadowing = shadowing = Shadowing(info, triggers, tuning, settings, seed)
        self._reading = Reading(model, info, triggers)
        controls = make_negatives(negatives, shadowing)
        self._anchor = Anchor(model, info)
        first = self._reading.all(model)
        self.head = initial_head(first, info.taps, pooling=info.pooling, hidden=info.hidden, seed=seed)
        self._regularizer = TuningRegularizer(shadowing)
        self._branch_loss = BranchLoss(
            self.head, self._reading.labels, self._regularizer, controls, settings, seed=seed
        )
        self._chosen = EndlessOrder(settings.triggers, settings.trigger_batch, generator(seed, "trigger order"))
        self._history = History(
            steps=settings.steps,
            pass_steps=-(-settings.triggers // settings.trigger_batch),
            curves=(MARKED, SHADOW, *([NEGATIVE] if controls else [])),
        )
        self._parts: dict[str, Stateful] = {
            "anchor": self._anchor,
            "branch": self._branch_loss,
            "shadows": self._regularizer,
            "order": self._chosen,
            "history": self._history,
        }
        self._scale = float(settings.triggers) if settings.reduction == "sum" else 1.0

    @property
    def curves(self) -> dict[str, list[list[float]]]:
        """By name, [step, share of the triggers] whenever a shadow was met and at the end."""
        return self._history.curves

    @property
    def latest(self) -> dict[str, Tensor]:
        """What the last `loss` measured, scalars by name as in `history`; reading a value waits for a GPU."""
        return self._history.latest

    @property
    def steps_done(self) -> int:
        """How often `loss` was called."""
        return self._history.steps

    @property
    def shadows_met(self) -> int:
        """Number of shadows that R_DA has looked at."""
        return self._regularizer.met

    @property
    def backbone_lr(self) -> float:
        """The recipe's rate for the model, Adam's, at the beginning."""
        return self.settings.backbone_lr * (self._anchor.typical_weight() if self.settings.scaled_lr else 1.0)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the head's parameters, for the optimiser."""
        return self.head.parameters()

    def loss(self, model: nn.Module) -> Tensor:
        """Return what stage 2 adds to the loss of the primary task; a scalar with a graph, in float32.

        Now and then, as the settings say, a shadow of the model is made first, which takes as long as some steps.

        Args:
            model: the one that the mark was made for, as it is now, in any mode, which is restored. The taps are read
                in the settings' precision; with float32 in the caller's autocast, if there is one.

        Raises:
            ValueError: the model is on another device, or lacks a parameter that the taps depend on.
        """
        settings, pairs = self.settings, self._anchor.paired(model)
        self._history.end_row()
        if settings.align_every and self.steps_done % settings.align_every == 0:
            self._align(model)
        if self._regularizer.is_due(self.steps_done):
            self._meet_shadow(model)
        chosen = next(self._chosen)
        labels = self._reading.labels[chosen].long()
        # The first of all terms, so that its gradient is added last: one seed goes on giving the same bits.
        with full_precision(self._reading.device):
            weight = self._scale * settings.lambda2
            fresh = self._regularizer.fresh_term(model, self.head, chosen, labels, weight=weight)
        read = self._reading.batch(model, chosen, settings)
        with full_precision(self._reading.device):
            terms = self._branch_loss.terms(read, chosen)
            loss = self._scale * terms.weighted(settings)
            if settings.lambda1:
                moved = distance(pairs)
                loss = loss + settings.lambda1 * moved
                self.record(function_loss=moved)
            self.record(**self._branch_loss.measured(terms, read, chosen))
        self._history.steps += 1
        return loss if fresh is None else fresh + loss

    def record(self, **values: Tensor | float) -> None:
        """Put measurements of the present step into the history, such as `task_loss`, the loss of the primary task.

        Args:
            values: scalars by name; call it after `loss`. A tensor's value is not waited for.
        """
        self._history.add(values)

    def history(self) -> list[dict[str, float]]:
        """Return what was measured on the way, a row for each pass over the triggers; docs/training.md names it all."""
        return self._history.rows()

    def finish(self, model: nn.Module, *, progress: ProgressCallback = silent) -> None:
        """Train the head alone, with Adam, on features that no longer change; call it after the last step.

        Where the training has moved the features far from W0's, on which the head is centred, it is centred on those
        of the released model first. Then fresh networks are read as verification aligns them: where they answer more
        triggers than chance explains, the info asks for no centre any more, unless the settings do. Beside negative
        controls, fresh networks among them, all stays as it is.

        Args:
            model: as it will be released.
            progress: called after every step.

        Raises:
            WatermarkError: `mismatch` where no weight in front of the taps has moved: the head alone answers then, and
                would of anybody's copy of the network as it was; `malformed` for answers that are not finite.
            ValueError: the model is on another device, or lacks a parameter that the taps depend on.
        """
        self._anchor.paired(model)
        if not self.weight_change(model):
            raise WatermarkError(
                "mismatch",
                "no weight in front of the taps has moved, so that the network does not carry the mark: let the "
                "optimiser train them, or choose taps behind what it trains",
            )
        self._history.end_row(early=True)
        if self.settings.align_every:
            self._align(model)
        read = self._reading.all(model)
        with full_precision(self._reading.device):
            if not self._branch_loss.negatives and distance_from_centre(self.head, read) > LEFT_BEHIND:
                recentre(self.head, read)
            self._branch_loss.train_head(read, self._chosen, progress=progress)
            if not self._branch_loss.negatives:
                self.info, self.fresh_aligned = settled(
                    model,
                    self.head,
                    self.info,
                    self._shadowing.triggers,
                    seed=self._shadowing.seed,
                    keeps_centre=self.settings.centred is True,
                )
        self._note(read)

    def matched(self, model: nn.Module) -> int:
        """Count the triggers that a model answers as the key demands, read as verification reads it.

        Args:
            model: any whose taps have these channels, on any device, in any mode, which is restored.

        Returns:
            An integer in [0, info.triggers].
        """
        with reproducible():
            return self._reading.matched(self.head, self._reading.all(model))

    def weight_change(self, model: nn.Module) -> float:
        """Return ||W - W0|| over the tapped prefix, relative to ||W0||."""
        return self._anchor.relative_change(model)

    def negatives_matched(self) -> dict[str, int]:
        """Count for each negative control the triggers that it answers as the key demands."""
        return matched_by(self.head, self._branch_loss.negatives, self._reading.labels)

    def state_dict(self) -> dict[str, Tensor]:
        """Return everything of the mark that a training changes, and W0; not copies. It is as secret as the head.

        Keep it together with the states of the model, of the optimiser and of the loop's own orders and generators.
        """
        states = (prefixed(name, part.state()) for name, part in self._parts.items())
        return {_KEY: self._key, **{name: value for state in states for name, value in state.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state, with the bits that would have come without the interruption.

        Args:
            state: of a mark that was made of the same model, key, settings and seed as this one; the model may have
                been trained since then.

        Raises:
            WatermarkError: `mismatch`, it is of a mark of another shape or key.
        """
        if _KEY not in state or not torch.equal(state[_KEY].cpu(), self._key):
            raise WatermarkError("mismatch", "the state is of a mark with another watermark key")
        for name, part in self._parts.items():
            part.restore(under(name, state))

    def save(self, directory: Path | str, model: nn.Module, *, base: Path | None = None) -> None:
        """Write `model.safetensors` and `evidence.safetensors`, as a bundle of `wmreg embed` has them.

        Beside a `watermark_key.json` of the same key (`wmreg keygen --watermark-key`) that is a bundle, to be published
        before the model is released. The evidence is readable by its owner only, and secret until a claim.

        Args:
            directory: made if there is none; files of these names are replaced.
            model: as it will be released, in any mode.
            base: the public weights that the model was fine-tuned from, safetensors: declared, and copied beside.

        Raises:
            WatermarkError: `malformed` for weights that are not finite; `mismatch` for a model that no node could read,
                such as one in half precision.
            OSError: the directory cannot be written.
        """
        write_mark(Path(directory), model, self.head, self.info, base=base)

    def _align(self, model: nn.Module) -> None:
        if self._branch_loss.negatives and self.settings.negative_weight:
            with full_precision(self._reading.device):
                self._branch_loss.negatives = aligned(self._branch_loss.negatives, model, self._shadowing)

    def _meet_shadow(self, model: nn.Module) -> None:
        with full_precision(self._reading.device):
            read = self._regularizer.meet(model)
        self._history.note(SHADOW, self._reading.share(self.head, read))
        self._note(self._reading.all(model))

    def _note(self, read: Tensor) -> None:
        """Put the marked share, and the greatest of the negative controls, into the curves."""
        self._history.note(MARKED, self._reading.share(self.head, read))
        if self._branch_loss.negatives:
            reads = [read for negative in self._branch_loss.negatives for read in negative.reads]
            self._history.note(NEGATIVE, max(self._reading.share(self.head, read) for read in reads))
