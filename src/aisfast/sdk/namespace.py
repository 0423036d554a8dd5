"""The official module path of `Namespace`."""

from aisfast.models import Namespace

__all__ = ["Namespace"]
