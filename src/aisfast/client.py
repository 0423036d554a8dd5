"""The client: settings, connections and options in one place, and the factories of everything else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aisfast.bucket import Bucket
from aisfast.cluster import Cluster
from aisfast.enums import Colocation, Provider
from aisfast.errors import InvalidURLException
from aisfast.models import Namespace
from aisfast.object import Object
from aisfast.policy import Policy
from aisfast.retry import RetryConfig, tries_once
from aisfast.session import Session
from aisfast.settings import Settings, resolve
from aisfast.unsupported import unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aisfast.batch import Batch
    from aisfast.legacy import BatchLoader
    from aisfast.pipeline import Pipeline
    from aisfast.stats import Stats
    from aisfast.transport import Transport
    from aisfast.view import ClusterView


class Client:
    """Access to one cluster. Shared by threads; usable after a fork; pickles. Making one sends nothing.

    Args:
        endpoint: URL of a gateway; None: `AIS_ENDPOINT`, else `http://localhost:8080`.
        skip_verify: Do not verify server certificates (`AIS_SKIP_VERIFY_CRT`).
        ca_cert: Path of a CA bundle or directory (`AIS_CLIENT_CA`); None: the system's.
        client_cert: Path of a certificate with its key, or the two paths (`AIS_CRT`, `AIS_CRT_KEY`).
        timeout: Seconds for connecting and for each read, or the pair; 0: no limit; None:
            `AIS_CONNECT_TIMEOUT` and `AIS_READ_TIMEOUT`, else 3 and 20 (90 for a batch).
        retry_config: A `RetryConfig`, ours or the official one: whether anything is tried again (see there).
        token: Bearer token (`AIS_AUTHN_TOKEN`, or the file `AIS_AUTHN_TOKEN_FILE`).
        max_pool_size: Idle connections kept per host (`AIS_MAX_CONN_POOL`).
        policy: Options of all batches; a call's own replace them.
    Raises:
        ValueError: An argument or a variable is not what it should be.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        skip_verify: bool = False,
        ca_cert: str | None = None,
        client_cert: str | tuple[str, str] | None = None,
        timeout: float | tuple[float, float] | None = None,
        retry_config: Any = None,
        token: str | None = None,
        max_pool_size: int | None = None,
        *,
        policy: Policy | None = None,
    ) -> None:
        settings = resolve(endpoint, skip_verify, ca_cert, client_cert, timeout, token, max_pool_size)
        if retry_config is not None and not hasattr(retry_config, "http_retry"):
            raise ValueError(f"retry_config={retry_config!r} must be a RetryConfig")
        self._retry_config = retry_config
        once = tries_once(retry_config)
        self._set_up(replace(settings, tries=1) if once else settings, policy or Policy(resume=not once))

    def _set_up(self, settings: Settings, policy: Policy, view: ClusterView | None = None) -> None:
        self.settings = settings
        self.policy = policy
        self.session = Session(settings, policy.redirect_hosts)
        self._view = view  # what the client this one is a copy of knew of the cluster
        self._made: list[Transport] = []  # the first one counts

    def __getstate__(self) -> tuple[Settings, Policy, ClusterView | None, Any]:
        view = self._transport.view if self._transport else self._view
        return self.settings, self.policy, view, self._retry_config

    def __setstate__(self, state: tuple[Settings, Policy, ClusterView | None, Any]) -> None:
        settings, policy, view, self._retry_config = state
        self._set_up(settings, policy, view)

    @property
    def retry_config(self) -> Any:
        """The one that was given, or `RetryConfig.default()`."""
        return RetryConfig.default() if self._retry_config is None else self._retry_config

    def close(self) -> None:
        """Close idle connections. The client can be used again; it opens new ones."""
        self.session.close()
        if self._transport:
            self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def transport(self) -> Transport:
        """The GetBatch exchanges of this client."""
        if not self._transport:
            from aisfast.transport import Transport  # compiled modules: not at import

            # Of two threads that make one, the first to be done is heard. No lock: a fork might leave it
            # locked for ever in the child.
            self._made.append(Transport(self.session, self._view))
        return self._made[0]

    @property
    def _transport(self) -> Transport | None:
        return self._made[0] if self._made else None

    @property
    def stats(self) -> Stats:
        """What all batches of this client have cost so far."""
        self.transport.sweep()  # ends that have come meanwhile count too
        return self.transport.stats

    # ------------------------------------------------------------------------------------ factories

    def bucket(
        self, bck_name: str, provider: Provider | str = Provider.AIS, namespace: Namespace | None = None
    ) -> Bucket:
        """The bucket of that name; no request is made.

        Raises:
            InvalidBckProvider: There is no such provider.
        """
        return Bucket(bck_name, self, provider, namespace)

    def cluster(self) -> Cluster:
        """The cluster; no request is made."""
        return Cluster(self)

    def get_object_from_url(self, url: str) -> Object:
        """The object of a URL `provider://bucket/name`; no request is made.

        Raises:
            InvalidURLException: The URL is none.
        """
        provider, bucket, name = parse_url(url) if isinstance(url, str) else ("", "", "")
        if not provider or not bucket or not name:
            raise InvalidURLException(url)
        return self.bucket(bucket, provider).object(name)

    def batch(
        self,
        objects: list[Object] | Object | str | list[str] | None = None,
        bucket: Bucket | None = None,
        output_format: str = ".tar",
        cont_on_err: bool = True,
        only_obj_name: bool = False,
        streaming_get: bool = True,
        colocation: Colocation = Colocation.NONE,
    ) -> Batch:
        """A batch: many objects, archive members or ranges in one request. It is sent when it is fetched.

        Arguments and errors: see `Batch`.
        """
        from aisfast.batch import Batch  # compiled modules: not at import

        if bucket is not None and not isinstance(bucket, Bucket):
            raise ValueError(f"bucket={bucket!r} must be a Bucket: pass client.bucket(name)")
        return Batch(
            self, objects, bucket, output_format, cont_on_err, only_obj_name, streaming_get, colocation
        )

    def pipeline(
        self,
        batches: Iterable[Batch | Iterable[Any]],
        *,
        bucket: Bucket | None = None,
        in_flight: int = 8,
        max_bytes: int = 256 << 20,
        missing: str = "raise",
        progress: Callable[[int], object] | None = None,
        policy: Policy | None = None,
    ) -> Pipeline:
        """Fetch many batches with several requests open at once; iterate over the `Columns` of each, in order.

        Args:
            batches: An iterable, which may be endless; each item is a `Batch` or a list of entries: `Object`s, names in
                `bucket`, or tuples (bucket, name[, archpath[, start, length]]).
            in_flight: Requests open at once, at most; fewer while the cluster is loaded.
            max_bytes: Bytes of payload received and not yet handed over, at most.
            missing: As for `Batch.fetch`.
            progress: Called with the number of entries of each batch that is handed over (`tqdm(...).update` fits).
            policy: Options for these calls, in place of the client's.
        Returns:
            An iterator, to be used in a `with` statement where it may be left early.
        Raises:
            ValueError: An argument is wrong. While iterating, in the batch's turn: an item is no batch.
            AISError: While iterating, in the batch's turn: it cannot be made whole. `LimitError`: it is larger than
                `max_bytes`.
        """
        from aisfast.pipeline import Pipeline  # compiled modules: not at import

        return Pipeline(
            self,
            batches,
            bucket=bucket,
            in_flight=in_flight,
            max_bytes=max_bytes,
            missing=missing,
            progress=progress,
            policy=policy,
        )

    def batch_loader(self) -> BatchLoader:
        """The loader of the API before `batch()` (official SDK 1.15 and 1.16)."""
        from aisfast.legacy import BatchLoader

        return BatchLoader(self)

    dsort = unsupported("Client.dsort")
    etl = unsupported("Client.etl")
    job = unsupported("Client.job")

    def __repr__(self) -> str:
        return f"Client({self.settings.endpoint!r})"


def parse_url(url: str) -> tuple[str, str, str]:
    """Provider, bucket and object name of a URL `provider://bucket/name`; "" for what it lacks."""
    provider, colon, rest = url.partition("://")
    bucket, _, name = rest.partition("/")
    return provider if colon else "", bucket, name if colon else url
