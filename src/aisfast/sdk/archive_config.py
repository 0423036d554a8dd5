"""The official module path of archive options."""

from aisfast.enums import ArchiveMode
from aisfast.models import ArchiveConfig

__all__ = ["ArchiveConfig", "ArchiveMode"]
