"""The training loss: named scalar terms for both branches (YOLO26, arXiv:2606.03748)."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from detector.batch import Target
from detector.network.boxes import boxes_to_distances, complete_iou, distances_to_boxes
from detector.network.head import BranchOutput, RawOutput
from detector.training.assigner import FlatTargets, Matches, assign


def one_to_many_weight(epoch: int, max_epochs: int | None) -> float:
    """Return the share of the one-to-many branch after ``epoch`` completed epochs: from 0.8 down to 0.1.

    A pure function of the epoch, so a resumed run continues it. Without an end (``max_epochs`` None or -1) it stays 0.8.
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
        image=torch.repeat_interleave(torch.arange(len(targets), device=counts.device), counts),
    )


@dataclass(frozen=True)
class DetectionLoss:
    """Box, class and L1 terms of both branches, weighted by their gains."""

    box_gain: float = 7.5
    class_gain: float = 0.5
    l1_gain: float = 1.5

    def __call__(
        self,
        outputs: RawOutput,
        targets: list[Target],
        image_size: tuple[int, int],
        one_to_many: float,
        all_processes: bool = False,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch as scalars: ``total``, and ``<branch>/<box|cls|l1>`` with the gains applied.

        ``image_size`` is (height, width) of the network input, ``one_to_many`` the share of that branch in the total, in
        0..1. The terms are divided by the sum of target scores, so they do not grow with the batch. With ``all_processes``
        that is the sum over all of them, which must call this together, and each returns its share of the loss: as DDP
        averages gradients, the total times the global batch and the number of processes has the gradient of one process
        with the global batch. All of it is float32, also under autocast.
        """
        with torch.autocast(outputs["points"].device.type, enabled=False):
            objects = flatten_targets(targets)
            points, strides = outputs["points"].float(), outputs["strides"].float()
            width, height = image_size[1], image_size[0]
            shares = {"one2many": one_to_many, "one2one": 1 - one_to_many}
            shares = {name: share for name, share in shares.items() if name in outputs}
            matches = {name: _match(name, outputs[name], points, strides, objects) for name in shares}
            normalizers = _normalizers([m.weight for m in matches.values()], all_processes)
            terms = {}
            for (name, match), normalizer in zip(matches.items(), normalizers):
                box, l1 = _box_terms(outputs[name], match, objects, points, strides, (width, height))
                terms[f"{name}/box"] = self.box_gain * box / normalizer
                terms[f"{name}/cls"] = self.class_gain * _class_term(outputs[name], match, objects) / normalizer
                terms[f"{name}/l1"] = self.l1_gain * l1 / normalizer
            total = sum(share * terms[f"{name}/{part}"] for name, share in shares.items() for part in ("box", "cls", "l1"))
        return {"total": total, **terms}


def _match(name: str, raw: BranchOutput, points: Tensor, strides: Tensor, objects: FlatTargets) -> Matches:
    distances = raw["boxes"].detach().float().transpose(1, 2)  # (B, A, 4)
    boxes = distances_to_boxes(distances, points) * strides[:, None]
    one2one = name == "one2one"
    # Tiny objects count as large as a cell of the second level, so that some anchor lies inside them (STAL).
    min_side = 2 * strides[0]
    return assign(
        raw["scores"].detach(),
        boxes,
        points * strides[:, None],
        objects,
        top_k=7 if one2one else 10,
        min_side=min_side,
        one_per_object=one2one,
    )


def _normalizers(weights: list[Tensor], all_processes: bool) -> Tensor:
    """Return the sum of target scores of each branch, at least 1."""
    sums = torch.stack([w.sum() for w in weights])
    if all_processes and dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
    return sums.clamp(min=1.0)


def _box_terms(
    raw: BranchOutput, match: Matches, objects: FlatTargets, points: Tensor, strides: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Return the weighted sums of 1 - CIoU and of the L1 distances over the positives; ``size`` is (width, height)."""
    distances = raw["boxes"][match.image, :, match.anchor].float()  # (P, 4)
    stride, points = strides[match.anchor, None], points[match.anchor]
    expected = objects.boxes[match.object] / stride
    box = ((1 - complete_iou(distances_to_boxes(distances, points), expected)) * match.weight).sum()
    # In shares of the image, so that an offset in pixels costs the same on every level
    scale = stride / distances.new_tensor(size).repeat(2)
    l1 = (distances - boxes_to_distances(expected, points)).mul(scale).abs().mean(dim=1)
    return box, (l1 * match.weight).sum()


def _class_term(raw: BranchOutput, match: Matches, objects: FlatTargets) -> Tensor:
    """Return the sum of binary cross-entropies over all anchors and classes.

    BCE(x, t) = softplus(x) - x t, and t is 0 but at the positives: no dense target is needed.
    """
    logits = raw["scores"]
    positive = logits[match.image, objects.labels[match.object], match.anchor].float()
    return F.softplus(logits.float()).sum() - (positive * match.weight).sum()
