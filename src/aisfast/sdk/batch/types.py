"""The official module path of the wire models."""

from aisfast._items import MossOut
from aisfast.models import MossIn, MossReq, MossResp

__all__ = ["MossIn", "MossOut", "MossReq", "MossResp"]
