"""The cluster: its map, its health, its buckets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aisfast.enums import Provider
from aisfast.errors import AISError
from aisfast.models import BucketModel, Smap
from aisfast.unsupported import unsupported

if TYPE_CHECKING:
    from aisfast.client import Client


class Cluster:
    """The cluster behind a client; no request is made before a method is called."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def client(self) -> Client:
        """Through which the cluster is reached."""
        return self._client

    def get_info(self) -> Smap:
        """The cluster map: which nodes there are, and where."""
        return self._client.session.get_json("daemon", Smap.from_wire, params={"what": "smap"})

    def get_uuid(self) -> str:
        """The id of the cluster."""
        return self.get_info().uuid

    def get_primary_url(self) -> str:
        """Where the primary gateway is."""
        net = self.get_info().proxy_si.public_net
        return net.direct_url if net else ""

    def is_ready(self) -> bool:
        """Whether the cluster has started up; False also when it cannot be reached."""
        try:
            primary = self.get_primary_url().rstrip("/")
            self._client.session.request("GET", "health", params={"prr": "true"}, endpoint=primary or None)
        except AISError:
            return False
        return True

    def list_buckets(self, provider: str | Provider = Provider.AIS) -> list[BucketModel]:
        """The buckets of a provider, "" for those of all.

        Raises:
            InvalidBckProvider: There is no such provider.
        """
        return self._client.session.get_json(
            "buckets",
            _buckets,
            params={"provider": Provider.parse(provider).value if provider else ""},
            json={"action": "list", "name": "", "value": None},
        )

    get_cluster_logs = unsupported("Cluster.get_cluster_logs")
    get_node_log = unsupported("Cluster.get_node_log")
    get_node_log_archive = unsupported("Cluster.get_node_log_archive")
    get_performance = unsupported("Cluster.get_performance")
    list_etls = unsupported("Cluster.list_etls")
    list_jobs_status = unsupported("Cluster.list_jobs_status")
    list_running_jobs = unsupported("Cluster.list_running_jobs")


def _buckets(value: Any) -> list[BucketModel]:
    return [BucketModel.from_wire(entry) for entry in value or ()]
