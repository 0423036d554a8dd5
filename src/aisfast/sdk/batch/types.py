"""The official module path of the wire models."""

from aisfast._items import MossOut
from aisfast.models import MossIn, MossReq, MossResp
from aisfast.unsupported import absent

__all__ = ["MossIn", "MossOut", "MossReq", "MossResp"]
__path__, __getattr__ = absent(__name__)
