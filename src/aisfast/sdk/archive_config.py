"""The official module path of archive options."""

from aisfast.enums import ArchiveMode
from aisfast.models import ArchiveConfig
from aisfast.unsupported import absent

__all__ = ["ArchiveConfig", "ArchiveMode"]
__path__, __getattr__ = absent(__name__)
