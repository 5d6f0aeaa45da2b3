"""The training loss: named scalar terms for both branches (YOLO26, arXiv:2606.03748).

Each branch has a CIoU, a class and an L1 term. ``DetectionLoss`` explains how they are scaled.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from detector.batch import Size, Target
from detector.network.boxes import boxes_to_distances, complete_iou, distances_to_boxes
from detector.network.head import BranchName, BranchOutput, RawOutput
from detector.training.assigner import FlatTargets, Matches, assign


def one2many_weight_at(epoch: float, max_epochs: int | None) -> float:
    """Return the weight of the one-to-many branch in ``epoch`` (0-based), from 0.8 down to 0.1 in the last epoch.

    It depends on the epoch alone, so a resumed run continues it. With endless training (``max_epochs`` None or -1) it
    stays 0.8.
    """
    if max_epochs is None or max_epochs < 0:
        return 0.8
    return 0.1 + 0.7 * max(1 - epoch / max(max_epochs - 1, 1), 0)


def flatten_targets(targets: list[Target]) -> FlatTargets:
    """Join the objects of a batch into one list."""
    counts = torch.tensor([len(t["boxes"]) for t in targets], device=targets[0]["boxes"].device)
    return FlatTargets(
        boxes=torch.cat([t["boxes"] for t in targets]).float().view(-1, 4),
        labels=torch.cat([t["labels"] for t in targets]).long(),
        image_per_object=torch.repeat_interleave(torch.arange(len(targets), device=counts.device), counts),
    )


@dataclass(frozen=True)
class DetectionLoss:
    """CIoU, class and L1 terms of both branches, multiplied by their gains.

    Scale: each term is a sum over the anchors of the batch, divided by the sum of the branch's target scores. So the loss
    is an average and does not grow with the batch.

    Several processes: in training (``all_processes=True``), all R processes of a run divide by the target scores of all of
    them. They must make this call together. Process r returns its share L_r of the loss L = L_1 + ... + L_R of the global
    batch. DDP averages gradients over the processes, so each process must multiply its share by R. In validation,
    processes may have different numbers of batches, so each divides by its own target scores.

    Example: R = 2; one process has a sum of 6 and target scores of 3, the other a sum of 4 and target scores of 1. The
    shares are 6 / (3 + 1) = 1.5 and 4 / (3 + 1) = 1, so L = 2.5. DDP gets the gradient of (2 * 1.5 + 2 * 1) / 2 = 2.5.

    Several batches in an optimizer step: the step takes the sum, over its batches, of the gradient of L times the images
    of the global batch. So ``DetectorModule.training_step`` returns R * L_r, times these images, times the number of
    accumulated batches, over which Lightning averages.
    """

    box_gain: float = 7.5
    class_gain: float = 0.5
    l1_gain: float = 1.5
    class_weights: tuple[float, ...] | None = None  # of the C classes, for the class term at their objects; by default 1

    def __call__(
        self,
        outputs: RawOutput,
        targets: list[Target],
        image_size: Size,
        one2many_weight: float,
        all_processes: bool = False,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch as float32 scalars, also under autocast.

        Args:
            outputs: raw predictions; a branch that is missing is left out of the loss.
            targets: objects of each image.
            image_size: (height, width) of the network input.
            one2many_weight: weight of the one-to-many branch in the total, in 0..1; the other branch has the rest.
            all_processes: divide by the target scores of all processes instead of this one, see the class.

        Returns:
            ``total``, and ``<branch>/<box|cls|l1>`` with the gains but without the weights of the branches.
        """
        with torch.autocast(outputs["points"].device.type, enabled=False):
            objects = flatten_targets(targets)
            points, strides = outputs["points"].float(), outputs["strides"].float()
            branch_weights: dict[BranchName, float] = {"one2many": one2many_weight, "one2one": 1 - one2many_weight}
            branch_weights = {branch: weight for branch, weight in branch_weights.items() if branch in outputs}
            matches = {branch: match_branch(branch, outputs[branch], points, strides, objects) for branch in branch_weights}
            normalizers = _normalizers([m.weight for m in matches.values()], all_processes)
            terms: dict[str, Tensor] = {}
            total = points.new_zeros(())
            for (branch, match), normalizer in zip(matches.items(), normalizers):
                box, l1 = _box_terms(outputs[branch], match, objects, points, strides, image_size)
                terms[f"{branch}/box"] = self.box_gain * box / normalizer
                class_term = _class_term(outputs[branch], match, objects, self.class_weights)
                terms[f"{branch}/cls"] = self.class_gain * class_term / normalizer
                terms[f"{branch}/l1"] = self.l1_gain * l1 / normalizer
                for part in ("box", "cls", "l1"):
                    total = total + branch_weights[branch] * terms[f"{branch}/{part}"]
        return {"total": total, **terms}


