"""Mask R-CNNs of our own making, from torchvision's parts: with a cascade of box heads, and small enough for a CPU.

    cascade_maskrcnn_resnet50_fpn   the paper's network for instance segmentation
    cascade_maskrcnn_resnet18_fpn   the same on a ResNet-18, narrow
    maskrcnn_resnet18_fpn           with one box head, narrow

In front of the proposals their modules and tensors have the names of torchvision's `maskrcnn_resnet50_fpn`, so that
weights of that network fill all but the box heads of the cascade on a ResNet-50.

Source: Li et al. 2022, section 4.1 (ResNet-50 and Cascade Mask R-CNN); He et al., "Mask R-CNN", ICCV 2017.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import nn
from torchvision.models import ResNet, resnet18, resnet50
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads

from wm.networks.cascade import CascadeRoIHeads, Stage

ANCHOR = 32  # pixels
SAMPLES = 512
_SAMPLES_LEAST = 64
_SMALL_SIDE = 128  # pixels, up to which these do on a ResNet-18
_SMALL = {"channels": 32, "hidden": 128}
_LEVELS = 5  # of the pyramid: four stages of the ResNet, and the last one once more at half the size
_RATIOS = (0.5, 1.0, 2.0)
_REGION = 7  # cells per side of a pooled region

_PIXELS = (int, 16, 1024)
SIZES: dict[str, tuple[type, int, int]] = {"min_size": _PIXELS, "max_size": _PIXELS}  # as torchvision's networks take
# Argument -> type, least, most, as the catalogue checks them.
ARGUMENTS: dict[str, tuple[type, int, int]] = SIZES | {
    "anchor": (int, 4, 128),
    "channels": (int, 8, 512),
    "hidden": (int, 8, 4096),
    "samples": (int, 16, 2048),
}


def mask_rcnn(  # noqa: PLR0913 (what the catalogue lets a stranger choose, by name)
    *,
    resnet: Callable[..., ResNet],
    is_cascade: bool,
    num_classes: int = 91,
    min_size: int = 800,
    max_size: int = 1333,
    anchor: int = ANCHOR,
    channels: int = 256,
    hidden: int = 1024,
    samples: int = SAMPLES,
) -> nn.Module:
    """Build a freshly initialised network.

    Args:
        resnet: torchvision's builder of the ResNet in its backbone.
        is_cascade: three box heads in place of one.
        num_classes: with the background, 0.
        min_size: pixels to which a picture's shorter side is brought.
        max_size: pixels which its longer side may have.
        anchor: side of the smallest anchors in pixels; each level of the pyramid doubles it.
        channels: of the feature pyramid.
        hidden: width of the box heads.
        samples: proposals of each picture from which the box heads learn.
    """
    body = resnet(weights=None)
    widths = [body.fc.in_features >> shift for shift in (3, 2, 1, 0)]
    layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    inputs = channels * _REGION**2
    model: nn.Module = MaskRCNN(
        BackboneWithFPN(body, layers, widths, channels),
        min_size=min_size,
        max_size=max_size,
        rpn_anchor_generator=AnchorGenerator(
            tuple((anchor << level,) for level in range(_LEVELS)), (_RATIOS,) * _LEVELS
        ),
        box_batch_size_per_image=samples,
        box_head=nn.Identity() if is_cascade else TwoMLPHead(inputs, hidden),
        box_predictor=nn.Identity() if is_cascade else FastRCNNPredictor(hidden, num_classes),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes),
    )
    if is_cascade:
        plain = cast("RoIHeads", model.get_submodule("roi_heads"))
        cascade = CascadeRoIHeads(plain, inputs=inputs, hidden=hidden, num_classes=num_classes, samples=samples)
        model.add_module("roi_heads", cascade)
    return model


def arguments_for(name: str, side: int) -> dict[str, int]:
    """Choose sizes for pictures of one size, so that a network neither resizes them nor wastes work on small ones.

    Args:
        name: of a Mask R-CNN in the catalogue, torchvision's or ours.
        side: pixels, at least 32.

    Returns:
        Arguments that it takes: the smallest anchors are an eighth of the side, 32 pixels at most.
    """
    sizes = {"min_size": side, "max_size": side}
    if name not in BUILDERS:
        return sizes
    sizes |= {"anchor": min(ANCHOR, side // 8), "samples": min(SAMPLES, max(_SAMPLES_LEAST, side))}
    is_small = "resnet18" in name and side <= _SMALL_SIDE
    return sizes | (_SMALL if is_small else {})


def predictors(model: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    """List the layers with which a Mask R-CNN, torchvision's or ours, answers: scores, boxes and masks; maybe none."""
    found: list[nn.Module] = []
    for part in model.modules():
        if isinstance(part, FastRCNNPredictor):
            found += [part.cls_score, part.bbox_pred]
        elif isinstance(part, Stage):
            found += [part.scores, part.offsets]
        elif isinstance(part, MaskRCNNPredictor):
            found.append(part.get_submodule("mask_fcn_logits"))
    return [layer for layer in found if isinstance(layer, nn.Linear | nn.Conv2d)]


_NARROW = partial(mask_rcnn, resnet=resnet18, channels=64, hidden=256)
BUILDERS: dict[str, Callable[..., nn.Module]] = {
    "cascade_maskrcnn_resnet18_fpn": partial(_NARROW, is_cascade=True),
    "cascade_maskrcnn_resnet50_fpn": partial(mask_rcnn, resnet=resnet50, is_cascade=True),
    "maskrcnn_resnet18_fpn": partial(_NARROW, is_cascade=False),
}
