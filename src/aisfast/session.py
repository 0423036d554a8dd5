"""Connections to a cluster, and its REST calls. The only file that knows urllib3; loads it on first use.

Laws:
- A redirect is followed by us, once, with the same method and body; from https to http never.
- The token goes to the endpoint's own scheme, host and port, and nowhere else.
- A request is repeated from the endpoint, never at the place it was redirected to.
- What fails is an error of ours, whatever library noticed it.
- Nothing is locked: a lock that another thread holds at a fork would never be free in the child.
"""

from __future__ import annotations

import io
import ipaddress
import json as jsonlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    SentRequest,
    WireError,
    error_from_answer,
)
from aisfast.models import Smap
from aisfast.settings import KIB, MAX_ERROR_BODY, MAX_REDIRECTS, MIB, Settings, read_token_file
from aisfast.version import __version__

if TYPE_CHECKING:
    import socket
    import ssl

    import urllib3

BACKOFF = 0.2  # seconds before the second try, at most; doubled for each further one
SMALL_BODY = 64 * KIB  # up to this a body is sent to the gateway too, else only to where it redirects
READ_SIZE = 1 * MIB  # of a body, at a time: its announced length is not believed
HOST_POOLS = 256  # hosts whose idle connections are kept: more than a large cluster has nodes

_REDIRECTS = (301, 302, 307, 308)
_PORTS = {"http": 80, "https": 443}
_T = TypeVar("_T")


class Origin(NamedTuple):
    """Whom a URL addresses: what a token may be sent to."""

    scheme: str
    host: str
    port: int

    @property
    def place(self) -> str:
        """`host:port`, as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}"


def origin_of(url: str) -> Origin:
    """The origin of an http or https URL.

    Raises:
        ValueError: It is no such URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is no http or https URL")
    return Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])


class FileBody:
    """A request body out of a file: exactly its size at the start, from the start, as often as needed.

    Raises:
        ValueError: The file became shorter while it was sent.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self._left = self._size

    def __len__(self) -> int:
        return self._size

    def rewind(self) -> None:
        self._file.seek(0)
        self._left = self._size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        if not data and self._left:
            raise ValueError(f"{self._file.name}: became shorter while it was sent")
        self._left -= len(data)
        return data


class _Call(NamedTuple):
    """A request, as it is sent again at every hop."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes | FileBody | None
    stream: bool
    read_timeout: float | None
    redirect_hosts: tuple[str, ...] | None = None


