"""Export a detector to other runtimes."""

from detector.export.formats import export
from detector.export.graph import ExportSettings

__all__ = ["ExportSettings", "export"]
