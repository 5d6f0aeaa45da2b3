"""COCO evaluation during validation and testing, the same on any number of processes."""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from pycocotools.coco import COCO

from detector.batch import Batch, Target
from detector.evaluation.coco_eval import METRICS, Backend, CocoResult, check_backend, evaluate
from detector.evaluation.coco_files import detection_rows, load_ground_truth, write_ground_truth, write_predictions
from detector.imaging.letterbox import to_original
from detector.network.decode import DetectionDict, decode
from detector.network.head import BRANCHES, BranchName, RawOutput
from detector.runs.folder import ground_truth_file, predictions_file
from detector.text import plural


class CocoEvaluation(L.Callback):
    """Evaluates with pycocotools after every validation and test, in original pixels and with the original ids.

    Logs the twelve COCO numbers as ``val/AP``, ``val/AP50``, ... (``test/...`` in a test), those of the second branch
    as ``val/one2many/AP``, ..., the AP of each class as ``val/AP_class/<name>``, and the time it took as
    ``val/eval_seconds``. With ``branch="both"`` the one-to-one branch has the plain names; one forward pass does.

    Only images that were seen count: with ``limit_val_batches``, or where broken images are skipped, the numbers are
    of fewer images than the ground truth has, and a warning says so. An image seen twice (samplers pad their last batch
    when several processes share the work) counts once. Nothing is evaluated in the sanity check.

    ``ground_truth`` is a COCO annotation file or its content, and serves validation and test alike; without it the data
    module is asked: ``ground_truth(split)`` with "val" or "test". ``predictions`` writes the detections into
    ``trainer.default_root_dir`` as ``predictions.json`` (a test: ``predictions_test.json``; the second branch:
    ``..._one2many.json``), replaced by each evaluation, and beside them ``ground_truth.json``, what they were judged by: the
    objects of the images seen, and the folder of the images if known. ``results`` holds the last :class:`CocoResult` of
    each branch. ``backend="faster-coco-eval"``, an extra, computes the same numbers (to 1e-12) several times faster.
    """

    def __init__(
        self,
        branch: Literal[BranchName, "both"] = "both",
        ground_truth: str | Path | dict[str, Any] | None = None,
        score_threshold: float = 0.001,
        max_detections: int = 300,
        iou_threshold: float = 0.7,
        predictions: bool = True,
        per_class: bool = True,
        backend: Backend = "pycocotools",
    ) -> None:
        check_backend(backend)
        if branch not in (*BRANCHES, "both"):
            raise ValueError(f"branch is {branch!r}; choose {', '.join(BRANCHES)} or both")
        self.branches = BRANCHES if branch == "both" else (branch,)
        self.ground_truth = ground_truth
        self.decoding = {
            "score_threshold": score_threshold,
            "max_detections": max_detections,
            "iou_threshold": iou_threshold,
        }
        self.predictions, self.per_class, self.backend = predictions, per_class, backend
        self.results: dict[str, CocoResult] = {}
        self._coco: COCO | None = None
        self._written: tuple[Path, list[int]] | None = None  # the ground truth on file, and of which images
        self._rows: dict[str, dict[int, np.ndarray]] = {}  # branch -> image id -> (N, 7), see detection_rows

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "predict" or (stage == "fit" and not trainer.enable_validation):
            return
        source = self.ground_truth
        if source is None:
            source = _ask_datamodule(trainer, "test" if stage == "test" else "val")
        self._written = None
        # On every rank, though rank 0 alone needs it: what is wrong with it then stops all of them.
        self._coco = load_ground_truth(source)
        check_categories(self._coco, pl_module.class_names, pl_module.category_ids)
        if trainer.world_size > 1:  # every rank logs the same broadcast numbers; averaging them is no improvement
            warnings.filterwarnings("ignore", r"It is recommended to use `self\.log\('(val|test)/(one2many/)?(A|eval_)")

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._rows = {branch: {} for branch in self.branches}

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: RawOutput,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the detections of the batch, on original pixels."""
        if trainer.sanity_checking:
            return
        category_ids = np.asarray(pl_module.category_ids)
        for branch in self.branches:
            found = decode(outputs, branch, **self.decoding)
            for target, detections in zip(batch["targets"], found, strict=True):
                rows = original_rows(target, detections, category_ids)
                self._rows[branch][int(target["image_id"])] = rows

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Evaluate. Weight averaging may have put the raw weights back already, so nothing here runs the network."""
        if trainer.sanity_checking:
            return
        started = time.perf_counter()
        shards = _gather(self._rows, trainer)
        self._rows = {}
        outcome = self._judge(shards, trainer) if trainer.is_global_zero else None
        outcome = trainer.strategy.broadcast(outcome, src=0)
        if isinstance(outcome, Exception):
            raise outcome
        self.results = outcome
        seconds = trainer.strategy.broadcast(time.perf_counter() - started, src=0)
        self._log(pl_module, "test" if trainer.testing else "val", seconds)

    on_test_epoch_start = on_validation_epoch_start
    on_test_batch_end = on_validation_batch_end
    on_test_epoch_end = on_validation_epoch_end

    def _judge(
        self, shards: Sequence[dict[str, dict[int, np.ndarray]]], trainer: L.Trainer
    ) -> dict[str, CocoResult] | Exception:
        """Evaluate what all ranks found. An error is returned, not raised: the other ranks wait for this one's word."""
        try:
            results = {}
            for branch in self.branches:
                images = {image_id: rows for shard in reversed(shards) for image_id, rows in shard[branch].items()}
                detections = np.concatenate([np.empty((0, 7)), *(images[image_id] for image_id in sorted(images))])
                detections = _finite(detections, branch)
                if self.predictions:
                    write_predictions(self._path(branch, trainer), detections)
                results[branch] = evaluate(self._coco, detections, list(images), self.backend)
            if self.predictions:
                self._write_ground_truth(sorted(images), trainer)
            if len(images) < len(self._coco.imgs):
                rank_zero_warn(
                    f"the COCO numbers are of {plural(len(images), 'image')}, of {len(self._coco.imgs)} there are"
                )
            return results
        except Exception as error:
            return error

    def _path(self, branch: str, trainer: L.Trainer) -> Path:
        second_branch = "" if branch == self.branches[0] else branch
        return Path(trainer.default_root_dir) / predictions_file("test" if trainer.testing else "val", second_branch)

    def _write_ground_truth(self, image_ids: list[int], trainer: L.Trainer) -> None:
        path = Path(trainer.default_root_dir) / ground_truth_file("test" if trainer.testing else "val")
        if (path, image_ids) != self._written:
            write_ground_truth(path, self._coco, image_ids)
            self._written = path, image_ids

    def _log(self, pl_module: L.LightningModule, split: str, seconds: float) -> None:
        """Log on every rank, so that a checkpoint callback finds its monitor on every rank."""
        for branch, result in self.results.items():
            prefix = split if branch == self.branches[0] else f"{split}/{branch}"
            shown = {f"{prefix}/{name}": result.metrics[name] for name in ("AP", "AP50")}
            others = {f"{prefix}/{name}": result.metrics[name] for name in METRICS if f"{prefix}/{name}" not in shown}
            if self.per_class:
                others |= {f"{prefix}/AP_class/{name}": value for name, value in result.per_class.items()}
            pl_module.log_dict(shown, prog_bar=prefix == split)
            pl_module.log_dict(others)
        pl_module.log(f"{split}/eval_seconds", seconds)


