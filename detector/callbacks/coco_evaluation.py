"""COCO evaluation during validation and testing, the same on any number of processes."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_warn

from detector.arguments import as_bool
from detector.batch import Batch, Target, Tile, xywh_to_xyxy, xyxy_to_xywh
from detector.callbacks.gather import gather
from detector.callbacks.of_trainer import data_module_of
from detector.evaluation import Backend, CocoResult, check_backend, coco_files, evaluate
from detector.evaluation.coco_files import GroundTruth
from detector.evaluation.ids import Id
from detector.imaging.letterbox import to_original
from detector.network.decode import DEFAULT_IOU_THRESHOLD, DetectionDict, check_settings, decode
from detector.network.head import BRANCHES, BranchName, RawOutput
from detector.network.merge import merge_flipped, merge_views, tile_view
from detector.runs.folder import ground_truth_file, predictions_file
from detector.text import plural, unknown_name

PartRows = dict[Tile | None, np.ndarray]  # tile, or None for an image without tiles -> (N, 7), see detection_rows
DetectionRows = dict[BranchName, dict[Id, PartRows]]  # branch -> image id -> rows


class CocoEvaluation(L.Callback):
    """Computes the COCO metrics after every validation and test, in original pixels and with the original category ids.

    It logs the twelve metrics as ``val/AP``, ``val/AP50``, ... (``test/...`` in a test), the AP of each class as
    ``val/AP_class/<name>``, and the seconds of the evaluation as ``val/eval_seconds``. With ``branch="both"``, ``val/AP`` is
    of one2one and ``val/one2many/AP`` of the other branch; both come from the same forward pass. ``results`` holds the last
    ``CocoResult`` of each branch. The module gets the score threshold of the best F1 of a validation, at IoU 0.5, as
    ``best_f1_thresholds``, by branch.

    Only images that the dataloader yields are evaluated. If the ground truth has more, because of ``limit_val_batches`` or
    skipped images, a warning gives both numbers. An image that comes twice counts once: a sampler repeats some, so that all
    processes get the same number of images. The sanity check is not evaluated.

    Args:
        branch: the branch to evaluate, or both.
        ground_truth: a COCO annotation file or its content, for validation and test alike; default:
            ``ground_truth(split)`` of the data module, with the split "val" or "test".
        score_threshold: scores must exceed it.
        max_detections: the limit of detections for each image, or each tile of an image, all classes together.
        iou_threshold: IoU threshold of NMS, for the branch ``one2many``. For ``one2one`` alone another one than the default
            is a ValueError.
        predictions: write the detections into ``trainer.default_root_dir`` as ``predictions.json`` (in a test
            ``predictions_test.json``, of the second branch ``..._one2many.json``), and beside them ``ground_truth.json``
            with the evaluated images and their objects. The files of the last evaluation are replaced.
        per_class: log the AP of each class.
        backend: see ``detector.evaluation.evaluate``.
        flip_test: detect in the mirrored image, too, and merge both, see ``detector.network.merge``.
    """

    def __init__(
        self,
        branch: Literal[BranchName, "both"] = "both",
        ground_truth: str | Path | dict[str, Any] | None = None,
        score_threshold: float = 0.001,
        max_detections: int = 300,
        iou_threshold: float = DEFAULT_IOU_THRESHOLD,
        predictions: bool = True,
        per_class: bool = True,
        backend: Backend = "pycocotools",
        flip_test: bool = False,
    ) -> None:
        check_backend(backend)
        if branch not in (*BRANCHES, "both"):
            raise ValueError(unknown_name("branch", branch, (*BRANCHES, "both")))
        check_settings(score_threshold, max_detections, iou_threshold, "one2many")
        if branch == "one2one" and iou_threshold != DEFAULT_IOU_THRESHOLD:
            raise ValueError(
                f"iou_threshold is {iou_threshold}, but it is of NMS, which the branch one2one does not use; evaluate the "
                f"branch one2many or both, or leave it at {DEFAULT_IOU_THRESHOLD}"
            )
        self.branches: tuple[BranchName, ...] = BRANCHES if branch == "both" else (branch,)
        self.ground_truth = ground_truth
        self.score_threshold, self.max_detections, self.iou_threshold = score_threshold, max_detections, iou_threshold
        self.predictions, self.per_class = as_bool(predictions, "predictions"), as_bool(per_class, "per_class")
        self.backend, self.flip_test = backend, as_bool(flip_test, "flip_test")
        self.results: dict[BranchName, CocoResult] = {}
        self._coco: GroundTruth | None = None
        self._written_ground_truth: tuple[Path, list[Id]] | None = None  # the ground truth file and its image ids
        self._rows: DetectionRows = {}

    def decode_settings(self, branch: BranchName) -> dict[str, Any]:
        """Return the arguments of ``decode`` for the outputs of ``branch``."""
        settings: dict[str, Any] = {"score_threshold": self.score_threshold, "max_detections": self.max_detections}
        return settings | ({"iou_threshold": self.iou_threshold} if branch == "one2many" else {})

    @property
    def epoch_columns(self) -> tuple[str, ...]:
        """The columns of train.log with values of this evaluation."""
        return ("AP", "AP50", "AP_nms") if len(self.branches) > 1 else ("AP", "AP50")

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "predict" or (stage == "fit" and not trainer.enable_validation):
            return
        split = "test" if stage == "test" else "val"
        source = _ground_truth_of_data_module(trainer, split) if self.ground_truth is None else self.ground_truth
        self._written_ground_truth = None
        # Every rank reads the ground truth: for the ids, and so that an error in it stops all ranks.
        self._coco = coco_files.load_ground_truth(source)
        model = cast(Any, pl_module)
        check_categories(self._coco, model.class_names, model.category_ids)
        if trainer.world_size > 1:  # every rank logs the same values, so they need no averaging
            warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('(val|test)/(one2many/)?(A|eval_)")

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._rows = {branch: {} for branch in self.branches}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int = 0,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the detections of the batch, in original pixels."""
        if trainer.sanity_checking:
            return
        assert self._coco is not None
        category_numbers = np.array([self._coco.category_ids.number(id_) for id_ in cast(Any, pl_module).category_ids])
        mirrored_outputs = mirrored_forward(trainer, pl_module, batch) if self.flip_test else None
        for branch in self.branches:
            batch_detections = decode(outputs, branch, **self.decode_settings(branch))
            if mirrored_outputs is not None:
                mirrored = decode(mirrored_outputs, branch, **self.decode_settings(branch))
                settings = batch["images"].shape[-1], self.max_detections
                batch_detections = [merge_flipped(*views, *settings) for views in zip(batch_detections, mirrored)]
            for target, detections in zip(batch["targets"], batch_detections, strict=True):
                image_id = _image_id(target)
                number = self._coco.image_ids.number(image_id)
                rows = original_rows(target, number, detections, category_numbers)
                self._rows[branch].setdefault(image_id, {})[target.get("tile")] = rows

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate and log. The network must not run here: RampedEMA runs before us and has restored the raw weights."""
        if trainer.sanity_checking:
            return
        started = time.perf_counter()
        rows_of_ranks = gather(self._rows, trainer)
        self._rows = {}
        outcome: Any = self._evaluate(rows_of_ranks, trainer) if trainer.is_global_zero else None
        outcome = trainer.strategy.broadcast(outcome, src=0)
        if isinstance(outcome, Exception):
            raise outcome
        self.results = outcome
        if not trainer.testing:  # a checkpoint keeps the thresholds of its validation
            best = {branch: result.best_f1 for branch, result in outcome.items()}
            cast(Any, pl_module).best_f1_thresholds = {branch: point and point.threshold for branch, point in best.items()}
        seconds = trainer.strategy.broadcast(time.perf_counter() - started, src=0)
        self._log(pl_module, _split(trainer), seconds)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _evaluate(self, rows_of_ranks: list[DetectionRows], trainer: L.Trainer) -> dict[BranchName, CocoResult] | Exception:
        """Evaluate the detections of all ranks, on rank 0.

        An error is returned, not raised: the other ranks wait for the broadcast and raise it, too.
        """
        folder, split = Path(trainer.default_root_dir), _split(trainer)
        results: dict[BranchName, CocoResult] = {}
        assert self._coco is not None
        try:
            for branch in self.branches:
                parts_by_image: dict[Id, PartRows] = {}
                for rank in reversed(rows_of_ranks):  # reversed: if an image comes twice, the lowest rank wins
                    for i, parts in rank[branch].items():
                        parts_by_image.setdefault(i, {}).update(parts)
                rows_by_image = {i: merge_parts(parts) for i, parts in parts_by_image.items()}
                detections = np.concatenate([np.empty((0, 7)), *(rows_by_image[i] for i in sorted(rows_by_image))])
                detections = drop_non_finite(detections, branch)
                if self.predictions:
                    second_branch = "" if branch == self.branches[0] else branch
                    coco_files.write_predictions(folder / predictions_file(split, second_branch), detections, self._coco)
                results[branch] = evaluate(self._coco, detections, list(rows_by_image), self.backend)
            path, image_ids = folder / ground_truth_file(split), sorted(rows_by_image)
            if self.predictions and (path, image_ids) != self._written_ground_truth:
                coco_files.write_ground_truth(path, self._coco, image_ids)
                self._written_ground_truth = path, image_ids
            if len(rows_by_image) < len(self._coco.imgs):
                rank_zero_warn(f"the COCO metrics are of {len(rows_by_image)} of {plural(len(self._coco.imgs), 'image')}")
            return results
        except Exception as error:
            return error

    def _log(self, pl_module: L.LightningModule, split: str, seconds: float) -> None:
        """Log on every rank: ModelCheckpoint needs the metric that it monitors on all of them."""
        for branch, result in self.results.items():
            prefix = split if branch == self.branches[0] else f"{split}/{branch}"
            for name, value in result.metrics.items():
                pl_module.log(f"{prefix}/{name}", value, prog_bar=prefix == split and name in ("AP", "AP50"))
            if self.per_class:
                pl_module.log_dict({f"{prefix}/AP_class/{name}": value for name, value in result.per_class.items()})
        pl_module.log(f"{split}/eval_seconds", seconds)


@torch.no_grad()
def mirrored_forward(trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch) -> RawOutput:
    """Return the raw outputs of ``pl_module`` for the mirrored images, in the precision of the Trainer."""
    with trainer.precision_plugin.forward_context():
        return pl_module(batch["images"].flip(-1))


def _split(trainer: L.Trainer) -> str:
    return "test" if trainer.testing else "val"


def _image_id(target: Target) -> Id:
    if missing := [key for key in ("image_id", "letterbox") if key not in target]:
        raise ValueError(
            f"a target has no {' and no '.join(missing)}, only {', '.join(target)}; COCO evaluation needs both to map "
            f"boxes back to the image (see detector/batch.py): add them in the dataset"
        )
    return target["image_id"] if isinstance(target["image_id"], str) else int(target["image_id"])


def original_rows(target: Target, number: int, detections: DetectionDict, category_numbers: np.ndarray) -> np.ndarray:
    """Return the detections of one image as (N, 7) rows in original pixels, see ``detection_rows``.

    ``number`` is that of the image, ``category_numbers`` (C,) are those of the classes; see ``Ids``.
    """
    boxes = to_original(detections["boxes"].cpu(), target["letterbox"]).numpy()
    labels, scores = detections["labels"].cpu().numpy(), detections["scores"].cpu().numpy()
    return coco_files.detection_rows(number, boxes, scores, category_numbers[labels])


def merge_parts(parts: PartRows) -> np.ndarray:
    """Return the rows of an image from those of its tiles, each object once; those of an image without tiles as they are."""
    if None in parts:
        return parts[None]
    as_tensor = torch.from_numpy
    views = [
        tile_view(as_tensor(xywh_to_xyxy(rows[:, 1:5])), as_tensor(rows[:, 5]), as_tensor(rows[:, 6]), cast(Tile, tile))
        for tile, rows in sorted(parts.items())
    ]
    boxes, scores, categories = (merged.numpy() for merged in merge_views(views))
    image_ids = np.concatenate([rows[:, 0] for rows in parts.values()])[: len(boxes)]  # all of them are the same
    return np.column_stack((image_ids, xyxy_to_xywh(boxes).round(3), scores, categories))


def check_categories(coco: GroundTruth, class_names: Sequence[str], category_ids: Sequence[int]) -> None:
    """Compare the categories of the ground truth with the classes of the model.

    Without this check, wrong ids would silently give AP 0. Each side may have categories that the other lacks, if some are
    common. Objects of categories that the model lacks count as missed, with a warning. Raises ValueError if a
    common id has two names, or no id is common.
    """
    in_model = dict(zip(category_ids, class_names, strict=True))
    in_truth = {coco.category_ids.id(number): category["name"] for number, category in coco.cats.items()}
    common = in_model.keys() & in_truth.keys()
    differing = [i for i in sorted(common) if in_truth[i] != in_model[i]]
    if differing or (in_truth and not common):
        names = [f"{i} is {in_truth[i]!r} in the ground truth and {in_model[i]!r} in the model" for i in differing[:5]]
        ids = f"ids {sorted(in_truth)[:5]} in the ground truth and {sorted(in_model)[:5]} in the model"
        raise ValueError(
            f"the categories of the ground truth are not those of the model: {'; '.join(names) or ids}; evaluate with "
            f"annotations that have the ids and names of the training file"
        )
    unknown: list[Any] = sorted(in_truth.keys() - common)
    if unknown := [in_truth[i] for i in unknown if coco.catToImgs.get(coco.category_ids.number(i))]:
        rank_zero_warn(f"the model has no class for {', '.join(unknown[:5])}: these objects count as missed")


def _ground_truth_of_data_module(trainer: L.Trainer, split: str) -> str | Path | dict[str, Any]:
    method = getattr(data_module_of(trainer), "ground_truth", None)
    source = method(split) if method is not None else None
    if source is None:
        raise ValueError(
            f"CocoEvaluation has no ground truth for {split!r}: give it an annotation file, as "
            f"CocoEvaluation(ground_truth='val.json'), or a data module with ground_truth(split), or remove it"
        )
    return source


def drop_non_finite(detections: np.ndarray, branch: BranchName) -> np.ndarray:
    """Drop detections with NaN or infinity, with a warning: pycocotools would take them for perfect matches."""
    finite = np.isfinite(detections).all(axis=1)
    if finite.all():  # the usual case, without a copy
        return detections
    subject = f"of {plural(len(finite), f'{branch} detection')}"
    rank_zero_warn(
        plural((~finite).sum(), f"{subject} is not finite and was dropped", f"{subject} are not finite and were dropped")
    )
    return detections[finite]
