"""Box heads in cascade: three detectors in a row, each for a greater overlap, on boxes that the one before refined.

    proposals -> stage 0 (IoU 0.5) -> boxes -> stage 1 (0.6) -> boxes -> stage 2 (0.7) -> boxes, masks

A head that is trained for an overlap of 0.7 sees too few positive samples among raw proposals; the refined boxes of a
stage are better than what it was given, so the next one can ask for more. Only the first stage samples; the later ones
take all of its boxes. Boxes are refined without regard to the class. In evaluation the class is the mean of the three
stages' answers. There is one mask branch: it learns on the first stage's positive samples, as torchvision's does, and
answers for the last stage's boxes.

Source: Cai and Vasconcelos, "Cascade R-CNN: Delving into High Quality Object Detection", CVPR 2018, sections 4 and 5;
the losses' weights of the stages and the deviations of their targets are those of the usual implementations.
"""

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import box_iou, clip_boxes_to_image

OVERLAPS = (0.5, 0.6, 0.7)  # IoU from which a box counts as an object's, by stage
LOSS_WEIGHTS = (1.0, 0.5, 0.25)
# A box's offsets are learnt in these units, finer with each stage, since less is left to refine.
BOX_WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
SMOOTHNESS = 1 / 9  # of the L1 loss of boxes: torchvision's
Targets = list[dict[str, Tensor]]
Sizes = list[tuple[int, int]]  # of pictures: height and width in pixels


class Stage(nn.Module):
    """One detector of the cascade."""

    def __init__(self, number: int, *, inputs: int, hidden: int, num_classes: int) -> None:
        """Allocate and initialise.

        Args:
            number: from 0; decides the overlap.
            inputs: values of a pooled region.
            hidden: width of the two layers.
            num_classes: with the background, 0.
        """
        super().__init__()
        self.head = TwoMLPHead(inputs, hidden)
        self.scores = nn.Linear(hidden, num_classes)
        self.offsets = nn.Linear(hidden, 4)  # one box for all classes
        self.coder = BoxCoder(BOX_WEIGHTS[number])
        self.weight = LOSS_WEIGHTS[number]
        self._matcher = Matcher(OVERLAPS[number], OVERLAPS[number], allow_low_quality_matches=False)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Map pooled regions (n, channels, height, width) to logits (n, num_classes) and offsets (n, 4)."""
        read = self.head(regions)
        return self.scores(read), self.offsets(read)

    def refined(self, offsets: Tensor, boxes: list[Tensor], image_shapes: Sizes) -> list[Tensor]:
        """Move boxes by offsets, and clip them to their pictures; without a graph, since boxes are no features.

        Args:
            offsets: shape (n, 4), of all pictures' boxes together.
            boxes: per picture, shape (k, 4).
            image_shapes: per picture, height and width in pixels.
        """
        moved = self.coder.decode(offsets.detach(), boxes).reshape(-1, 4).split([len(it) for it in boxes])
        return [clip_boxes_to_image(it, shape) for it, shape in zip(moved, image_shapes, strict=True)]

    def losses(self, answer: tuple[Tensor, Tensor], boxes: list[Tensor], targets: Targets) -> tuple[Tensor, Tensor]:
        """Cross-entropy over all boxes, and smooth L1 over those that are an object's; both weighted, scalars.

        Args:
            answer: what `forward` gave for the boxes.
            boxes: per picture, shape (k, 4).
            targets: per picture, `boxes` and `labels` of its objects.
        """
        logits, offsets = answer
        matched = [self._matched(it, target) for it, target in zip(boxes, targets, strict=True)]
        labels = torch.cat([each for each, _ in matched])
        wanted = torch.cat(list(self.coder.encode([to for _, to in matched], boxes)))
        is_object = labels > 0
        off = F.smooth_l1_loss(offsets[is_object], wanted[is_object], beta=SMOOTHNESS, reduction="sum")
        return self.weight * F.cross_entropy(logits, labels), self.weight * off / max(1, len(labels))

    def _matched(self, boxes: Tensor, target: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Each box's label, 0 for none, and the box of the object that it overlaps most."""
        if not len(target["boxes"]):
            return torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device), boxes
        found = self._matcher(box_iou(target["boxes"], boxes))
        nearest = found.clamp_min(0)
        return target["labels"][nearest] * (found >= 0), target["boxes"][nearest]