def original_rows(target: Target, detections: DetectionDict, category_ids: np.ndarray) -> np.ndarray:
    """Return the detections of one image, as (N, 7) rows in original pixels and ids, see ``detection_rows``."""
    if missing := [key for key in ("image_id", "letterbox") if key not in target]:
        raise ValueError(
            f"a target has no {' and no '.join(missing)}, only {', '.join(target)}; COCO evaluation needs both to map "
            f"boxes back to the image (see detector/batch.py): add them in the dataset"
        )
    boxes = to_original(detections["boxes"].cpu(), target["letterbox"]).numpy()
    labels = detections["labels"].cpu().numpy()
    return detection_rows(int(target["image_id"]), boxes, detections["scores"].cpu().numpy(), category_ids[labels])


def check_categories(coco: COCO, class_names: Sequence[str], category_ids: Sequence[int]) -> None:
    """Compare the ground truth's categories with the model's classes; ids off by one would score 0 without a word.

    Categories of either side that the other lacks are allowed as long as some are common; those that have annotations
    and are unknown to the model count as missed, with a warning.
    """
    model = dict(zip(category_ids, class_names, strict=True))
    there = {category_id: category["name"] for category_id, category in coco.cats.items()}
    common = model.keys() & there.keys()
    wrong = [f"{i} is {there[i]!r} there and {model[i]!r} in the model" for i in sorted(common) if there[i] != model[i]]
    if wrong or (there and not common):
        detail = "; ".join(wrong[:5]) or f"ids {sorted(there)[:5]} there and {sorted(model)[:5]} in the model"
        raise ValueError(
            f"the ground truth's categories are not the model's: {detail}; evaluate with annotations whose ids and "
            f"names are those of the training file"
        )
    unknown = [there[i] for i in sorted(there.keys() - common) if coco.catToImgs.get(i)]
    if unknown:
        rank_zero_warn(f"the model has no class for {', '.join(unknown[:5])}: these objects count as missed")


def _ask_datamodule(trainer: L.Trainer, split: str) -> str | Path | dict[str, Any]:
    ask = getattr(trainer.datamodule, "ground_truth", None)
    source = ask(split) if ask is not None else None
    if source is None:
        raise ValueError(
            f"CocoEvaluation has no ground truth for {split!r}: give it an annotation file, as "
            f"CocoEvaluation(ground_truth='val.json'), or a data module with ground_truth(split), or remove it"
        )
    return source


def _gather(rows: dict[str, dict[int, np.ndarray]], trainer: L.Trainer) -> list[dict[str, dict[int, np.ndarray]]]:
    """Return the rows of all ranks, in their order, on rank 0; an empty list on the others. Called by all ranks."""
    if trainer.world_size == 1:
        return [rows]
    shards = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object(rows, shards, dst=0)
    return shards or []


def _finite(detections: np.ndarray, branch: str) -> np.ndarray:
    """Return the detections without those that are not numbers: pycocotools would take them for perfect matches."""
    finite = np.isfinite(detections).all(axis=1)
    if finite.all():  # not to copy them for nothing
        return detections
    which = f"of {plural(len(finite), f'{branch} detection')}"
    rank_zero_warn(
        plural((~finite).sum(), f"{which} is not finite and was left out", f"{which} are not finite and were left out")
    )
    return detections[finite]
