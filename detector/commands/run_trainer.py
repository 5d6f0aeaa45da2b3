"""The Trainer of all programs."""

from typing import Any

from lightning.pytorch import Trainer


class RunTrainer(Trainer):
    """Lightning's Trainer. A limit of 1 is one batch, and of 1.0 all batches, on the command line and in files, too.

    (Lightning's own types come as float or int where a library has written them in this order before: then 1 becomes 1.0.)
    """

    def __init__(
        self,
        *,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        **settings: Any,
    ) -> None:
        """Make the Trainer.

        Args:
            limit_train_batches: training batches of an epoch, or as a float a share of them; by default 1.0.
            limit_val_batches: the same of a validation.
            limit_test_batches: the same of a test.
            limit_predict_batches: the same of a prediction.
        """
        super().__init__(
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            limit_predict_batches=limit_predict_batches,
            **settings,
        )
