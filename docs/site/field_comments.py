"""Griffe extension: the comments behind the fields of a class become a list of its attributes in the API reference.

Fields of batches and results are described where they are declared: ``boxes: Tensor  # (N, 4) ...``. Without this, the
reference would lack their shapes and units.
"""

import io
import tokenize
from typing import Any

from griffe import Class, Extension


class FieldComments(Extension):
    """Add ``Attributes:`` with the commented fields to the docstring of each class that has some."""

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        comments = {name: comment_of(field.source) for name, field in cls.attributes.items() if not field.is_alias}
        lines = [f"    {name}: {comment}" for name, comment in comments.items() if comment and not cls[name].docstring]
        if lines and cls.docstring is not None:
            cls.docstring.value = "\n".join([cls.docstring.value, "", "Attributes:", *lines])


def comment_of(source: str) -> str:
    """Return the comments in a statement as one text without ``#``; empty if it has none."""
    tokens = tokenize.generate_tokens(io.StringIO(source.strip()).readline)
    return " ".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)
