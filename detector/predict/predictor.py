"""Load a trained detector from any weights file and run it on images."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from detector.arguments import as_bool, as_whole_number, shown
from detector.batch import Letterbox, Size, as_size, network_input
from detector.imaging.letterbox import letterbox, to_original
from detector.imaging.sixteen_bits import FULL_RANGE
from detector.imaging.tiles import Tiling, as_optional_tiling, cut
from detector.network.decode import DetectionDict, check_settings
from detector.network.head import BRANCHES, BranchName
from detector.network.merge import merge_flipped, merge_views, tile_view
from detector.network.model import Detector, to_channels_last
from detector.option_errors import named_arguments
from detector.predict.detections import Detections
from detector.predict.pixels import Image, as_array, each_image, is_repeatable
from detector.text import plural, unknown_name
from detector.weights import WeightsInfo, build_from, read_weights

DEFAULT_SIZE = (640, 640)  # if the weights file has no image size
SHOWN_CLASSES = 10  # in the text of a Predictor
ScoreThreshold = float | Literal["best"]


class Predictor:
    """A detector with its class names, category ids, input size and branch: images in, ``Detections`` out.

    ``model`` is an ordinary module, which is put into evaluation mode: move it to another device or precision with
    ``predictor.model.to(...)``. A call always evaluates, also after ``predictor.model.train()``. ``image_size`` is the size
    of the network input, (height, width) or one side of a square, multiples of the largest stride; by default the size of
    training. ``source`` names the weights file.
    """

    def __init__(
        self,
        model: Detector,
        info: WeightsInfo,
        branch: BranchName = "one2one",
        source: str = "",
        image_size: int | Size | None = None,
    ) -> None:
        if not isinstance(model, Detector) or not isinstance(info, WeightsInfo):
            raise ValueError(
                f"model is a {type(model).__name__} and info a {type(info).__name__}; expected a Detector (the .model of a "
                "DetectorModule) and a WeightsInfo, or use load_detector, which takes a file"
            )
        _check_branch(model, branch)
        self.model, self.info, self.branch, self.source = model.eval(), info, branch, source
        num_classes = model.head.num_classes
        self.class_names = info.class_names or [f"class {label}" for label in range(num_classes)]
        self.category_ids = info.category_ids or list(range(num_classes))
        self.sixteen_bit_range = info.sixteen_bit_range or FULL_RANGE
        default_size = info.image_size or DEFAULT_SIZE
        self.image_size = height, width = as_size(default_size if image_size is None else image_size)
        stride = model.strides[-1]
        if height % stride or width % stride:
            raise ValueError(f"image_size is {height} x {width} (height x width); both must be multiples of {stride}")

    def __repr__(self) -> str:
        height, width = self.image_size
        names = ", ".join(self.class_names[:SHOWN_CLASSES]) + (", ..." if len(self.class_names) > SHOWN_CLASSES else "")
        classes = plural(len(self.class_names), "class", "classes")
        return (
            f"{type(self).__name__}: {self.info.variant}, {classes} ({names}), "
            f"input {height} x {width} px (height x width), "
            f"branch {self.branch}{', from ' if self.source else ''}{self.source}"
        )

    @named_arguments
    def __call__(
        self,
        images: Image | Iterable[Image],
        score_threshold: ScoreThreshold = 0.25,
        max_detections: int = 300,
        classes: Sequence[str | int] | None = None,
        iou_threshold: float | None = None,
        batch_size: int = 8,
        branch: BranchName | None = None,
        flip_test: bool = False,
        tile: int | Size | None = None,
        overlap: float | None = None,
    ) -> list[Detections]:
        """Detect objects in images of any sizes; return one ``Detections`` per image.

        Args:
            images: one image or several. An image is a path or a PIL image, rotated as its EXIF data require; an array
                (H, W), (H, W, 3) or (H, W, 4), RGB, uint8 or uint16; or a tensor (3, H, W), uint8 or floating point in
                0..1. Transparency is dropped. 16 bits become 8 as in training, see ``data.sixteen_bit_range``.
            score_threshold: scores must exceed it; ``"best"`` is the threshold of the best F1 in the last validation of
                the weights, see ``best_f1_threshold``.
            max_detections: at most this number of objects per image, the best ones.
            classes: names or labels of the classes to detect; default: all. Applied before ranking.
            iou_threshold: of NMS, only for the branch ``one2many`` (default 0.7).
            batch_size: images per batch. It changes time and memory, not the detections.
            branch: ``"one2one"`` or ``"one2many"``; default: the predictor's branch.
            flip_test: detect in the mirrored image, too, and merge both, see ``merge_flipped``. It takes twice the time.
            tile: cut images into tiles of so many pixels, a side or (height, width), and detect in each, for objects that
                are small in a large image. An image that fits into one tile is detected in as without tiles.
                ``max_detections`` is then the limit of each tile, and ``batch_size`` the number of tiles in a batch.
            overlap: share of a tile by which neighbors overlap, at least, 0 to 0.9 (default 0.2); objects up to this length
                are whole in a tile.

        Detections keep the image that they were given, for ``plot``; a path stays a path. Those of a generator do not, as
        it may give more images than the memory holds. Raises ValueError for anything else, and TypeError for an argument
        of another name.
        """
        branch = self.branch if branch is None else branch
        _check_branch(self.model, branch)
        score_threshold = self.score_threshold(score_threshold, branch)
        check_settings(score_threshold, max_detections, iou_threshold, branch)
        batch_size = as_whole_number(batch_size, "batch_size")
        labels = None if classes is None else self.labels_of(classes)
        tiling = as_optional_tiling(tile, overlap)
        settings = (as_bool(flip_test, "flip_test"), branch, score_threshold, max_detections, iou_threshold, labels)
        keep_images, remaining, results = is_repeatable(images), each_image(images), []
        if tiling is not None:
            for image in remaining:
                detections = self._detect_tiles(as_array(image, self.sixteen_bit_range), tiling, batch_size, *settings)
                results.append(replace(detections, image=image) if keep_images else detections)
        while batch := list(islice(remaining, batch_size)):
            inputs, placements = self.prepare([as_array(image, self.sixteen_bit_range) for image in batch])
            outputs = self._detect(inputs, *settings)
            for image, output, placement in zip(batch, outputs, placements, strict=True):
                # Outside of inference mode, this makes ordinary tensors, which users may change.
                detections = self.detections(output, placement)
                results.append(replace(detections, image=image) if keep_images else detections)
        return results

    def _detect(self, inputs: Tensor, flip_test: bool, *settings: Any) -> list[DetectionDict]:
        """Return what ``model.detect`` gives for ``inputs`` with ``settings``, and with ``flip_test`` that of both views."""
        with evaluating(self.model), torch.inference_mode():
            outputs = self.model.detect(inputs, *settings)
            if not flip_test:
                return outputs
            mirrored = self.model.detect(inputs.flip(-1), *settings)
            max_detections = settings[2]
            return [merge_flipped(*views, inputs.shape[-1], max_detections) for views in zip(outputs, mirrored, strict=True)]

    def _detect_tiles(self, image: np.ndarray, tiling: Tiling, batch_size: int, *settings: Any) -> Detections:
        """Return the detections in an image (H, W, 3) uint8 RGB, from its tiles. Only one batch of tiles is in memory."""
        remaining, views = iter(tiling.parts(image.shape[:2])), []
        while tiles := list(islice(remaining, batch_size)):
            inputs, placements = self.prepare([cut(image, tile) for tile in tiles])
            for tile, output, placement in zip(tiles, self._detect(inputs, *settings), placements, strict=True):
                found = self.detections(output, placement)
                views.append(tile_view(found.boxes, found.scores, found.labels, tile))
        boxes, scores, labels = merge_views(views) if len(views) > 1 else views[0][:3]
        return self._named(boxes, scores, labels, (image.shape[0], image.shape[1]))

    def prepare(self, images: Sequence[np.ndarray]) -> tuple[Tensor, list[Letterbox]]:
        """Letterbox ``images``, each (h, w, 3) uint8 RGB. Returns the network input (B, 3, H, W) and B placements."""
        canvases, placements = zip(*(letterbox(image, self.image_size) for image in images), strict=True)
        weight = next(self.model.parameters())
        batch = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).to(weight.device)
        return network_input(batch, weight.dtype), list(placements)

    def detections(self, output: DetectionDict, placement: Letterbox) -> Detections:
        """Map the ``output`` for one image from the network input to the image, and add class names and category ids.

        Boxes without area in the image are dropped: a network that has learned little may give some.
        """
        boxes = to_original(output["boxes"].cpu(), placement)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores, labels = boxes[has_area], output["scores"].cpu()[has_area], output["labels"].cpu()[has_area]
        return self._named(boxes, scores, labels, (placement.original_height, placement.original_width))

    def _named(self, boxes: Tensor, scores: Tensor, labels: Tensor, image_size: Size) -> Detections:
        names = [self.class_names[label] for label in labels.tolist()]
        category_ids = [self.category_ids[label] for label in labels.tolist()]
        of_detector = self.class_names, self.sixteen_bit_range
        return Detections(boxes, scores, labels, names, category_ids, None, *of_detector, image_size)

    @property
    def best_f1_threshold(self) -> float | None:
        """The score threshold of the best F1 of this branch in the last validation of the weights, at IoU 0.5.

        None if it is unknown, as for weights that were never validated.
        """
        return self.info.best_f1_thresholds.get(self.branch)

    def score_threshold(self, score_threshold: ScoreThreshold, branch: BranchName | None = None) -> float:
        """Return ``score_threshold`` as a number: ``"best"`` stands for the threshold of the best F1 of ``branch``.

        Raises ValueError if that is unknown, and for other words.
        """
        if not isinstance(score_threshold, str):
            return score_threshold
        if score_threshold != "best":
            raise ValueError(f"score_threshold is {score_threshold!r}; expected a number in 0..1, or 'best'")
        branch = branch or self.branch
        if (best := self.info.best_f1_thresholds.get(branch)) is None:
            reason = self.info.describe_best_f1(branch)
            raise ValueError(
                f"score_threshold is 'best', but the threshold of the best F1 is {reason}; give a number in 0..1"
            )
        return best

    def labels_of(self, classes: Sequence[str | int]) -> list[int]:
        """Return the labels of ``classes``, given by name or label. Raises ValueError for unknown classes, and for none."""
        if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
            raise ValueError(f"classes is {shown(classes)}; expected a list of names or labels, e.g. {self.class_names[:1]}")
        labels: list[int] = []
        for choice in classes:
            if not (labels_of_choice := self._labels_of_one(choice)):
                raise ValueError(unknown_name("class", choice, dict.fromkeys(self.class_names)))
            labels += labels_of_choice
        if not labels:
            raise ValueError(f"no class is given; choose some of: {', '.join(dict.fromkeys(self.class_names))}")
        return labels

    def _labels_of_one(self, choice: Any) -> list[int]:
        """Return the labels with the name ``choice``, or ``choice`` itself if it is a label; none if it is neither."""
        if isinstance(choice, str):
            return [label for label, name in enumerate(self.class_names) if name == choice]
        try:
            label = as_whole_number(choice, "label", 0)
        except ValueError:
            return []
        return [label] if label < len(self.class_names) else []

    def deploy(self) -> "Predictor":
        """Return a predictor for inference only, on the same device: one branch, normalization folded, channels last."""
        model = to_channels_last(self.model.deploy(self.branch))
        return Predictor(model, self.info, self.branch, self.source, self.image_size)


@named_arguments
def load_detector(
    path: str | os.PathLike, branch: BranchName = "one2one", image_size: int | Size | None = None
) -> Predictor:
    """Load a detector from a checkpoint of ours, a ``.safetensors``, or a ``.pt`` of the public reference.

    Variant, class names and input size come from the file; no code in the file is run. ``branch`` is the one that predicts:
    ``"one2one"`` without NMS, ``"one2many"`` with NMS. ``image_size``: see ``Predictor``. Raises ValueError, with path and
    reason, for other files.
    """
    if not isinstance(branch, str) or branch not in BRANCHES:
        raise ValueError(unknown_name("branch", branch, BRANCHES))
    weights = read_weights(path)
    return Predictor(build_from(weights), weights.info, branch, f"{weights.path} ({weights.kind})", image_size)


@contextmanager
def evaluating(model: Detector) -> Iterator[None]:
    """Put all modules of ``model`` into evaluation mode within the block."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_branch(model: Detector, branch: Any) -> None:
    if not isinstance(branch, str) or branch not in BRANCHES:
        raise ValueError(unknown_name("branch", branch, BRANCHES))
    if getattr(model.head, branch) is None:
        raise ValueError(
            f"the detector has no branch {branch!r}; choose one2one or one2many (a deployed detector has only one of them)"
        )
