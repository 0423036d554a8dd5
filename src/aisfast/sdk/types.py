"""The official module path of what the cluster answers."""

from aisfast.models import BucketEntry, BucketList, BucketModel, Namespace, NetInfo, Smap, Snode

__all__ = ["BucketEntry", "BucketList", "BucketModel", "Namespace", "NetInfo", "Smap", "Snode"]
