"""The callbacks of a training that write its checkpoints; ends by a bad image; options without an effect."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from detector.commands.run_cli import RunCLI
from detector.commands.train_cli import TrainCLI
from detector.imaging.read import BadImageError, UnreadKindError
from detector.network.head import BRANCHES


@pytest.mark.parametrize(("val_batches", "names"), [(1.0, ["best", "last"]), (0, ["last"])])
def test_best_ckpt_is_of_the_highest_ap_and_is_written_before_last_ckpt(val_batches: float, names: list[str]) -> None:
    """last.ckpt holds the best AP so far, so best.ckpt comes first."""
    settings = {"trainer": {"enable_checkpointing": None, "limit_val_batches": val_batches}}
    callbacks = TrainCLI._checkpoint_callbacks(
        SimpleNamespace(config_init=settings, run_dir=Path("run"), monitor="val/AP", monitor_mode="max")
    )
    assert [callback.filename for callback in callbacks] == names
    watched = [(callback.monitor, callback.mode) for callback in callbacks if callback.filename == "best"]
    assert watched == [("val/AP", "max")] * len(watched)


WORKER = """Caught BadImageError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "data/reader.py", line 41, in add
    raise error
ValueError: of OpenCV

detector.imaging.read.BadImageError: a.jpg: is not a whole image; restore it
This happened at image a.jpg.
"""


@pytest.mark.parametrize("error", [BadImageError(WORKER), UnreadKindError("a.jpg: is not a whole image; restore it")])
def test_a_bad_image_ends_a_run_with_its_name_and_no_traceback(error: BadImageError, tmp_path: Path) -> None:
    """Here, and in a worker, whose traceback torch puts into the message."""
    if not str(error).startswith("Caught"):
        error.add_note("This happened at image a.jpg.")
    with pytest.raises(SystemExit) as stop, RunCLI.run_environment(SimpleNamespace(run_dir=tmp_path)):
        raise error
    assert stop.value.code == "error: a.jpg: is not a whole image; restore it\nThis happened at image a.jpg."


def training_of(max_epochs: int | None, every: int | None = 1, interval: float = 1.0, **others: Any) -> SimpleNamespace:
    """Return what TrainCLI knows of a training of ``max_epochs`` of 10 batches, 4 to a step, that closes mosaic for 2."""
    numbers = {"world_size": 1, "accumulate_grad_batches": 1, "limit_train_batches": 1.0, "max_steps": -1}
    numbers |= {name: others.pop(name) for name in list(others) if name in numbers}
    trainer = SimpleNamespace(max_epochs=max_epochs, check_val_every_n_epoch=every, val_check_interval=interval, **numbers)
    return SimpleNamespace(
        trainer=trainer, config=dict.fromkeys(("patience", "monitor", "monitor_mode")) | others,
        config_init={"trainer": {"limit_val_batches": None}},
        model=SimpleNamespace(hparams=SimpleNamespace(nominal_batch=64)),
        datamodule=SimpleNamespace(num_closing_epochs=2, val_split=0.2, batch_size=16, num_train_batches=lambda n: 10 // n),
        _without_validation=lambda: TrainCLI._without_validation(SimpleNamespace(datamodule=None)),
    )  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "sound",
    [
        (9, 2, 1.0, {"patience": 3}),
        (7, 1, 1.0, {"patience": 3}),
        (-1, 5, 1.0, {"patience": 3}),
        (5, 5, 1.0, {}),
        (300, 1, 1.0, {"max_steps": 3, "monitor": "val/AP"}),  # 4, 4 and 2 batches
        (300, 1, 1.0, {"max_steps": 19, "patience": 3}),  # ends in the 7th epoch
        (-1, 1, 0.25, {"max_steps": 1, "monitor": "val/AP"}),  # a validation after 2 batches
        (2, None, 20, {"monitor": "val/AP"}),
        (1, None, 2, {"world_size": 4, "monitor": "val/AP"}),
    ],
)
def test_a_training_that_is_long_enough_is_not_warned_of(sound: tuple[int, int | None, float, dict[str, Any]]) -> None:
    *numbers, others = sound
    TrainCLI._check_length(training_of(*numbers, **others))


def test_a_training_that_ends_before_patience_is_warned_of() -> None:
    for training in (training_of(6, patience=3), training_of(300, patience=3, max_steps=18)):
        with pytest.warns(
            UserWarning, match="patience 3 changes nothing in a training of 6 epochs: .* after 6 epochs, the last 2"
        ):
            TrainCLI._check_length(training)


@pytest.mark.parametrize(
    ("numbers", "others", "message"),
    [
        ((4, 5), {}, r"after 50 batches \(trainer\.check_val_every_n_epoch 5\), .* has 40 \(trainer\.max_epochs 4\)"),
        ((300,), {"max_steps": 2}, r"after 10 batches \(an epoch\), .* has 8 \(trainer\.max_steps 2\)"),
        ((-1,), {"max_steps": 2}, r"after 10 batches \(an epoch\), .* has 8 \(trainer\.max_steps 2\)"),
        ((2, None, 21), {}, r"after 21 batches \(trainer\.val_check_interval 21\), .* has 20 \(trainer\.max_epochs 2\)"),
        ((2, 3), {"limit_train_batches": 4}, r"after 12 batches .* has 8 \(trainer\.max_epochs 2\)"),
        ((2, 1), {"max_steps": 3, "accumulate_grad_batches": 2}, r"after 10 batches \(an epoch\), .* has 6 "),
    ],
)
def test_a_training_that_ends_before_its_first_validation_is_warned_of(
    numbers: tuple[Any, ...], others: dict[str, Any], message: str
) -> None:
    with pytest.warns(UserWarning, match=message + r".*; there is no validation: .* no best\.ckpt"):
        TrainCLI._check_length(training_of(*numbers, **others))
    for name in ("patience", "monitor", "monitor_mode"):
        with pytest.raises(ValueError, match=f"^{name} needs a validation; .*{message}.*: change one .*leave out {name}"):
            TrainCLI._check_length(training_of(*numbers, **others, **{name: 1}))


@pytest.mark.parametrize(("max_epochs", "logged"), [(1, True), (2, True), (3, False), (-1, False), (None, False)])
def test_a_training_without_an_epoch_with_mosaic_says_so(
    max_epochs: int | None, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Mosaic closes for the last 2 epochs."""
    with caplog.at_level("INFO"):
        TrainCLI._check_length(training_of(max_epochs))
    text = f"data.augment.close_mosaic 2 covers all epochs ({max_epochs}): no image is mixed with others"
    assert caplog.messages == ([text] if logged else [])