def match_branch(branch: BranchName, raw: BranchOutput, points: Tensor, strides: Tensor, objects: FlatTargets) -> Matches:
    """Match the anchors of a branch to objects: one anchor per object for ``one2one``, up to ten for ``one2many``."""
    distances = raw["boxes"].detach().float().transpose(1, 2)  # (B, A, 4)
    boxes = distances_to_boxes(distances, points) * strides[:, None]
    top_k, one_per_object = (7, True) if branch == "one2one" else (10, False)
    # strides[0] is the smallest stride. A tiny object is enlarged to 2 strides, so it contains an anchor (STAL).
    min_side = 2 * strides[0]
    return assign(raw["scores"].detach(), boxes, points * strides[:, None], objects, top_k, min_side, one_per_object)


def _normalizers(target_scores: list[Tensor], all_processes: bool) -> Tensor:
    """Return the divisor of the loss of each branch: the sum of its target scores, at least 1."""
    sums = torch.stack([scores.sum() for scores in target_scores])
    if all_processes and dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
    return sums.clamp(min=1.0)


def _box_terms(
    raw: BranchOutput, match: Matches, objects: FlatTargets, points: Tensor, strides: Tensor, image_size: Size
) -> tuple[Tensor, Tensor]:
    """Return the sums of 1 - CIoU and of the L1 distances over the positives, weighted by their target scores."""
    distances = raw["boxes"][match.image, :, match.anchor].float()  # (P, 4)
    stride, positive_points = strides[match.anchor, None], points[match.anchor]
    expected_boxes = objects.boxes[match.object] / stride
    box = ((1 - complete_iou(distances_to_boxes(distances, positive_points), expected_boxes)) * match.weight).sum()
    # L1 in fractions of the image, so that an offset in pixels costs the same on every level
    height, width = image_size
    scale = stride / distances.new_tensor([width, height, width, height])
    l1 = (distances - boxes_to_distances(expected_boxes, positive_points)).mul(scale).abs().mean(dim=1)
    return box, (l1 * match.weight).sum()


def _class_term(
    raw: BranchOutput, match: Matches, objects: FlatTargets, class_weights: tuple[float, ...] | None = None
) -> Tensor:
    """Return the sum of the binary cross-entropies over all anchors and classes.

    ``class_weights`` multiply the term of a positive anchor for the class of its object. Negatives have the weight 1, so
    the scores of a class with a higher weight rise.

    BCE(x, t) = softplus(x) - x t, and the target t is 0 except at the positives, so no dense target is needed.
    """
    logits = raw["scores"]
    positive_logits = logits[match.image, objects.labels[match.object], match.anchor].float()
    positives = positive_logits * match.weight
    if class_weights is None:
        return F.softplus(logits.float()).sum() - positives.sum()
    weights = logits.new_tensor(class_weights, dtype=torch.float32)[objects.labels[match.object]]
    extra = (weights - 1) * F.softplus(positive_logits)
    return F.softplus(logits.float()).sum() + extra.sum() - (weights * positives).sum()
