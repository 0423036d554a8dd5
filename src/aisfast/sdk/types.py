"""The official module path of what the cluster answers."""

from aisfast.models import BucketEntry, BucketList, BucketModel, Namespace, NetInfo, Smap, Snode
from aisfast.unsupported import absent

__all__ = ["BucketEntry", "BucketList", "BucketModel", "Namespace", "NetInfo", "Smap", "Snode"]
__path__, __getattr__ = absent(__name__)
