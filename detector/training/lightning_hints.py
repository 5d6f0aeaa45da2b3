"""Keep hints of Lightning that do not apply to detectors out of the log."""

import logging
import warnings

HINTS = (
    ".*does not have many workers.*",  # training is timed: DataWait warns if steps wait for data
    ".*smaller than the logging interval.*",  # losses are logged by epoch
    ".*exists and is not empty.*",  # checkpoints of the same run
    ".*module.s. in eval mode at the start of training.*",  # intended: frozen parts stay in evaluation mode
    ".*LeafSpec.*",  # about Lightning's own code
)
FROM_LIGHTNING = r"(pytorch_)?lightning(_fabric)?(\.|$)"


def hide_hints() -> None:
    """Ignore ``HINTS`` that Lightning's modules give, and the tips in its log. All other warnings stay as they are."""
    for message in HINTS:
        warnings.filterwarnings("ignore", message=message, module=FROM_LIGHTNING)
    for name in ("lightning.pytorch.utilities.rank_zero", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).addFilter(_is_no_tip)  # the same filter is added only once


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip: For seamless" not in record.getMessage()
