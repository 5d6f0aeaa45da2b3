"""The LightningModule: training and validation steps, optimizer, logging, checkpoints."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from detector.arguments import AUTO, Auto
from detector.batch import Batch, as_size
from detector.imaging.sixteen_bits import FULL_RANGE, as_sample_range
from detector.network.decode import DetectionDict
from detector.network.head import RawOutput
from detector.network.model import Detector, build_detector, to_channels_last
from detector.network.replace.block_files import import_blocks
from detector.network.replace.table import replacement_table
from detector.text import plural
from detector.training.base_module import BaseModule
from detector.training.loss import DetectionLoss, one2many_weight_at
from detector.training.network_settings import start_file, variant_and_overrides
from detector.training.optimizer import (
    CLASS_LR_RATIO,
    CLASS_TOWER,
    OptimizerChoice,
    build_optimizer,
    group_table,
    parameter_groups,
)
from detector.training.parts import frozen_text, idle_parts, innermost_parts
from detector.training.schedule import Schedule
from detector.training.setting_checks import AUTOMATIC, as_class_weights, check_optimization, checked_classes
from detector.training.steps import loader_batch_size, steps_texts
from detector.weights import NONE, Origin, Weights, load_backbone, load_into, read_weights

# Default learning rate, and default learning rate of biases at the first step of the warm-up
DEFAULT_RATES = {"musgd": (0.01, 0.1), "sgd": (0.01, 0.1), "adamw": (0.001, 0.0)}
# Factor of the learning rate of a pretrained backbone, if ``backbone_lr_ratio`` is not given
PRETRAINED_LR_RATIO = 0.2


class DetectorModule(BaseModule):
    """Train and evaluate a Detector with any dataloader that yields ``detector.batch.Batch``.

    ``training_step`` returns the loss times the number of images. Gradients of batches are summed until about
    ``nominal_batch`` images, over all processes, make one optimizer step; see ``DetectionLoss``. Weight decay grows with the
    images of a step. Add the callback ``RampedEMA`` for averaged weights.

    The losses are logged as ``train/...`` and ``val/...``: ``<branch>/<box|cls|l1>``, and ``total``. The weights of the
    branches in the total change from epoch to epoch, so totals of different epochs cannot be compared. ``train/lr`` is
    the learning rate of the first parameter group at the end of the epoch.

    Args:
        variant: a key of ``detector.VARIANTS``; by default that of ``weights``, and ``dyn_n`` without weights. If neither is
            given, and ``backbone_weights`` is a file of pretrain.py, variant, backbone and overrides are those of the file.
        class_names: names of the classes 0..C-1, saved in checkpoints.
        category_ids: the id of each class in the annotation file; by default 0..C-1.
        overrides: fields of ``DetectorConfig`` that differ from the variant, e.g. ``{"dynamic": {"num_experts": 8}}``. Other
            fields of ``dynamic`` are those of ``weights``, else of the variant. Checkpoints have all of them.
        weights: file to start from, see ``detector.weights.files.read_weights``. It is read at construction only: a
            checkpoint is loaded or resumed without it.
        image_size: (height, width) of the network input in pixels, or one side; multiples of the largest stride. Saved in
            checkpoints.
        freeze: parts that are not trained, normalization statistics included: names of modules, or patterns for them, e.g.
            ``["backbone"]`` or ``["backbone.stage_p[23]"]``. ``backbone.stem`` is the stem of every backbone, ``norms`` and
            ``backbone.norms`` are all BatchNorms.
        optimizer: ``musgd``, ``sgd`` or ``adamw``. ``auto`` is for train.py, which chooses the value when it knows the data;
            in Python, take it from ``detector.training.recipe.recipe_for``. So it is with the other settings that may be
            auto.
        lr: learning rate; None is 0.01, with adamw 0.001.
        final_lr_ratio: learning rate at the end, as a fraction of ``lr``.
        lr_decay: ``linear`` or ``cosine``, per epoch.
        class_lr_ratio: learning rate of the class branches as a multiple of ``lr``.
        lr_ratios: factors for the learning rates of parts, named as in ``freeze``.
        momentum: of the optimizer, the first beta of adamw.
        weight_decay: for steps of ``nominal_batch`` images.
        warmup_epochs: length of the warm-up; may be a fraction.
        warmup_momentum: momentum at the first step.
        warmup_bias_lr: learning rate of biases at the first step; None is 0.1, with adamw 0.
        nominal_batch: images of one optimizer step; see above. ``nominal_batch=1``: one step per batch. A Trainer's
            own ``accumulate_grad_batches`` above 1 wins.
        clip_norm: gradients are clipped to this norm; 0 turns it off. A Trainer's own ``gradient_clip_val`` wins.
        box_gain: weight of the CIoU term.
        class_gain: weight of the class term.
        l1_gain: weight of the L1 term.
        class_weights: weights of the class term at the objects of a class, by name (1 for others) or one a class; above 0.
            See docs/data.md.
        channels_last: memory layout of images and network; faster on CPUs and on GPUs with tensor cores.
        compile: compile the network (not the loss) with ``torch.compile``.
        sixteen_bit_range: values of 16-bit images that became 0..255 in the data. Saved in checkpoints, for prediction.
        backbone: ``yolo26``, the default; ``timm/NAME`` or ``timm/NAME.TAG``, any network of timm with maps of stride 8, 16
            and 32; ``parameternet_300m`` or ``parameternet_600m``. It is saved with the ``overrides``.
        backbone_weights: ``pretrained``, those that timm has on the Hub; or the path of a file with the weights of the
            backbone's classifier, e.g. ``runs/pretrain_dyn_n/best.ckpt`` of pretrain.py; or ``none``, the default. Read at
            construction only, like ``weights``.
        backbone_lr_ratio: factor for the learning rate of the backbone, without its projections to the neck; by default 0.2
            with ``backbone_weights``, for every backbone, else 1.
        accept_license: license of ``backbone_weights`` that restricts their use, e.g. ``cc-by-nc-4.0``: you may use them.
        replace: blocks of your own in place of modules, e.g. ``[{"where": "sppf", "layer": {"class_path": "my_blocks.Pool",
            "init_args": {"size": 7}}}]``; see docs/your-own-block.md. It is saved with the ``overrides``.
        block_files: the files that these blocks were imported from; filled in and saved in checkpoints, where they are
            found again.
        new_parts: parts that ``weights`` need not have, named as in ``where`` of ``replace``: they start untrained. Those of
            ``replace`` need not be named.
    """

    kind = "detector"
    metric_names = r"val/(\w+/)?A[PR]\w*"
    model: Detector

    def __init__(
        self,
        variant: str | None = None,
        class_names: list[str] | None = None,
        category_ids: list[int] | None = None,
        overrides: dict[str, Any] | None = None,
        weights: str | Path | None = None,
        image_size: int | tuple[int, int] | None = None,
        freeze: list[str] | None = None,
        optimizer: OptimizerChoice = "musgd",
        lr: float | Auto | None = None,
        final_lr_ratio: float = 0.01,
        lr_decay: Literal["linear", "cosine"] = "linear",
        class_lr_ratio: float = CLASS_LR_RATIO,
        lr_ratios: dict[str, float] | None = None,
        momentum: float = 0.9,
        weight_decay: float | Auto = 5e-4,
        warmup_epochs: float | Auto = 3.0,
        warmup_momentum: float = 0.8,
        warmup_bias_lr: float | Auto | None = None,
        nominal_batch: int | Auto = 64,
        clip_norm: float = 10.0,
        box_gain: float = 7.5,
        class_gain: float = 0.5,
        l1_gain: float = 1.5,
        class_weights: dict[str, float] | list[float] | None = None,
        channels_last: bool = True,
        compile: bool = False,
        sixteen_bit_range: tuple[int, int] | None = None,
        backbone: str | None = None,
        backbone_weights: str | Path | None = None,
        backbone_lr_ratio: float | None = None,
        accept_license: str | None = None,
        replace: list[dict[str, Any]] | None = None,
        block_files: dict[str, dict[str, str]] | None = None,
        new_parts: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = checked_classes(class_names, category_ids)
        self.category_ids = list(range(len(self.class_names))) if category_ids is None else list(category_ids)
        initial_weights = None if weights is None else read_weights(weights)
        start = initial_weights
        if variant is None and weights is None:
            start = start_file(backbone_weights, "backbone_weights")
        variant, overrides = variant_and_overrides(variant, overrides, start, len(self.class_names), backbone, replace)
        if start is not None:
            block_files = start.info.block_files | (block_files or {})
        block_files = import_blocks((overrides or {}).get("replace", []), block_files) or None
        # Lists, as checkpoints and config.yaml have them
        image_size = None if image_size is None else cast(Any, list(as_size(image_size)))
        sixteen_bit_range = None if sixteen_bit_range is None else cast(Any, list(as_sample_range(sixteen_bit_range)))
        if backbone_weights is None or backbone_weights == NONE:
            backbone_weights = None
        elif backbone_lr_ratio is None:
            backbone_lr_ratio = PRETRAINED_LR_RATIO
        # Backbone and replaced modules are in the overrides.
        names = ["weights", "backbone", "backbone_weights", "accept_license", "replace", "new_parts"]
        self.save_hyperparameters(ignore=names)
        check_optimization(self.hparams, automatic=AUTOMATIC)
        self.model = build_detector(variant, len(self.class_names), **(overrides or {}))
        largest = self.model.strides[-1]
        if image_size and any(side % largest for side in image_size):
            raise ValueError(f"image_size is {image_size}; both sides must be multiples of {largest}, the largest stride")
        self._load_start(initial_weights, new_parts or [], backbone_weights, accept_license)
        self._freeze(freeze or [])
        innermost_parts(self.model, self._lr_ratios())  # raises for an unknown part now, not when training starts
        if channels_last:
            to_channels_last(self.model)
        self.loss = DetectionLoss(box_gain, class_gain, l1_gain, as_class_weights(class_weights, self.class_names))
        # Score thresholds of the best F1 in the last validation, by branch: set by CocoEvaluation, saved in checkpoints
        self.best_f1_thresholds: dict[str, float | None] = {}

    def choose(self, settings: Mapping[str, Any]) -> None:
        """Replace settings that are "auto" by their values, also in checkpoints and logs; see ``Recipe.model_settings``."""
        self.save_hyperparameters({**self.hparams, **settings})
        check_optimization(self.hparams)

    def _load_start(
        self,
        initial_weights: Weights | None,
        new_parts: list[str],
        backbone_weights: str | Path | None,
        accept_license: str | None,
    ) -> None:
        """Load the weights that training starts from, of the whole detector or of its backbone."""
        if initial_weights is not None:
            self._load_initial(initial_weights, backbone_weights, new_parts)
        elif new_parts:
            raise ValueError(
                f"new_parts is {new_parts}, but there are no weights to start from; give weights, or leave it out"
            )
        if backbone_weights is not None:
            self._load_backbone(str(backbone_weights), accept_license)
        elif accept_license is not None:
            rank_zero_info(f"accept_license {accept_license} is not needed: no backbone_weights are loaded")

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **settings: Any) -> Self:
        """Load a checkpoint; one of an earlier version has the dynamic layers that its variant had then."""
        if isinstance(checkpoint_path, str | os.PathLike) and os.path.isfile(checkpoint_path):
            settings = {"overrides": read_weights(checkpoint_path).info.overrides or None} | settings
        return super().load_from_checkpoint(checkpoint_path, *args, **settings)

    def _load_initial(self, weights: Weights, backbone_weights: str | Path | None, new_parts: list[str]) -> None:
        """Load initial weights into the network, log how they fit, and remember their license and provenance."""
        report = load_into(self.model, weights, self.class_names, new_parts=new_parts)
        if backbone_weights is not None and not report.other_backbone:
            raise ValueError(
                f"{weights.path} has a trained {self.model.backbone.name}, which backbone_weights would replace; leave out "
                "backbone_weights, or weights"
            )
        rank_zero_info(report)
        info, image_size, sample_range = weights.info, self.hparams.image_size, self.hparams.sixteen_bit_range
        if image_size and info.image_size and image_size != list(info.image_size):
            rank_zero_info(f"these weights were trained at {list(info.image_size)} px (height, width), not {image_size}")
        if (trained_range := list(info.sixteen_bit_range or FULL_RANGE)) != (sample_range or list(FULL_RANGE)):
            rank_zero_info(f"these weights were trained with the sixteen_bit_range {trained_range}, not {sample_range}")
        if note := info.temperature_note:
            rank_zero_info(note)
        if info.license:
            rank_zero_info(f"license of these weights: {info.license}; it is saved in the checkpoints of this run, too")
        self._origin = Origin(info.license, info.provenance, info.data_license, info.data_provenance)

    def _load_backbone(self, source: str, accept_license: str | None) -> None:
        """Load pretrained weights into the backbone, log what was loaded and its license, and remember both."""
        report = load_backbone(self.model, source, accept_license)
        rank_zero_info(report)
        self._origin = self._origin.joined(report.origin)

    def _lr_ratios(self) -> dict[str, float]:
        """Return the factors of learning rates by part: that of the backbone, then those of the user, which win."""
        ratio = self.hparams.backbone_lr_ratio
        part = "backbone" if self.model.backbone.name == "yolo26" else "backbone.trunk"
        return ({} if ratio is None else {part: ratio}) | (self.hparams.lr_ratios or {})

    def forward(self, images: Tensor) -> RawOutput:
        """Return the raw outputs for ``images`` (B, 3, H, W), uint8 in 0..255 or floating point in 0..1."""
        return self.model(self._prepare(images))

    def _losses(self, outputs: RawOutput, batch: Batch) -> dict[str, Tensor]:
        one2many_weight = one2many_weight_at(self.schedule_epoch, self.planned_epochs)
        height, width = batch["images"].shape[-2:]
        return self.loss(outputs, batch["targets"], (height, width), one2many_weight, all_processes=self.training)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss times the number of images of the global batch, for gradients that add up; see DetectionLoss."""
        terms = self._losses(self(batch["images"]), batch)
        self.latest_terms = {name: term.detach() for name, term in terms.items()}
        num_images, processes = len(batch["targets"]), self.trainer.world_size
        # sync_dist averages over the processes like DDP, so the shares are multiplied here, too.
        logged = {f"train/{name}": term * processes for name, term in self.latest_terms.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=num_images, sync_dist=True)
        self.log("loss", logged["train/total"], on_step=True, on_epoch=False, prog_bar=True, logger=False)
        # The global batch has num_images * processes images. The other factors undo the averages of DDP and Lightning.
        return terms["total"] * (num_images * processes * processes * self.trainer.accumulate_grad_batches)

    def validation_step(self, batch: Batch, batch_idx: int) -> RawOutput:
        """Log the loss and return the raw outputs of both branches, for the callbacks that evaluate them."""
        outputs = self(batch["images"])
        logged = {f"val/{name}": term for name, term in self._losses(outputs, batch).items()}
        self.log_dict(logged, batch_size=len(batch["targets"]), sync_dist=True)
        return outputs

    def test_step(self, batch: Batch, batch_idx: int) -> RawOutput:
        """Return the raw outputs of both branches, for the callbacks that evaluate them."""
        return self(batch["images"])

    def predict_step(self, batch: Batch, batch_idx: int) -> list[DetectionDict]:
        """Return the detections of the NMS-free branch, in pixels of the network input."""
        return self.model.detect(self._prepare(batch["images"]))

    def configure_optimizers(self) -> Optimizer:
        """Choose the images of a step, the parameter groups and the schedule, and build the optimizer."""
        hp = self.hparams
        # Batches are accumulated until about nominal_batch images make a step. The batch size is that of the dataloader.
        self.trainer.fit_loop.setup_data()
        batch_size = loader_batch_size(self.trainer.train_dataloader)
        images_per_step = self._set_accumulation(batch_size)
        # A larger step has more weight decay, as there are fewer steps in an epoch.
        weight_decay = hp.weight_decay * images_per_step / hp.nominal_batch
        # AdamW needs a lower learning rate than SGD, and no higher one for biases at the start.
        default_lr, default_bias_lr = DEFAULT_RATES[hp.optimizer]
        lr = default_lr if hp.lr is None else hp.lr
        # Kernels take Muon steps, if the optimizer has them. Kernels and routers decay, norms and biases do not. Class
        # branches have class_lr_ratio times the learning rate, parts of the network have their lr_ratios.
        muon = hp.optimizer == "musgd"
        groups = parameter_groups(self.model, lr, weight_decay, muon, hp.class_lr_ratio, self._lr_ratios())
        self._keep_group_settings(groups)
        # The learning rate warms up step by step, then decays epoch by epoch. Training may be endless.
        bias_lr = default_bias_lr if hp.warmup_bias_lr is None else hp.warmup_bias_lr
        warmup = {"warmup_epochs": hp.warmup_epochs, "warmup_momentum": hp.warmup_momentum, "warmup_bias_lr": bias_lr}
        self.schedule = Schedule(self.planned_epochs, hp.final_lr_ratio, hp.lr_decay, hp.momentum, **warmup)
        self._plan_temperatures()
        rank_zero_info(group_table(groups))
        if weights := self.loss.class_weights:
            shown = ", ".join(f"{name} {weight:g}" for name, weight in zip(self.class_names, weights) if weight != 1)
            rank_zero_info(f"class weights (others 1): {shown or 'none'}")
            absent = getattr(getattr(self.trainer, "datamodule", None), "absent_classes", None)
            weighted = [name for name, weight in zip(self.class_names, weights) if weight != 1]
            if idle := [name for name in weighted if isinstance(absent, list) and name in absent]:
                rank_zero_warn(
                    f"model.class_weights: {plural(len(idle), 'class is', 'classes are')} in no training image, so a weight "
                    f"changes nothing: {', '.join(idle)}"
                )
        self._warn_of_idle_ratios()
        if hp.freeze:
            rank_zero_info(frozen_text(self.model, hp.freeze))
        for text in steps_texts(self.trainer, hp.optimizer, hp.nominal_batch, batch_size, images_per_step):
            rank_zero_info(text)
        return build_optimizer(hp.optimizer, groups, hp.momentum)

    def _warn_of_idle_ratios(self) -> None:
        """Warn of given factors of learning rates that no trained parameter has."""
        hp, ratios = self.hparams, self._lr_ratios()
        idle = idle_parts(self.model, ratios)
        given = [f"model.lr_ratios {part}" for part in idle if part in (hp.lr_ratios or {})]
        if hp.backbone_lr_ratio not in (None, PRETRAINED_LR_RATIO) and next(iter(ratios)) in idle:
            given.append("model.backbone_lr_ratio")
        for setting in dict.fromkeys(given):
            rank_zero_warn(
                f"{setting} changes nothing: its part is frozen (model.freeze), or consists of parts that have other ratios"
            )
        trained = [name for name, p in self.model.named_parameters() if p.requires_grad]
        if hp.class_lr_ratio != CLASS_LR_RATIO and not any(map(CLASS_TOWER.search, trained)):
            rank_zero_warn("model.class_lr_ratio changes nothing: the class branches are frozen (model.freeze)")

    def setup(self, stage: str) -> None:
        """Log, before training, which modules blocks of the user have replaced, with their costs at the input size.

        Raises ValueError if a setting of the training is still "auto".
        """
        if stage == "fit" and (names := [name for name in AUTOMATIC if self.hparams[name] == AUTO]):
            raise ValueError(
                f"{', '.join(names)}: auto is chosen by train.py; in Python give a value, or take one from "
                "detector.training.recipe.recipe_for (docs/python.md)"
            )
        if stage == "fit" and self.model.replaced:
            hp = self.hparams
            plain_overrides = {name: value for name, value in hp.overrides.items() if name != "replace"}
            with torch.device("meta"):
                plain = build_detector(hp.variant, len(self.class_names), **plain_overrides)
            rank_zero_info(replacement_table(plain, self.model, self.model.replaced, tuple(hp.image_size or (640, 640))))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save provenance and license of the weights, and metrics and score thresholds of the last validation."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["weights_info"]["best_f1_thresholds"] = self.best_f1_thresholds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore license and provenance of the weights, and metrics and score thresholds of their last validation."""
        super().on_load_checkpoint(checkpoint)
        self.best_f1_thresholds = dict(checkpoint.get("weights_info", {}).get("best_f1_thresholds") or {})

    def _schedule_step(self, optimizer: Optimizer, batch_idx: int) -> None:
        position = self.current_epoch, batch_idx, cast(int, self.trainer.num_training_batches)
        self.schedule.apply(optimizer, *position, decay_epoch=self.schedule_epoch)

    def on_train_epoch_end(self) -> None:
        """Log the learning rate of the first group at the end of the epoch."""
        lr = self._optimizer().param_groups[0]["lr"]
        self.log("train/lr", lr, batch_size=1, sync_dist=True)
