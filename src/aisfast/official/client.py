"""A client of ours for one of the official SDK's: the same cluster, as the same user, with the same time limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from aisfast.client import Client
from aisfast.official.shape import Shape
from aisfast.policy import Policy
from aisfast.settings import BATCH_READ_TIMEOUT, READ_TIMEOUT, Settings, resolve


class Foreign(Exception):
    """Something that we do not know: the official code does it."""


class Clients:
    """Our clients, one for each `RequestClient` that has sent a batch."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._known: WeakKeyDictionary[Any, tuple[Any, Client]] = WeakKeyDictionary()

    def of(self, theirs: Any, policy: Policy | None) -> Client:
        """Our client for a `RequestClient`; a new one if its settings have changed.

        Raises:
            Foreign: It is not one of the SDK's own making, or is told to do what we cannot.
        """
        shape = self._shape
        if type(theirs) is not shape.request_client or "request" in vars(theirs):
            raise Foreign(f"request_client is {type(theirs).__name__}, not the SDK's own RequestClient")
        if shape.request_client.request is not shape.request:
            raise Foreign("RequestClient.request was replaced")
        manager = theirs.session_manager
        if type(manager) is not shape.session_manager:
            raise Foreign(f"session_manager is {type(manager).__name__}, not the SDK's own SessionManager")
        session = manager.session
        told = (
            theirs.base_url,
            theirs.token,
            theirs.timeout,
            manager,
            session.verify,
            session.cert,
            session.auth,
            policy,
        )
        known = self._known.get(theirs)
        if known is not None and known[0] == told:
            return known[1]
        client = _client(theirs, manager, session, policy)
        if known is not None and known[1].settings.endpoint == client.settings.endpoint:
            client.__setstate__((*client.__getstate__()[:2], known[1].__getstate__()[2], client.retry_config))
        self._known[theirs] = (told, client)
        return client

    def close(self) -> None:
        """Close idle connections, and forget the clients."""
        for _, client in list(self._known.values()):
            client.close()
        self._known.clear()


def _client(theirs: Any, manager: Any, session: Any, policy: Policy | None) -> Client:
    retry = getattr(getattr(theirs, "_retry_manager", None), "retry_config", None)
    if policy is None:
        policy = Policy(resume=not _tries_once(retry))
    client = Client.__new__(Client)
    try:
        client.__setstate__((_settings(theirs, manager, session), policy, None, retry))
    except ValueError as error:
        raise Foreign(str(error)) from None
    return client


def _tries_once(retry: Any) -> bool:
    """The program has turned off both of the SDK's ways to try again."""
    http, network = getattr(retry, "http_retry", None), getattr(retry, "network_retry", None)
    once = getattr(getattr(network, "stop", None), "max_attempt_number", None) == 1
    return once and http is not None and not http.total


def _settings(theirs: Any, manager: Any, session: Any) -> Settings:
    import requests.adapters
    import requests.utils

    url = theirs.base_url
    for name in ("auth", "proxies", "params"):
        if getattr(session, name):
            raise Foreign(f"the session has {name} of its own")
    if not session.trust_env or type(session.get_adapter(url)) is not requests.adapters.HTTPAdapter:
        raise Foreign("the session is set up in a way of its own")
    if dict(session.headers) != dict(requests.utils.default_headers()) or any(session.hooks.values()):
        raise Foreign("the session has headers or hooks of its own")
    of_environment = session.merge_environment_settings(url, {}, None, None, None)
    verify, cert = of_environment["verify"], of_environment["cert"]
    connect, read = _timeouts(theirs.timeout)
    # The environment is asked for what the official SDK knows nothing of; all else is told.
    settings = resolve(url.removesuffix("/v1"), token=theirs.token or "none", timeout=0.0)
    return replace(
        settings,
        skip_verify=verify is False,
        ca_cert=verify if isinstance(verify, str) else requests.utils.DEFAULT_CA_BUNDLE_PATH,
        client_cert=(cert, None) if isinstance(cert, str) else tuple(cert) if cert else None,
        connect_timeout=connect,
        read_timeout=read,
        batch_read_timeout=BATCH_READ_TIMEOUT if read == READ_TIMEOUT else read,
        token=theirs.token or None,
        token_file=None,
        max_pool=manager._max_pool_size,
    )


def _timeouts(timeout: Any) -> tuple[float | None, float | None]:
    """Seconds for connecting and for reading. The official default for reading counts as not set."""
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if len(pair) != 2 or not all(part is None or isinstance(part, (int, float)) for part in pair):
        raise Foreign(f"timeout={timeout!r}")
    connect, read = pair
    return connect or None, read or None