class Session:
    """Connections and REST calls of one client. Shared by threads; after a fork opens its own; pickles.

    Args:
        settings: Where to, as whom, how long.
        redirect_hosts: Hosts that answers may redirect to; None: the hosts of the cluster map.
    """

    def __init__(self, settings: Settings, redirect_hosts: tuple[str, ...] | None = None) -> None:
        self.settings = settings
        self.redirect_hosts = redirect_hosts
        self.endpoint = origin_of(settings.endpoint)
        self.token = settings.token
        self._proxies = _proxies_of_environment()
        self._answered = False  # the endpoint has answered at least once
        # Places in the cluster map; None: it is kept from us.
        self._nodes: frozenset[str] | None = frozenset()
        self._pid = os.getpid()
        self._managers: dict[tuple[str | None, bool], urllib3.PoolManager] = {}
        self._context: ssl.SSLContext | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, (self.settings, self.redirect_hosts)

    def close(self) -> None:
        """Close idle connections. The session can be used again; it opens new ones."""
        self._after_fork()
        managers, self._managers = self._managers, {}
        for manager in managers.values():
            manager.clear()

    def reload_token(self) -> bool:
        """Read the token file again, after a 401. True if the token changed."""
        if self.settings.token_file is None:
            return False
        try:
            token = read_token_file(self.settings.token_file)
        except ValueError:
            return False  # the 401 tells the user what to do
        changed = token != self.token
        self.token = token
        return changed

    # ------------------------------------------------------------------------------ raw connections

    def connect(self, scheme: str, host: str, port: int) -> tuple[socket.socket, bool]:
        """A connected socket, TLS done, for an HTTP/1.1 exchange that the caller speaks.

        Its timeout is the one for connecting until the caller sets another. The caller owns and closes it.

        Returns:
            The socket, and whether it leads to a forward proxy: then requests name the whole URL and carry
            `proxy_headers()`.
        Raises:
            AISConnectionError, AISTimeoutError: There is no connection; the message says why and what to do.
        """
        from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
        from urllib3.util import parse_url

        self._after_fork()
        to = Origin(scheme, host, port)
        proxy = self._proxy_of(to)
        first = origin_of(proxy) if proxy else to
        timeout = self.settings.connect_timeout
        with self.translated(str(to), "CONNECT"):
            if scheme == "https" or first.scheme == "https":
                context = self._tls()
                connection: Any = HTTPSConnection(
                    first.host,
                    first.port,
                    timeout=timeout,
                    ssl_context=context,
                    proxy=parse_url(proxy) if proxy else None,
                    proxy_config=ProxyConfig(context, False, None, None) if proxy else None,
                )
            else:
                connection = HTTPConnection(first.host, first.port, timeout=timeout)
            if proxy and scheme == "https":
                connection.set_tunnel(host, port, self._headers_for_proxy(proxy), first.scheme)
            try:
                connection.connect()
                # The caller's now: closing the connection object leaves it open.
                sock, connection.sock = connection.sock, None
            finally:
                connection.close()
        return sock, bool(proxy) and scheme == "http"

    def proxy_headers(self, scheme: str, host: str, port: int) -> dict[str, str]:
        """The headers a forward proxy wants on each plain http request sent through it."""
        proxy = self._proxy_of(Origin(scheme, host, port))
        return self._headers_for_proxy(proxy) if proxy and scheme == "http" else {}

    # ----------------------------------------------------------------------------------- REST calls

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | FileBody | None = None,
        json: Any = None,
        stream: bool = False,
        read_timeout: float | None = None,
        endpoint: str | None = None,
        tries: int | None = None,
        redirect_hosts: tuple[str, ...] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One REST call.

        A GET or HEAD is tried again when the connection fails, a time limit passes, or the answer is 429 or 503;
        anything else only when the connection was refused. A refusal before the endpoint's first answer is final.

        Args:
            path: Below `/v1/`, percent-encoded, e.g. `"buckets/b"`.
            params: Of the query string.
            body: What to send, a `FileBody` for a file.
            json: What to send as JSON, in place of `body`.
            stream: Leave the answer's body to the caller, who reads it within `translated()` and closes it.
            read_timeout: Seconds between two reads; None: the settings'.
            endpoint: Another node than the settings' endpoint.
            tries: Of a call that may be tried again, at most; None: the settings'.
            redirect_hosts: As for `follow`.
        Returns:
            The answer, status below 400. Without `stream` its whole body is in `.data`.
        Raises:
            AISError: An error answer, as the class that its status and text tell.
            AISConnectionError, AISTimeoutError: There was no answer, or it was cut.
        """
        url = f"{endpoint or self.settings.endpoint}/v1/{path.lstrip('/')}"
        if params:
            url = f"{url}?{urlencode(params, quote_via=quote)}"
        sent = {"User-Agent": f"aisfast/{__version__}", "Accept": "*/*", **(headers or {})}
        if json is not None:
            body = jsonlib.dumps(json).encode()
            sent["Content-Type"] = "application/json"
        call = _Call(method, url, sent, body, stream, read_timeout or self.settings.read_timeout, redirect_hosts)
        return self._tried(call, lambda: self._followed(call), tries)

    def get_json(self, path: str, parse: Callable[[Any], _T], **options: Any) -> _T:
        """A GET whose answer is JSON.

        Args:
            parse: Makes the result of the JSON; what it raises means that the JSON is wrong.
            options: As for `request`.
        Raises:
            WireError: The answer is not such JSON.
        """
        answer = self.request("GET", path, **options)
        return self._parsed(answer, parse, f"{self.settings.endpoint}/v1/{path}")

    def follow(self, url: str, location: str | None, redirect_hosts: tuple[str, ...] | None = None) -> str:
        """The URL that an answer from `url` redirects to, once it is known to be a place we may go to.

        Args:
            location: The answer's `Location`.
            redirect_hosts: The hosts allowed; None: the session's, or else those of the cluster map.
        Raises:
            AISConnectionError: It leads from https to http, or to a host that is not allowed.
            WireError: It is no URL, or missing.
        """
        try:
            if not location:
                raise ValueError
            target = location if "://" in location else urljoin(url, location)
            to = origin_of(target)
            if "@" in urlsplit(target).netloc:  # of whoever redirects: it would show in errors, and no node asks for it
                raise ValueError
        except ValueError:
            location = _shown(location or "")
            where = f"to {location!r}, which is no URL of a node" if location else "without saying where (no Location)"
            raise WireError(
                0,
                f"{_shown(url)} redirects {where}",
                _shown(url),
                remedy="is the endpoint an AIStore gateway? what stands before it?",
                layer="http",
                expected="the URL of a node",
                found=location,
            ) from None
        if urlsplit(url).scheme == "https" and to.scheme == "http":
            raise AISConnectionError(
                0,
                f"{_shown(url)} redirects from https to {to}",
                _shown(url),
                remedy="not followed: the cluster's targets must speak https too",
                kind="redirect",
            )
        if to != self.endpoint and not self._may_go_to(to, redirect_hosts):
            raise AISConnectionError(
                0,
                f"{_shown(url)} redirects to {to}, which is no host of the cluster",
                _shown(url),
                remedy="not followed: name it in Policy(redirect_hosts=...) if it is right",
                kind="redirect",
            )
        return target.partition("#")[0]

    # ------------------------------------------------------------------------------- tries and hops

    def _tried(self, call: _Call, attempt: Callable[[], _T], most: int | None = None) -> _T:
        most = most or self.settings.tries
        may_renew = True
        tries = 1
        while True:
            try:
                return attempt()
            except AISError as error:
                if error.status_code == 401 and may_renew and self.reload_token():
                    may_renew = False
                    continue
                if tries >= most or not self._worth_another_try(error, call):
                    raise
            time.sleep(random.uniform(0, BACKOFF * 2 ** (tries - 1)))
            tries += 1

    def _worth_another_try(self, error: AISError, call: _Call) -> bool:
        kind = getattr(error, "kind", "")
        if kind == "refused":
            return self._answered
        if call.method not in ("GET", "HEAD"):
            return False
        return kind == "broken" or isinstance(error, AISTimeoutError) or error.status_code in (429, 503)

    def _followed(self, call: _Call) -> urllib3.BaseHTTPResponse:
        url = call.url
        for hop in range(MAX_REDIRECTS + 1):
            response = self._sent(call, url, first=hop == 0)
            if response.status not in _REDIRECTS:
                return self._answer(call, url, response)
            location = response.headers.get("Location")
            self._read(call, url, response, MAX_ERROR_BODY)
            url = self.follow(url, location, call.redirect_hosts)
        raise AISConnectionError(
            0,
            f"{_shown(call.url)}: more than {MAX_REDIRECTS} redirects, the last to {origin_of(url)}",
            _shown(call.url),
            remedy="check the addresses in the cluster map (`aisfast doctor`)",
            kind="redirect",
        )

    def _sent(self, call: _Call, url: str, first: bool) -> urllib3.BaseHTTPResponse:
        import urllib3

        to = origin_of(url)
        headers = dict(call.headers)
        if self.token and to == self.endpoint:
            headers["Authorization"] = f"Bearer {self.token}"
        body = call.body
        if isinstance(body, FileBody):
            body.rewind()
        if body is not None:
            headers["Content-Length"] = str(len(body))
            if first and len(body) > SMALL_BODY and call.method != "GET":
                # A gateway redirects by the head alone and may close while we send. It is told the true
                # length (a signed redirect covers it), and to close: the body will not come.
                headers["Connection"] = "close"
                body = None
        manager = self._manager(to)
        with self.translated(url, call.method, call.read_timeout):
            response = manager.urlopen(
                call.method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=self.settings.connect_timeout, read=call.read_timeout),
            )
        self._answered = True
        return response

    def _answer(self, call: _Call, url: str, response: urllib3.BaseHTTPResponse) -> urllib3.BaseHTTPResponse:
        import urllib3

        if response.status >= 400:
            data = self._read(call, url, response, MAX_ERROR_BODY)
            text = header_text(response.headers.get("Hdr-Error", "")) or data.decode("utf-8", "replace")
            raise error_from_answer(
                response.status, text, SentRequest(call.method, url, call.headers), self.token
            )
        if call.stream:
            return response
        return urllib3.HTTPResponse(
            body=io.BytesIO(self._read(call, url, response)),
            headers=response.headers,
            status=response.status,
            reason=response.reason,
            decode_content=False,
            request_method=call.method,
            request_url=url,
        )

    def _read(
        self, call: _Call, url: str, response: urllib3.BaseHTTPResponse, limit: int | None = None
    ) -> bytes:
        """The body, or its first `limit` bytes; then the connection goes back to its pool, or is closed."""
        pieces: list[bytes] = []
        total = 0
        with self.translated(url, call.method, call.read_timeout):
            try:
                while piece := response.read(READ_SIZE):
                    pieces.append(piece)
                    total += len(piece)
                    if limit is not None and total > limit:
                        response.close()
                        break
            except BaseException:
                response.close()
                raise
            response.release_conn()
        return b"".join(pieces)[:limit]

    def _parsed(self, answer: urllib3.BaseHTTPResponse, parse: Callable[[Any], _T], url: str) -> _T:
        try:
            return parse(jsonlib.loads(answer.data))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise WireError(
                0,
                f"{_shown(url)}: not the JSON that a cluster answers ({type(error).__name__}: {error})",
                _shown(url),
                remedy="is the endpoint an AIStore gateway?",
                layer="http",
                found=answer.data[:80].decode("utf-8", "replace"),
            ) from None

    # -------------------------------------------------------------------------------- allowed hosts

    def _may_go_to(self, to: Origin, hosts: tuple[str, ...] | None) -> bool:
        if hosts is None:
            hosts = self.redirect_hosts
        if hosts is not None:
            return to.host in hosts or to.place in hosts
        if self._nodes is not None and to.place not in self._nodes:
            self._nodes = self._read_nodes()
        return self._nodes is None or to.place in self._nodes

    def _read_nodes(self) -> frozenset[str] | None:
        """The places of the cluster map, or None where the endpoint keeps it from us."""
        call = _Call(
            "GET",
            f"{self.settings.endpoint}/v1/daemon?what=smap",
            {},
            None,
            False,
            self.settings.read_timeout,
        )

        def map_answer() -> urllib3.BaseHTTPResponse | None:
            response = self._sent(call, call.url, first=True)
            if response.status in (401, 403, 404, 405) or response.status in _REDIRECTS:
                response.close()
                return None
            return self._answer(call, call.url, response)

        answer = self._tried(call, map_answer)
        if answer is None:
            return None
        smap = self._parsed(answer, Smap.from_wire, call.url)
        nets = [
            net
            for node in (*smap.pmap.values(), *smap.tmap.values())
            for net in (node.public_net, node.intra_control_net, node.intra_data_net)
        ]
        return frozenset(origin_of(net.direct_url).place for net in nets if net and net.direct_url)

    # ---------------------------------------------------------------------------- urllib3's objects

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self._managers = {}  # the parent's connections are the parent's
            self._pid = os.getpid()

    def _manager(self, to: Origin) -> urllib3.PoolManager:
        self._after_fork()
        proxy = self._proxy_of(to)
        secure = to.scheme == "https" or (proxy or "").startswith("https:")
        managers = self._managers
        if (proxy, secure) not in managers:  # of two threads that make one, the first to be done is heard
            managers.setdefault((proxy, secure), self._new_manager(proxy, secure))
        return managers[proxy, secure]

    def _new_manager(self, proxy: str | None, secure: bool) -> urllib3.PoolManager:
        import urllib3

        options: dict[str, Any] = {
            "num_pools": HOST_POOLS,
            "maxsize": self.settings.max_pool,
            "blocksize": 256 * KIB,
        }
        if secure:
            options["ssl_context"] = self._tls()
            if self.settings.skip_verify:  # the user's choice: no warning at every request
                urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if not proxy:
            return urllib3.PoolManager(**options)
        if proxy.startswith("https:"):
            options["proxy_ssl_context"] = self._tls()
        return urllib3.ProxyManager(proxy, proxy_headers=self._headers_for_proxy(proxy), **options)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = _tls_context(self.settings)
        return self._context

    def _headers_for_proxy(self, proxy: str) -> dict[str, str]:
        import urllib3

        parts = urlsplit(proxy)
        if not parts.username:
            return {}
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        return dict(urllib3.make_headers(proxy_basic_auth=user))

    def _proxy_of(self, to: Origin) -> str | None:
        """The URL of the proxy on the way to `to`, by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY."""
        proxy = self._proxies.get(to.scheme) or self._proxies.get("all")
        if not proxy or _bypassed(to, self._proxies.get("no", "")):
            return None
        proxy = proxy if "://" in proxy else f"http://{proxy}"
        try:
            origin_of(proxy)
        except ValueError:
            scheme = proxy.partition("://")[0]
            raise AISConnectionError(
                0,
                f"the proxy on the way to {to} is of the kind {scheme!r}",
                remedy="only http and https proxies work; set HTTP_PROXY, HTTPS_PROXY or NO_PROXY",
                kind="proxy",
            ) from None
        return proxy

    # ------------------------------------------------------------------------------------- failures

    @contextmanager
    def translated(self, url: str, method: str = "GET", read_timeout: float | None = None) -> Iterator[None]:
        """Whatever urllib3, ssl, http.client or the socket raises inside becomes an error of ours."""
        from http.client import HTTPException

        from urllib3.exceptions import HTTPError

        try:
            yield
        except AISError:
            raise
        except (HTTPError, HTTPException, OSError) as error:
            raise self.failure(error, url, method, read_timeout) from error

    def failure(
        self, error: BaseException, url: str, method: str = "GET", read_timeout: float | None = None
    ) -> AISError:
        """The error of ours for what urllib3, ssl, http.client or the socket raised about `url`.

        Args:
            method: What was sent there, "CONNECT" while there is no connection yet.
            read_timeout: The limit in force, if not the settings'.
        """
        import socket
        import ssl

        from urllib3.exceptions import ConnectTimeoutError, NewConnectionError, ProxyError

        chain = list(_chain(error))

        def found(*types: type[BaseException]) -> BaseException | None:
            return next((link for link in chain if isinstance(link, types)), None)

        def failed(kind: str, message: str, remedy: str) -> AISError:
            sent = SentRequest(method, url, {})
            return AISConnectionError(0, message, _shown(url), sent, remedy=remedy, kind=kind)

        def late(message: str, remedy: str) -> AISError:
            return AISTimeoutError(0, message, _shown(url), SentRequest(method, url, {}), remedy=remedy)

        to = origin_of(url)
        reading = _seconds(read_timeout or self.settings.read_timeout)
        limits = f"{_seconds(self.settings.connect_timeout)} to connect, {reading} to answer"
        remedy = "can this machine reach the cluster's nodes at the addresses in its map?"
        if to == self.endpoint:
            remedy = "is the cluster running? set AIS_ENDPOINT or pass endpoint="
        certificate, tls = found(ssl.SSLCertVerificationError), found(ssl.SSLError)
        cause = found(ConnectionRefusedError, socket.gaierror, TimeoutError) or found(OSError) or chain[-1]
        proxy = self._proxy_of(to)
        refused = any("Tunnel connection failed" in str(link) for link in chain)
        if proxy and (refused or found(ProxyError, NewConnectionError, ConnectTimeoutError)):
            return failed(
                "proxy",
                f"no way to {to} through the proxy {origin_of(proxy)}: {_reason(cause)}",
                "check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
            )
        if isinstance(certificate, ssl.SSLCertVerificationError):
            return failed(
                "tls",
                f"TLS: the certificate of {to} is not accepted: {certificate.verify_message}",
                "give the right CA (ca_cert= or AIS_CLIENT_CA), or do not verify (skip_verify=True)",
            )
        if isinstance(tls, ssl.SSLError):
            return failed(
                "tls",
                f"TLS: no agreement with {to}: {_reason(tls)}",
                "does it speak https? does it want a client's certificate (client_cert= or AIS_CRT)?",
            )
        if isinstance(cause, socket.gaierror):
            return failed("dns", f"cannot find the host of {to}: {_reason(cause)}", remedy)
        if found(NewConnectionError):  # before its base, the time-out
            kind = "refused" if isinstance(cause, ConnectionRefusedError) else "unreachable"
            return failed(kind, f"cannot connect to {to}: {_reason(cause)}", remedy)
        if "handshake" in str(found(TimeoutError)):  # only ssl's text tells it from other time-outs
            return late(
                f"TLS: {to} does not answer the handshake in time ({limits})",
                "does it speak https? or set AIS_CONNECT_TIMEOUT",
            )
        if found(ConnectTimeoutError) or (isinstance(cause, TimeoutError) and method == "CONNECT"):
            return late(f"cannot connect to {to} in time ({limits})", f"{remedy} or set AIS_CONNECT_TIMEOUT")
        if found(TimeoutError):
            return late(
                f"{method} {_shown(url)}: no answer in time ({limits})",
                "is the node overloaded? or set AIS_READ_TIMEOUT",
            )
        return failed(
            "broken",
            f"{method} {_shown(url)}: the connection broke: {_reason(cause)}",
            "try again; the node's log may tell why",
        )


def header_text(value: str) -> str:
    """A header's value as the UTF-8 that AIStore writes; http.client takes it for Latin-1."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and the ones it was made from."""
    seen: set[int] = set()
    links = [error]
    while links:
        link = links.pop(0)
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            yield link
            links += [link.__cause__, link.__context__, *link.args]


