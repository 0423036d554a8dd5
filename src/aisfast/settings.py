"""Where a client's settings come from: arguments, then the environment, then defaults; and limits that nothing changes.

The environment is read when a client is made, never at import. Official names first; ours begin with `AISFAST_`.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

KIB = 1 << 10
MIB = 1 << 20

DEFAULT_ENDPOINT = "http://localhost:8080"
CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 20.0  # everything but GetBatch
BATCH_READ_TIMEOUT = 90.0  # a target may be silent for a minute while it waits for a peer
MAX_CONN_POOL = 10
TRIES = 3  # of a REST call that may be repeated

# Limits (bytes unless said otherwise): what a server may send before it is refused with a LimitError.
MAX_HEAD = 64 * KIB  # status line and header section
MAX_CHUNK_LINE = 4 * KIB  # one chunk-size line with its extensions
MAX_PAX = 1 * MIB  # the records of one PAX header, or one GNU long name
MAX_METADATA = 256 * MIB  # the metadata part of a multipart answer ...
MAX_METADATA_PER_ENTRY = 64 * KIB  # ... and never more than this times the entries asked for
MAX_ERROR_BODY = 1 * MIB
MAX_REDIRECTS = 5  # hops of one request
MAX_DRAINING = 16  # answers per target whose end is still awaited after their batch was whole


@dataclass(frozen=True)
class Settings:
    """Everything about a client that is not about one batch. Frozen, picklable.

    Attributes:
        endpoint: URL of the cluster's gateway ("proxy"), without a trailing slash.
        skip_verify: Do not verify server certificates.
        ca_cert: Path of a CA bundle, or None for the system's.
        client_cert: Paths of the client's certificate and key for mTLS, or None; the key is None if one file has both.
        connect_timeout, read_timeout: Seconds, None for no limit.
        batch_read_timeout: Seconds between two reads of a GetBatch answer, None for no limit.
        token: Bearer token for the endpoint, or None.
        token_file: JSON file `{"token": ...}` the token comes from, or None.
        max_pool: Idle connections kept per host.
        expect_targets: Targets the cluster is known to have (`AISFAST_EXPECT_TARGETS`), 0 if not given.
        blackbox: Directory for the answers that end batches in a `WireError` (`AISFAST_BLACKBOX`), None: not kept.
        tries: Of a REST call that may be repeated, at most.
    """

    endpoint: str = DEFAULT_ENDPOINT
    skip_verify: bool = False
    ca_cert: str | None = None
    client_cert: tuple[str, str | None] | None = None
    connect_timeout: float | None = CONNECT_TIMEOUT
    read_timeout: float | None = READ_TIMEOUT
    batch_read_timeout: float | None = BATCH_READ_TIMEOUT
    token: str | None = None
    token_file: str | None = None
    max_pool: int = MAX_CONN_POOL
    expect_targets: int = 0
    blackbox: str | None = None
    tries: int = TRIES

    def __repr__(self) -> str:
        return f"Settings(endpoint={self.endpoint!r}, token={'set' if self.token else 'not set'})"


def resolve(
    endpoint: str | None = None,
    skip_verify: bool = False,
    ca_cert: str | None = None,
    client_cert: str | tuple[str, str] | None = None,
    timeout: float | tuple[float, float] | None = None,
    token: str | None = None,
    max_pool_size: int | None = None,
) -> Settings:
    """Settings from a client's arguments and the environment.

    Args:
        timeout: Seconds for connecting and reading, or a pair (connect, read); 0 is no limit; None: the environment.
    Raises:
        ValueError: An argument or a variable is not what it should be; it is named.
    """
    connect, read, batch_read = _timeouts(timeout)
    token_file = None
    token = _token(token or os.environ.get("AIS_AUTHN_TOKEN"))
    if not token:
        token_file = os.environ.get("AIS_AUTHN_TOKEN_FILE") or None
        token = read_token_file(token_file) if token_file else None
    if client_cert is None:
        crt, key = os.environ.get("AIS_CRT"), os.environ.get("AIS_CRT_KEY")
        cert: tuple[str, str | None] | None = (crt, key) if crt and key else None
    elif isinstance(client_cert, str):
        cert = (client_cert, None)
    else:
        cert = (client_cert[0], client_cert[1])
    return Settings(
        endpoint=_endpoint(endpoint or os.environ.get("AIS_ENDPOINT") or DEFAULT_ENDPOINT),
        skip_verify=bool(skip_verify) or _truthy("AIS_SKIP_VERIFY_CRT", "AIS_SKIP_VERIFY"),
        ca_cert=ca_cert or os.environ.get("AIS_CLIENT_CA") or None,
        client_cert=cert,
        connect_timeout=connect,
        read_timeout=read,
        batch_read_timeout=batch_read,
        token=token,
        token_file=token_file,
        max_pool=max_pool_size if max_pool_size is not None else int(_number("AIS_MAX_CONN_POOL", MAX_CONN_POOL)),
        expect_targets=int(_number("AISFAST_EXPECT_TARGETS", 0)),
        blackbox=os.environ.get("AISFAST_BLACKBOX") or None,
    )


def read_token_file(path: str) -> str:
    """The token in a file of the form `{"token": "..."}`, as `ais auth login` writes it.

    Raises:
        ValueError: The file cannot be read, or holds no token.
    """
    try:
        return _token(json.loads(Path(path).read_text(encoding="utf-8"))["token"]) or ""
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = type(error).__name__
        raise ValueError(f"AIS_AUTHN_TOKEN_FILE={path!r} holds no token ({reason}); log in again") from None


def _token(token: str | None) -> str | None:
    token = str(token or "").strip()
    if any(not "!" <= c <= "~" for c in token):  # it goes into a header; what is wrong with it must not be quoted
        raise ValueError("the token (token= or AIS_AUTHN_TOKEN) holds a space or another character that no token has")
    return token or None


def _endpoint(url: str) -> str:
    url = url.strip()
    if "://" not in url:
        url = f"http://{url}"
    url = url.rstrip("/")
    if "@" in url:
        raise ValueError("the endpoint holds a user name or password: pass token= (or AIS_AUTHN_TOKEN) instead")
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        right = False
    if not right or any(c.isspace() for c in url):
        raise ValueError(f"endpoint {url!r} is not a URL like http://host:port (argument endpoint= or AIS_ENDPOINT)")
    return url


def _timeouts(timeout: float | tuple[float, float] | None) -> tuple[float | None, float | None, float | None]:
    if timeout is None:
        read = _number("AIS_READ_TIMEOUT", READ_TIMEOUT)
        batch = _number("AIS_READ_TIMEOUT", BATCH_READ_TIMEOUT)
        return _number("AIS_CONNECT_TIMEOUT", CONNECT_TIMEOUT) or None, read or None, batch or None
    pair = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    try:
        connect, read = (None if value is None else float(value) for value in pair)
    except (TypeError, ValueError):
        raise ValueError(f"timeout={timeout!r} must be seconds, or a pair (connect, read); 0 is no limit") from None
    if (connect or 0) < 0 or (read or 0) < 0:
        raise ValueError(f"timeout={timeout!r} must not be negative; 0 is no limit")
    return connect or None, read or None, read or None


def _number(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if value < 0:
        warnings.warn(f"{variable}={text!r} is not a number of 0 or more; {default} is used", stacklevel=4)
        return default
    return value


def _truthy(*variables: str) -> bool:
    return any(os.environ.get(name, "").strip().lower() in ("1", "t", "true", "y", "yes", "on") for name in variables)
