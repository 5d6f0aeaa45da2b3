"""What the LightningModules of detectors and of classifiers have in common."""

import re
from typing import Any, Self, cast

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from detector.batch import network_input
from detector.dynamic.temperature import FallingTemperature, set_temperature
from detector.network.model import restore_activations
from detector.text import plural
from detector.training.lightning_hints import hide_hints
from detector.training.parts import PartGroups, freeze_parts
from detector.training.steps import accumulated_batches
from detector.weights import Origin


class BaseModule(L.LightningModule):
    """A network in training: its optimizer steps, frozen parts, temperature, and the origin of its weights.

    A subclass makes the network, ``model``; ``_schedule_step`` sets the rates of a batch; and ``configure_optimizers`` keeps
    the settings of the parameter groups in ``_group_settings``. Its hyperparameters have ``overrides``, ``nominal_batch``,
    ``clip_norm``, ``channels_last`` and ``compile``.
    """

    kind = ""  # of network, in checkpoints and messages
    metric_names = ""  # regular expression over the names of the metrics that checkpoints keep
    model: nn.Module
    hparams: Any  # its attributes are the arguments of the subclass

    def __init__(self) -> None:
        super().__init__()
        hide_hints()
        self._frozen: list[str] = []  # names of modules of ``freezable``
        # Of the experts' weights in dynamic layers: now, and by step, if a training is to start with a higher one
        self._temperature = 1.0
        self._temperatures: FallingTemperature | None = None
        self._origin = Origin()  # of the weights that training started from
        self._restored_metrics: dict[str, float] = {}  # of the checkpoint that is resumed, until the next validation
        self.latest_terms: dict[str, Tensor] = {}  # terms of the last loss, read by NonFiniteGuard
        self.step_skipped = False  # NonFiniteGuard skipped the last optimizer step; read by RampedEMA
        self._chosen_accumulation = 1  # set by this module; any other number above 1 is the choice of the Trainer's user
        self._group_settings: list[dict[str, Any]] = []
        self._early_end: tuple[int, int, int] | None = None  # see ``end_early``

    def end_early(self, first: int, end: int, planned: int | None) -> None:
        """Run through the rest of the schedules of ``planned`` epochs in the epochs from ``first`` to before ``end``."""
        self._early_end = None if planned in (None, -1) else (first, end, planned)

    @property
    def planned_epochs(self) -> int:
        """The epochs of the schedules: those of the training before it was to end early; -1 for endless training."""
        if self._early_end is not None:
            return self._early_end[2]
        return -1 if self.trainer.max_epochs is None else self.trainer.max_epochs

    @property
    def schedule_epoch(self) -> float:
        """The position of the current epoch in schedules of ``planned_epochs``: the epoch, unless training ends early."""
        if self._early_end is None or self.current_epoch < self._early_end[0]:
            return self.current_epoch
        first, end, planned = self._early_end
        return first + (self.current_epoch - first) * (planned - first) / max(end - first, 1)

    @property
    def freezable(self) -> nn.Module:
        """The network whose parts ``freeze`` names."""
        return self.model

    def _freeze(self, patterns: list[str], groups: PartGroups | None = None) -> None:
        """Freeze parts of the network, and keep them in evaluation mode from now on. For ``groups`` see ``find_parts``."""
        self._frozen = freeze_parts(self.freezable, patterns, groups)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode, except that frozen parts stay in evaluation mode."""
        super().train(mode)
        for name in self._frozen:
            self.freezable.get_submodule(name).training = False
        return self

    def _prepare(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.hparams.channels_last else torch.contiguous_format
        return network_input(images, cast(torch.dtype, self.dtype)).contiguous(memory_format=layout)

    def _set_accumulation(self, batch_size: int) -> int:
        """Set the Trainer's accumulation, unless its user did, and return the images of an optimizer step."""
        images_per_batch, nominal = batch_size * self.trainer.world_size, self.hparams.nominal_batch
        user_has_set_it = self.trainer.accumulate_grad_batches not in (1, self._chosen_accumulation)
        if not user_has_set_it:
            self._chosen_accumulation = 1 if nominal is None else accumulated_batches(nominal, images_per_batch)
            self.trainer.accumulate_grad_batches = self._chosen_accumulation
        return images_per_batch * self.trainer.accumulate_grad_batches

    def _keep_group_settings(self, groups: list[dict[str, Any]]) -> None:
        """Remember the settings of parameter groups: resuming restores those of the checkpoint."""
        self._group_settings = [{name: value for name, value in group.items() if name != "params"} for group in groups]

    def _plan_temperatures(self) -> None:
        """Choose and log the temperatures of the experts' weights, if they start above 1."""
        start = ((self.hparams.overrides or {}).get("dynamic") or {}).get("temperature", 1)
        if start != 1:
            self._temperatures = FallingTemperature(start, self.trainer.estimated_stepping_batches)
            rank_zero_info(self._temperatures)

    def _update_temperature(self) -> None:
        """Set the temperature of this step of a training; all processes have the same."""
        if self._temperatures is not None and self.trainer.state.fn == TrainerFn.FITTING:
            self._set_temperature(self._temperatures.at(self.trainer.global_step))

    def _set_temperature(self, temperature: float) -> None:
        self._temperature = temperature
        set_temperature(self.model, temperature)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip gradients to the Trainer's ``gradient_clip_val``, or to ``clip_norm`` if it has none."""
        if gradient_clip_val is None:
            gradient_clip_val = self.hparams.clip_norm or None
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        """Compile the network in place if ``compile`` is set, so the names in its state_dict stay."""
        restore_activations(self.model)  # Lightning may have made SyncBatchNorms
        if self.hparams.compile:
            self.model.compile()

    def on_validation_start(self) -> None:
        """Set the temperature of the last step, and undo what Lightning does to BatchNorms after several processes."""
        restore_activations(self.model)
        self._update_temperature()

    on_test_start = on_predict_start = on_validation_start

    def on_train_start(self) -> None:
        """Set the groups of the optimizer as this run is configured: resuming restored those of the checkpoint."""
        groups = self._optimizer().param_groups
        for group, settings in zip(groups, self._group_settings, strict=True):
            group.update(settings)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate, the momentum and the temperature of this batch."""
        self._update_temperature()
        self._schedule_step(self._optimizer(), batch_idx)

    def _optimizer(self) -> Optimizer:
        """Return the optimizer; these modules have one."""
        return cast(Optimizer, self.optimizers(use_pl_optimizer=False))

    def _schedule_step(self, optimizer: Optimizer, batch_idx: int) -> None:
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save provenance and license of the weights, and the metrics of the last validation."""
        epochs = cast(Any, self.trainer.fit_loop.epoch_progress.current).started
        source = self._origin.started_from
        after = f", starting from: {source}" if source else " from scratch"
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items() if re.fullmatch(self.metric_names, k)}
        checkpoint["weights_info"] = {
            **self._origin.to_dict(),
            "provenance": f"trained with lightning-dyn-detector for {plural(epochs, 'epoch')}{after}",
            "metrics": metrics or self._restored_metrics,
        }
        if self._temperature != 1:  # these weights need it
            checkpoint["weights_info"]["temperature"] = self._temperature

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore license and provenance of the weights, and the metrics of their last validation.

        Raises ValueError for the checkpoint of another kind of network.
        """
        info = checkpoint.get("weights_info", {})
        if (kind := info.get("kind", "detector")) != self.kind:
            raise ValueError(
                f"this is the checkpoint of a {kind}, not of a {self.kind}: it cannot be resumed or loaded here"
            )
        self._origin = Origin.from_dict(info)
        self._restored_metrics = dict(info.get("metrics") or {})
        self._set_temperature(info.get("temperature", 1.0))