def _reason(error: BaseException) -> str:
    """Why, in a few words."""
    text = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(text or type(error).__name__).replace("_", " ").lower()


def _seconds(limit: float | None) -> str:
    return "no limit" if limit is None else f"{limit:g} s"


def _shown(url: str) -> str:
    """A URL without its query, where redirects carry signatures, and without a user and password."""
    return re.sub("//[^/]*@", "//", url.partition("?")[0])


def _tls_context(settings: Settings) -> ssl.SSLContext:
    import ssl

    ca = settings.ca_cert
    try:
        folder = ca is not None and os.path.isdir(ca)
        context = ssl.create_default_context(cafile=None if folder else ca, capath=ca if folder else None)
    except OSError as error:
        raise ValueError(
            f"ca_cert={settings.ca_cert!r} (or AIS_CLIENT_CA) cannot be used: {_reason(error)}"
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    if settings.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if settings.client_cert:  # a password, so that an encrypted key fails and does not ask the terminal
            context.load_cert_chain(*settings.client_cert, password="")
    except OSError as error:
        raise ValueError(
            f"client_cert={settings.client_cert!r} (or AIS_CRT, AIS_CRT_KEY) cannot be used: {_reason(error)}"
        ) from None
    return context


def _proxies_of_environment() -> dict[str, str]:
    from urllib.request import getproxies  # brings http.client and ssl: not at import

    while True:
        try:
            return getproxies()
        except (KeyError, RuntimeError):  # another thread has changed the environment meanwhile
            continue


def _bypassed(to: Origin, no_proxy: str) -> bool:
    """Whether NO_PROXY, a list of host names, domains, addresses and networks, names `to`."""
    for item in no_proxy.replace(" ", "").lower().split(","):
        name = item.lstrip(".")
        if item == "*" or name in (to.host, to.place) or (name and to.host.endswith(f".{name}")):
            return True
        try:
            if ipaddress.ip_address(to.host) in ipaddress.ip_network(item, strict=False):
                return True
        except ValueError:
            pass  # not an address, or not a network
    return False
