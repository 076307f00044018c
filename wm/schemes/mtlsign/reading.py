"""The triggers of one key, as a model in training and its head answer them."""

import torch
from torch import Tensor, nn

from wm.backbone import computing_in, device_of, differentiable, evaluating, features, features_in_evaluation
from wm.branch import agreements, logit_margins
from wm.head import Head
from wm.info import Info
from wm.schemes.mtlsign.preparation import memory_format
from wm.schemes.mtlsign.settings import EmbedSettings
from wm.triggers import Triggers


class Reading:
    """Reads the taps in evaluation mode, whatever mode the model is in, for the training and for counts.

    Args:
        model: lends its device and its memory format.
        info: how the head connects.
        triggers: of the key.

    Attributes:
        device: where the model is.
        labels: the key's, bool, shape (triggers,), there.
    """

    def __init__(self, model: nn.Module, info: Info, triggers: Triggers) -> None:
        self.device = device_of(model)
        self.labels = triggers.labels.to(self.device)
        self._info = info
        self._images = triggers.images.to(self.device, memory_format=memory_format(model))

    def batch(self, model: nn.Module, chosen: Tensor, settings: EmbedSettings) -> Tensor:
        """Read a batch with gradients, in the settings' precision.

        Args:
            model: as it is now.
            chosen: which triggers, int64.
            settings: the recipe.

        Returns:
            Shape (chosen, d), float32.
        """
        with evaluating(model), differentiable(model), computing_in(settings.precision, self.device):
            return features(model, self._info.modules, self._images[chosen], pooling=self._info.pooling)

    def all(self, model: nn.Module) -> Tensor:
        """Read all triggers as verification does, without gradients; shape (triggers, d)."""
        return features_in_evaluation(model, self._info.modules, self._images, pooling=self._info.pooling)

    @torch.no_grad()
    def matched(self, head: Head, read: Tensor) -> int:
        """Count the triggers that a head answers as the key demands, reading (triggers, d)."""
        return int(agreements(logit_margins(head, read.to(self.device)), self.labels).sum())

    def share(self, head: Head, read: Tensor) -> float:
        """The same as a share of all triggers."""
        return self.matched(head, read) / len(self.labels)
