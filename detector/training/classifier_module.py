"""The LightningModule of pre-training: a classifier whose trunk becomes the backbone of a detector."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer

from detector.batch import ClassBatch, as_size
from detector.imaging.sixteen_bits import as_sample_range
from detector.network.classifier import Classifier, build_classifier
from detector.network.model import to_channels_last
from detector.network.replace.block_files import import_blocks
from detector.text import plural
from detector.training.base_module import BaseModule
from detector.training.network_settings import start_file, variant_and_overrides
from detector.training.optimizer import OptimizerName, build_optimizer, group_table, parameter_groups
from detector.training.parts import frozen_text
from detector.training.schedule import StepSchedule
from detector.training.setting_checks import CLASSIFIER_LIMITS, check_optimization, checked_classes
from detector.training.steps import loader_batch_size, steps_texts
from detector.training.top_classes import TopClasses
from detector.weights import Origin
from detector.weights.classifier import load_classifier

# Default learning rate for steps of ``LR_IMAGES``, and default weight decay; only those of adamw are of a published recipe
DEFAULTS = {"adamw": (0.002, 0.05), "sgd": (0.4, 1e-4), "musgd": (0.16, 5e-4)}
LR_IMAGES = 1024


class ClassifierModule(BaseModule):
    """Train and evaluate a Classifier with any dataloader that yields ``detector.batch.ClassBatch``.

    The loss is the cross entropy with ``label_smoothing``; of mixed images, that of both classes by their shares. It is
    averaged over the images of a step, on all processes. Logs ``train/loss``, ``train/lr`` (the highest of all parameter
    groups), and in validation ``val/loss`` (without smoothing), ``val/top1`` and ``val/top5``, fractions in 0..1 over all
    images of all processes, each once. Add the callback ``RampedEMA`` for averaged weights.

    Args:
        variant: a key of ``detector.VARIANTS``; by default that of ``weights``, and ``dyn_n`` without.
        class_names: names of the classes 0..C-1, saved in checkpoints.
        overrides: fields of ``DetectorConfig`` that differ from the variant, see ``build_classifier``.
        backbone: as for ``DetectorModule``: ``yolo26``, ``timm/NAME``, ``timm/NAME.TAG``, or a ParameterNet. It is saved
            with the ``overrides``.
        weights: file to start from: of an earlier pre-training, or of the classifier of timm or of a ParameterNet under
            their own names; or ``pretrained``, those that timm has on the Hub. The last layer is left out if its classes are
            others. Read at construction only: a checkpoint is loaded or resumed without it.
        accept_license: license of ``weights`` that restricts their use, e.g. ``cc-by-nc-4.0``: you may use them.
        image_size: (height, width) of the network input in pixels, or one side. Saved in checkpoints.
        optimizer: ``adamw``, ``musgd`` or ``sgd``.
        lr: learning rate for steps of 1,024 images; it is scaled linearly to the images of a step. By default 0.002, with
            musgd 0.16, with sgd 0.4.
        final_lr_ratio: learning rate at the end, as a fraction of ``lr``.
        weight_decay: of kernels and routers; by default 0.05, with musgd 5e-4, with sgd 1e-4.
        momentum: of the optimizer, the first beta of adamw.
        warmup_epochs: length of the linear warm-up; may be a fraction. It takes at most half of the training.
        nominal_batch: images of one optimizer step: batches are accumulated until there are about so many. None: a step for
            each batch. A Trainer's own ``accumulate_grad_batches`` above 1 wins.
        layer_decay: factor of the learning rate from each layer to the one before it; see ``Classifier.layers``. 1: none.
        label_smoothing: share of the target that is spread over all classes.
        dropout: rate before the last layer; by default that of the network, see ``build_classifier``.
        drop_path: rate of stochastic depth, for networks that have it.
        clip_norm: gradients are clipped to this norm; 0 turns it off. A Trainer's own ``gradient_clip_val`` wins.
        channels_last: memory layout of images and network; faster on CPUs and on GPUs with tensor cores.
        compile: compile the network (not the loss) with ``torch.compile``.
        freeze: parts of ``Classifier.network`` that are not trained, normalization statistics included: names of modules, or
            patterns for them, e.g. ``["backbone.stage_p2"]``. ``backbone``, ``backbone.stem``, ``backbone.norms`` and
            ``norms`` (all BatchNorms) work with every network; the other names in one of timm are timm's.
        data_license: license of the images. It is saved with the weights, and with those that are trained from them.
        data_provenance: origin of the images, saved in the same way.
        sixteen_bit_range: values of 16-bit images that became 0..255 in the data. Saved in checkpoints.
        replace: blocks of your own in place of modules of our backbone, as for ``DetectorModule``.
        block_files: the files that these blocks were imported from; filled in and saved in checkpoints.
    """

    kind = "classifier"
    metric_names = r"val/(loss|top1|top5)"
    model: Classifier

    def __init__(
        self,
        variant: str | None = None,
        class_names: list[str] | None = None,
        overrides: dict[str, Any] | None = None,
        backbone: str | None = None,
        weights: str | Path | None = None,
        accept_license: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        optimizer: OptimizerName = "adamw",
        lr: float | None = None,
        final_lr_ratio: float = 0.0,
        weight_decay: float | None = None,
        momentum: float = 0.9,
        warmup_epochs: float = 5.0,
        nominal_batch: int | None = None,
        layer_decay: float = 1.0,
        label_smoothing: float = 0.1,
        dropout: float | None = None,
        drop_path: float = 0.0,
        clip_norm: float = 0.0,
        channels_last: bool = True,
        compile: bool = False,
        freeze: list[str] | None = None,
        data_license: str | None = None,
        data_provenance: str | None = None,
        sixteen_bit_range: tuple[int, int] | None = None,
        replace: list[dict[str, Any]] | None = None,
        block_files: dict[str, dict[str, str]] | None = None,
    ) -> None:
        super().__init__()
        self.class_names = checked_classes(class_names, None)
        start = start_file(weights)
        variant, overrides = variant_and_overrides(variant, overrides, start, len(self.class_names), backbone, replace)
        if start is not None:
            block_files = start.info.block_files | (block_files or {})
        block_files = import_blocks((overrides or {}).get("replace", []), block_files) or None
        # Lists, as checkpoints and config.yaml have them
        image_size = None if image_size is None else cast(Any, list(as_size(image_size)))
        sixteen_bit_range = None if sixteen_bit_range is None else cast(Any, list(as_sample_range(sixteen_bit_range)))
        self.save_hyperparameters(ignore=["weights", "backbone", "accept_license", "replace"])  # the others have them
        check_optimization(self.hparams, CLASSIFIER_LIMITS)
        self.model = build_classifier(variant, len(self.class_names), dropout, drop_path, **(overrides or {}))
        self._load_start(weights, accept_license)
        self._freeze(freeze or [], self.model.part_groups)
        if channels_last:
            to_channels_last(self.model)
        self._top_classes = TopClasses()
        self._seed: int | None = None  # of dropout and stochastic depth, saved in checkpoints

    @property
    def freezable(self) -> nn.Module:
        """The network whose parts ``freeze`` names."""
        return self.model.network

    def _load_start(self, weights: str | Path | None, accept_license: str | None) -> None:
        """Load the weights that training starts from, log what was loaded, and remember where they come from."""
        if weights is not None:
            report = load_classifier(self.model, weights, self.class_names, accept_license)
            rank_zero_info(report)
            self._origin = report.origin
        elif accept_license is not None:
            rank_zero_info(f"accept_license {accept_license} is not needed: there are no weights to start from")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, C) of ``images`` (B, 3, H, W), uint8 in 0..255 or floating point in 0..1."""
        return self.model(self._prepare(images))

    def training_step(self, batch: ClassBatch, batch_idx: int) -> Tensor:
        """Return the loss of the images, summed and divided by the images of a full batch, so that gradients add up."""
        losses = class_losses(self(batch["images"]), batch, self.hparams.label_smoothing)
        loss = losses.mean()
        self.latest_terms = {"total": loss.detach()}
        logged = self.latest_terms["total"]
        self.log("train/loss", logged, on_step=False, on_epoch=True, batch_size=len(losses), sync_dist=True)
        self.log("loss", logged, on_step=True, on_epoch=False, prog_bar=True, logger=False)
        return losses.sum() / self._batch_size

    def on_validation_epoch_start(self) -> None:
        """Forget the images of a validation that was interrupted."""
        self._top_classes.clear()

    def validation_step(self, batch: ClassBatch, batch_idx: int) -> Tensor:
        """Return the logits (B, C), for callbacks, and keep what the metrics need."""
        logits = self(batch["images"])
        self._top_classes.add(batch["indices"], class_losses(logits, batch), logits, batch["labels"])
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all images of all processes."""
        self.log_dict(self._top_classes.metrics("val"), batch_size=1, sync_dist=True)
        self._top_classes.clear()

    def test_step(self, batch: ClassBatch, batch_idx: int) -> Tensor:
        """Return the logits (B, C), for callbacks."""
        return self(batch["images"])

    def predict_step(self, batch: ClassBatch, batch_idx: int) -> Tensor:
        """Return the probabilities (B, C) of the classes."""
        return self(batch["images"]).float().softmax(dim=1)

    def configure_optimizers(self) -> Optimizer:
        """Choose the images of a step, the parameter groups and the schedule, and build the optimizer."""
        hp = self.hparams
        self.trainer.fit_loop.setup_data()
        self._batch_size = loader_batch_size(self.trainer.train_dataloader)
        images_per_step = self._set_accumulation(self._batch_size)
        default_lr, default_decay = DEFAULTS[hp.optimizer]
        lr = (default_lr if hp.lr is None else hp.lr) * images_per_step / LR_IMAGES
        weight_decay = default_decay if hp.weight_decay is None else hp.weight_decay
        ratios, layers = self._layer_ratios()
        muon = hp.optimizer == "musgd"
        groups = parameter_groups(self.model.network, lr, weight_decay, muon, 1.0, ratios, layers)
        self._keep_group_settings(groups)
        num_steps = self.trainer.estimated_stepping_batches
        steps_per_epoch = math.ceil(self.trainer.num_training_batches / self.trainer.accumulate_grad_batches)
        self.schedule = StepSchedule(num_steps, hp.warmup_epochs * steps_per_epoch, hp.final_lr_ratio)
        self._plan_temperatures()
        self._log_plan(groups, lr, images_per_step)
        return build_optimizer(hp.optimizer, groups, hp.momentum)

    def _log_plan(self, groups: list[dict[str, Any]], lr: float, images_per_step: int) -> None:
        hp = self.hparams
        rank_zero_info(group_table(groups))
        if hp.layer_decay != 1 and all(group["base_lr"] == lr for group in groups):
            rank_zero_warn("model.layer_decay changes nothing: all layers but the last are frozen (model.freeze)")
        if hp.freeze:
            rank_zero_info(frozen_text(self.freezable, hp.freeze, self.model.part_groups))
        nominal = hp.nominal_batch or images_per_step
        for text in steps_texts(self.trainer, hp.optimizer, nominal, self._batch_size, images_per_step):
            rank_zero_info(text)
        rank_zero_info(
            f"learning rate {lr:.3g}: model.lr is for {LR_IMAGES} images a step, and a step has {images_per_step}"
        )
        if (number := len(self.class_names)) < 5:
            rank_zero_info(f"val/top5 is 1: there are only {plural(number, 'class', 'classes')}")

    def _layer_ratios(self) -> tuple[dict[str, float], dict[str, str] | None]:
        """Return the factor of the learning rate by layer, and the layer of each parameter; none without layer decay."""
        decay, number = self.hparams.layer_decay, len(self.model.layers)
        if decay == 1:
            return {}, None
        titles = [f"layer {depth}/{number}" for depth in range(1, number + 1)]
        ratios = {title: decay ** (number - depth) for depth, title in enumerate(titles, start=1)}
        return ratios, {name: title for title, names in zip(titles, self.model.layers) for name in names}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save license and provenance of the weights and of the images, and the metrics of the last validation."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["weights_info"] |= {"kind": self.kind, **self.saved_origin.to_dict()}
        checkpoint["dropout_seed"] = self._seed

    @property
    def saved_origin(self) -> Origin:
        """What these weights come from: what training started from, and its own images."""
        images = Origin(data_license=self.hparams.data_license, data_provenance=self.hparams.data_provenance)
        return self._origin.joined(images)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what ``on_save_checkpoint`` has saved."""
        super().on_load_checkpoint(checkpoint)
        self._seed = checkpoint.get("dropout_seed")

    def on_fit_start(self) -> None:
        """Choose the seed of dropout, and compile the network if ``compile`` is set."""
        super().on_fit_start()
        if self._seed is None:
            self._seed = torch.initial_seed()

    def _schedule_step(self, optimizer: Optimizer, batch_idx: int) -> None:
        # What dropout draws depends on the batch and the process only, so a resumed run draws the same.
        assert self._seed is not None
        entropy = (self._seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
        self.schedule.apply(optimizer, self.trainer.global_step)

    def on_train_epoch_end(self) -> None:
        """Log the highest learning rate at the end of the epoch: with layer decay, that of the last layer."""
        lr = max(group["lr"] for group in self._optimizer().param_groups)
        self.log("train/lr", lr, batch_size=1, sync_dist=True)


def class_losses(logits: Tensor, batch: ClassBatch, label_smoothing: float = 0.0) -> Tensor:
    """Return the cross entropy (B,) of ``logits`` (B, C); of mixed images, that of both classes by their shares."""
    logits = logits.float()
    of_labels, of_others = (
        F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        for labels in (batch["labels"], batch["other_labels"])
    )
    return of_labels * batch["shares"] + of_others * (1 - batch["shares"])