class CascadeRoIHeads(RoIHeads):
    """What torchvision's Mask R-CNN does behind the proposals, with three stages in place of one."""

    def __init__(self, plain: RoIHeads, *, inputs: int, hidden: int, num_classes: int, samples: int) -> None:
        """Take over pooling, thresholds and the mask branch of a plain one.

        Args:
            plain: of a Mask R-CNN; its box head and predictor are not used.
            inputs: values of a pooled region.
            hidden: width of the box heads.
            num_classes: with the background, 0.
            samples: proposals of each picture from which the box heads learn.
        """
        super().__init__(
            plain.box_roi_pool,
            None,
            None,
            fg_iou_thresh=OVERLAPS[0],
            bg_iou_thresh=OVERLAPS[0],
            batch_size_per_image=samples,
            positive_fraction=0.25,
            bbox_reg_weights=BOX_WEIGHTS[-1],  # of the boxes that are made detections of
            score_thresh=plain.score_thresh,
            nms_thresh=plain.nms_thresh,
            detections_per_img=plain.detections_per_img,
            mask_roi_pool=plain.mask_roi_pool,
            mask_head=plain.mask_head,
            mask_predictor=plain.mask_predictor,
        )
        self.stages = nn.ModuleList(
            Stage(number, inputs=inputs, hidden=hidden, num_classes=num_classes) for number in range(len(OVERLAPS))
        )

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: Targets | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Give losses in training mode and detections in evaluation mode; arguments and answers as of `RoIHeads`."""
        if self.training and targets is not None:
            return [], self._losses(features, proposals, image_shapes, targets)
        return self._detections(features, proposals, image_shapes), {}

    def _in_order(self) -> Iterable[Stage]:
        return cast("Iterable[Stage]", self.stages)

    def _losses(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: Sizes,
        targets: Targets,
    ) -> dict[str, Tensor]:
        boxes, matched, labels, _ = self.select_training_samples(proposals, targets)
        losses = {"loss_mask": self._mask_loss(features, image_shapes, targets, (boxes, matched, labels))}
        for number, stage in enumerate(self._in_order()):
            answer = stage(self.box_roi_pool(features, boxes, image_shapes))
            classifier, box = stage.losses(answer, boxes, targets)
            losses |= {f"loss_classifier_{number}": classifier, f"loss_box_reg_{number}": box}
            boxes = stage.refined(answer[1], boxes, image_shapes)
        return losses

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        image_shapes: Sizes,
        targets: Targets,
        samples: tuple[list[Tensor], list[Tensor], list[Tensor]],
    ) -> Tensor:
        positive = [label > 0 for label in samples[2]]
        boxes, matched = ([it[chosen] for it, chosen in zip(part, positive, strict=True)] for part in samples[:2])
        masks, classes = ([target[name] for target in targets] for name in ("masks", "labels"))
        loss: Tensor = maskrcnn_loss(self._mask_logits(features, boxes, image_shapes), boxes, masks, classes, matched)
        return loss

    def _mask_logits(self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: Any) -> Tensor:  # noqa: ANN401
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
        return logits

    def _detections(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        image_shapes: Sizes,
    ) -> list[dict[str, Tensor]]:
        shares, offsets, given = [], torch.empty(0), boxes
        for stage in self._in_order():
            given = boxes
            logits, offsets = stage(self.box_roi_pool(features, given, image_shapes))
            shares.append(logits.softmax(1))
            boxes = stage.refined(offsets, given, image_shapes)
        mean = torch.stack(shares).mean(0)
        # torchvision's own last step takes logits, and offsets of each class: the softmax of log p is p.
        found = self.postprocess_detections(mean.log(), offsets.repeat(1, mean.shape[1]), given, image_shapes)
        result = [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*found, strict=True)]
        logits = self._mask_logits(features, found[0], image_shapes)
        for each, masks in zip(result, maskrcnn_inference(logits, found[2]), strict=True):
            each["masks"] = masks
        return result
