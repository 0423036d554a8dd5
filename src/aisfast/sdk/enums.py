"""The official module path of the enums."""

from aisfast.enums import Colocation, FLTPresence

__all__ = ["Colocation", "FLTPresence"]
