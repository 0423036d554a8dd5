"""The official module path of `Cluster`."""

from aisfast.cluster import Cluster
from aisfast.unsupported import absent

__all__ = ["Cluster"]
__path__, __getattr__ = absent(__name__)
