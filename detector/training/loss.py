"""The training loss: named scalar terms for both branches (YOLO26, arXiv:2606.03748).

Each branch has a CIoU, a class and an L1 term. They are sums over the anchors of the batch, and are normalized in
``_normalizers``: divided by the sum of the branch's target scores.
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


def one_to_many_weight(epoch: int, max_epochs: int | None) -> float:
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
    """CIoU, class and L1 terms of both branches, multiplied by their gains."""

    box_gain: float = 7.5
    class_gain: float = 0.5
    l1_gain: float = 1.5

    def __call__(
        self,
        outputs: RawOutput,
        targets: list[Target],
        image_size: Size,
        one_to_many: float,
        all_processes: bool = False,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch as float32 scalars, also under autocast.

        With ``all_processes``, the R processes of a run share one normalizer: the sum of the target scores of all of them.
        They must make this call together, and each returns its own part L_r of the loss L of the global batch. DDP
        averages the gradients, so each process multiplies its part by R:

            L = sum over r of L_r,    gradient of L = average over r of the gradient of R * L_r

        Args:
            outputs: raw predictions; a branch that is missing is left out of the loss.
            targets: objects of each image.
            image_size: (height, width) of the network input.
            one_to_many: weight of the one-to-many branch in the total, in 0..1; the other branch has the rest.
            all_processes: normalize over all processes instead of this one.

        Returns:
            ``total``, and ``<branch>/<box|cls|l1>`` with the gains but without the weights of the branches. All are
            averages per unit of target score, so they do not grow with the batch.
        """
        with torch.autocast(outputs["points"].device.type, enabled=False):
            objects = flatten_targets(targets)
            points, strides = outputs["points"].float(), outputs["strides"].float()
            branch_weights = {"one2many": one_to_many, "one2one": 1 - one_to_many}
            branch_weights = {name: weight for name, weight in branch_weights.items() if name in outputs}
            matches = {name: _match(name, outputs[name], points, strides, objects) for name in branch_weights}
            normalizers = _normalizers([m.weight for m in matches.values()], all_processes)
            terms = {}
            for (name, match), normalizer in zip(matches.items(), normalizers):
                box, l1 = _box_terms(outputs[name], match, objects, points, strides, image_size)
                terms[f"{name}/box"] = self.box_gain * box / normalizer
                terms[f"{name}/cls"] = self.class_gain * _class_term(outputs[name], match, objects) / normalizer
                terms[f"{name}/l1"] = self.l1_gain * l1 / normalizer
            parts = [(name, part) for name in branch_weights for part in ("box", "cls", "l1")]
            total = sum(branch_weights[name] * terms[f"{name}/{part}"] for name, part in parts)
        return {"total": total, **terms}


def _match(name: BranchName, raw: BranchOutput, points: Tensor, strides: Tensor, objects: FlatTargets) -> Matches:
    """Match the anchors of a branch to objects: one anchor per object for ``one2one``, up to ten for ``one2many``."""
    distances = raw["boxes"].detach().float().transpose(1, 2)  # (B, A, 4)
    boxes = distances_to_boxes(distances, points) * strides[:, None]
    one2one = name == "one2one"
    return assign(
        raw["scores"].detach(),
        boxes,
        points * strides[:, None],
        objects,
        top_k=7 if one2one else 10,
        min_side=2 * strides[0],  # the stride of the second level: then some anchor lies inside a tiny object (STAL)
        one_per_object=one2one,
    )


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
    stride, points = strides[match.anchor, None], points[match.anchor]
    expected_boxes = objects.boxes[match.object] / stride
    box = ((1 - complete_iou(distances_to_boxes(distances, points), expected_boxes)) * match.weight).sum()
    # L1 in fractions of the image, so that an offset in pixels costs the same on every level
    height, width = image_size
    scale = stride / distances.new_tensor([width, height, width, height])
    l1 = (distances - boxes_to_distances(expected_boxes, points)).mul(scale).abs().mean(dim=1)
    return box, (l1 * match.weight).sum()


def _class_term(raw: BranchOutput, match: Matches, objects: FlatTargets) -> Tensor:
    """Return the sum of the binary cross-entropies over all anchors and classes.

    BCE(x, t) = softplus(x) - x t, and the target t is 0 except at the positives, so no dense target is needed.
    """
    logits = raw["scores"]
    positive = logits[match.image, objects.labels[match.object], match.anchor].float()
    return F.softplus(logits.float()).sum() - (positive * match.weight).sum()