@pytest.mark.parametrize("limit", [0, 0.09])
def test_a_limit_that_leaves_no_batch_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match=rf"limit_train_batches is {limit}, and leaves none of the 10 batches of an epoch;"):
        TrainCLI._check_batches(training_of(3, limit_train_batches=limit))
    for enough in (1, 1.0, 0.1):
        TrainCLI._check_batches(training_of(3, limit_train_batches=enough))


class Monitored(TrainCLI):
    """What TrainCLI knows of the options of a monitored number, with two classes."""

    datamodule = SimpleNamespace(class_names=["cat", "box"])

    def __init__(self, branches: tuple[str, ...] = BRANCHES, per_class: bool = True, **options: Any) -> None:
        self.config = dict.fromkeys(("patience", "monitor", "monitor_mode")) | options
        evaluation = SimpleNamespace(branches=branches, per_class=per_class)
        self.config_init = {"trainer": {"limit_val_batches": None}, "evaluation": evaluation}


@pytest.mark.filterwarnings("error")
def test_a_mode_that_takes_the_worst_value_is_warned_of() -> None:
    with pytest.warns(
        UserWarning, match="^monitor_mode min: best.ckpt gets the lowest val/AP, of which high values are bet"
    ):
        Monitored(monitor_mode="min")._check_monitor()
    with pytest.warns(UserWarning, match="^monitor_mode max: best.ckpt gets the highest val/one2one/box, of which low"):
        Monitored(monitor="val/one2one/box", monitor_mode="max")._check_monitor()
    of_class = {"monitor": "val/AP_class/box"}  # no loss
    for sound in ({}, {"monitor_mode": "max"}, {"monitor": "val/one2one/box", "monitor_mode": "min"}, of_class):
        Monitored(**sound)._check_monitor()
    assert Monitored(**of_class).monitor_mode == "max"


@pytest.mark.parametrize(
    ("monitor", "settings", "remedy"),
    [
        ("val/one2many/AP", {"branches": ("one2one",)}, "set evaluation.branch to both$"),
        ("val/AP_class/cat", {"per_class": False}, "set evaluation.per_class to true$"),
        (
            "val/one2many/AP_class/cat",
            {"branches": ("one2one",), "per_class": False},
            "set evaluation.branch to both and evaluation.per_class to true$",
        ),
        ("val/one2many/APP", {"branches": ("one2one",)}, "unknown number of the validation for monitor: 'val/one2many/APP'"),
    ],
)
def test_a_number_that_the_evaluation_leaves_out_is_answered_with_its_setting(
    monitor: str, settings: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        Monitored(monitor=monitor, **settings)._check_monitor()
    if "APP" not in monitor:
        Monitored(monitor=monitor)._check_monitor()
