"""Dynamic layers made plain again, for hardware that needs constant weights; and what that costs."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from detector.batch import Batch, network_input
from detector.blocks.dynamic import DynamicConv2d, dynamic_layers, record_routing
from detector.coco_metrics import CocoResult, detection_rows, evaluate
from detector.exchange import exchange
from detector.model import Detector
from detector.postprocess import decode


@dataclass(frozen=True)
class Collapsed:
    """A detector without dynamic layers, and what became of its AP."""

    detector: Detector
    mixtures: dict[str, list[float]]  # layer -> the mean of its mixtures, (E,), which it was collapsed to
    before: dict[str, CocoResult]  # branch -> numbers of the dynamic detector
    after: dict[str, CocoResult]  # the same of the plain one

    def __str__(self) -> str:
        """Say what was lost, one branch a line."""
        lines = [f"{len(self.mixtures)} dynamic layers collapsed to plain convolutions"]
        for branch, after in self.after.items():
            before = self.before[branch].metrics["AP"]
            lines.append(f"{branch}: AP {before:.4f} -> {after.metrics['AP']:.4f} ({after.metrics['AP'] - before:+.4f})")
        return "\n".join(lines)


def collapse(detector: Detector, dataloader: Iterable[Batch]) -> Collapsed:
    """Replace every dynamic layer by the plain convolution of its average mixture over the images of ``dataloader``.

    ``dataloader`` is gone through twice, for the mixtures and for the AP lost. That AP is measured on the network input
    against the objects in the batches: it is not the one to publish. ``detector`` itself stays as it is; it may be a
    deployed one, and one of ``yolo26_*`` can load the weights of what comes out if it is not.

    Raises ValueError if there is no dynamic layer or no image, or for an iterator, which is empty the second time.
    """
    if isinstance(dataloader, Iterator):
        raise ValueError("dataloader can be gone through only once; give the DataLoader itself, or a list of batches")
    detector = deepcopy(detector).eval()
    if not dynamic_layers(detector):
        raise ValueError("the detector has no dynamic layer to collapse; was it built as one of dyn_*?")
    with record_routing(detector) as records:
        before = _evaluate(detector, dataloader)
    means = {name: torch.cat(parts).mean(dim=0) for name, parts in records.items() if parts}
    for name, mean in means.items():
        exchange(detector, name, plain_convolution(detector.get_submodule(name), mean))
    mixtures = {name: mean.tolist() for name, mean in means.items()}
    return Collapsed(detector, mixtures, before, _evaluate(detector, dataloader))


@torch.no_grad()
def plain_convolution(layer: DynamicConv2d, mixture: Tensor) -> nn.Conv2d:
    """Return what ``layer`` is to an image of this ``mixture`` (E,)."""
    kernels, biases = layer.mix(mixture[None].to(layer.weight))
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation)
    conv = nn.Conv2d(*shape, layer.groups, bias=biases is not None).to(layer.weight)
    conv.weight.copy_(kernels[0])
    if biases is not None:
        conv.bias.copy_(biases[0])
    return conv.requires_grad_(layer.weight.requires_grad).train(layer.training)


@torch.no_grad()
def _evaluate(detector: Detector, dataloader: Iterable[Batch]) -> dict[str, CocoResult]:
    """Return the numbers of every branch that ``detector`` has, in pixels of the network input."""
    weight = next(detector.parameters())
    truth: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    rows: dict[str, list[np.ndarray]] = {}
    for batch in dataloader:
        outputs = detector(network_input(batch["images"].to(weight.device), weight.dtype))
        first = len(truth["images"])
        for image_id, target in enumerate(batch["targets"], start=first):
            truth["images"].append({"id": image_id})
            for (x1, y1, x2, y2), label in zip(target["boxes"].tolist(), target["labels"].tolist()):
                entry = {"image_id": image_id, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                truth["annotations"].append(entry)
        num_classes = next(outputs[b] for b in ("one2one", "one2many") if b in outputs)["scores"].shape[1]
        for branch in ("one2one", "one2many"):
            if branch not in outputs:
                continue
            for image_id, found in enumerate(decode(outputs, branch), start=first):
                arrays = [found[key].cpu().numpy() for key in ("boxes", "scores", "labels")]
                rows.setdefault(branch, []).append(detection_rows(image_id, *arrays))
    if not rows:
        raise ValueError("the dataloader gave no images; the mixtures are averaged over some")
    content = {**truth, "categories": [{"id": i} for i in range(num_classes)]}
    return {branch: evaluate(content, np.concatenate(parts)) for branch, parts in rows.items()}
