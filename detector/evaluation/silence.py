"""Keep what pycocotools prints off the standard output."""

import contextlib
import io
from collections.abc import Iterator
from threading import RLock

_LOCK = RLock()  # the output is that of all threads: if they left in another order than they came, it would stay off


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Print nothing while the context is active; one thread at a time. Other threads print nothing, either."""
    with _LOCK, contextlib.redirect_stdout(io.StringIO()):
        yield
