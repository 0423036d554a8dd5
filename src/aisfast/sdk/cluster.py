"""The official module path of `Cluster`."""

from aisfast.cluster import Cluster

__all__ = ["Cluster"]
