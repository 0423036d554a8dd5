"""What the official SDK's programs say about trying again.

There a config drives two retry loops. Here what is tried again, when and for how long is decided in one place, by what
failed and by `Policy`; a config only tells whether anything is tried again at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aisfast.errors import AISConnectionError, AISRetryableError, AISTimeoutError

if TYPE_CHECKING:
    from urllib3.util.retry import Retry

NETWORK_RETRY_EXCEPTIONS = (AISTimeoutError, AISConnectionError, AISRetryableError)


@dataclass
class ColdGetConf:
    """How the official SDK waits for an object that the cluster must first get from a cloud. Of no effect here.

    Attributes:
        est_bandwidth_bps: Bytes per second from there.
        max_cold_wait: Seconds.
        enable_remote_head: Ask the cloud for the size.
    """

    est_bandwidth_bps: int = 1_250_000_000
    max_cold_wait: int = 180
    enable_remote_head: bool = True


@dataclass
class RetryConfig:
    """What `Client(retry_config=...)` takes. Pickles without `network_retry`, as the official one does.

    A config that turns both loops off (`http_retry` without a try left, `network_retry` that stops after one attempt)
    is kept: a REST call is sent once, and batches are fetched with `Policy(resume=False)` unless the client has a
    policy. Any other leaves both to aisfast.

    Attributes:
        http_retry: A `urllib3.Retry`.
        network_retry: A `tenacity.Retrying`; None: ours.
        cold_get_conf: See there.
    """

    http_retry: Any
    network_retry: Any
    cold_get_conf: ColdGetConf = field(default_factory=ColdGetConf)

    @staticmethod
    def default() -> RetryConfig:
        """The official numbers for answers of 429 and 5xx; all else is left to aisfast."""
        from urllib3.util.retry import Retry

        http: Retry = Retry(5, connect=0, read=0, backoff_factor=3.0, status_forcelist=[429, 500, 502, 503, 504])
        return RetryConfig(http, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "network_retry": None}


def tries_once(config: Any) -> bool:
    """Whether a config, ours or an official one, says that nothing is tried again."""
    http, network = getattr(config, "http_retry", None), getattr(config, "network_retry", None)
    once = getattr(getattr(network, "stop", None), "max_attempt_number", None) == 1
    return once and http is not None and not http.total
