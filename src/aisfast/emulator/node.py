"""What proxy and targets share: routing of a request to its handler, and errors told as the server tells them."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aisfast.emulator import batch_request, store
from aisfast.emulator.errors import Failure, quote
from aisfast.emulator.httpd import Request
from aisfast.emulator.smap import GLOBAL_NAMESPACE, Node

if TYPE_CHECKING:
    from aisfast.emulator import Cluster

JSON = ("Content-Type", "application/json; charset=utf-8")
_ERROR_HEADERS = (("Content-Type", "application/json"), ("X-Content-Type-Options", "nosniff"))
_MATCH_MODES = ("regexp", "prefix", "suffix", "substr", "wdskey")


class BaseNode:
    """One node's HTTP side."""

    def __init__(self, cluster: Cluster, node: Node):
        self.cluster = cluster
        self.node = node
        self._started = time.monotonic_ns()

    def handle(self, request: Request) -> None:
        """Answer one request; a Failure becomes an error answer unless the answer has begun."""
        try:
            self.route(request)
        except Failure as error:
            if request.answered:
                raise
            self._fail(request, error)

    def route(self, request: Request) -> None:
        raise NotImplementedError

    def _fail(self, request: Request, error: Failure) -> None:
        text = error.json(self.node.name, request.method, request.path, request.connection.peer)
        headers = [*_ERROR_HEADERS, *error.headers]
        if request.method == "HEAD":
            headers.append(("Hdr-Error", text))
        request.reply(error.status, text.encode("utf-8", "replace") + b"\n", headers)

    def health(self, request: Request) -> None:
        up = str(time.monotonic_ns() - self._started)
        request.reply(200, headers=[("Ais-Node-Uptime", up), ("Ais-Cluster-Uptime", up)])

    def what(self, request: Request) -> None:
        """`daemon?what=...`, `cluster?what=...`"""
        asked = request.query.get("what", "")
        if asked != "smap":
            raise Failure(400, f"invalid '{request.path}' request: unrecognized 'what={asked}' query")
        self.reply_json(request, self.cluster.smap.document())

    def reply_json(self, request: Request, document: Any) -> None:
        body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        request.reply(200, body + b"\n", [JSON])

    def bad_url(self, request: Request) -> Failure:
        return Failure(400, f"invalid request URI: '{request.method} {request.path}' from {request.connection.peer}")

    def not_allowed(self, request: Request, allow: str) -> None:
        """405, in plain text: the one error of GetBatch that is not JSON."""
        headers = [
            ("Allow", allow),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        request.reply(405, b"Method Not Allowed\n", headers)

    def bucket(self, request: Request, name: str) -> store.Bucket:
        """The bucket that a path and its query name.

        Raises:
            Failure: No such provider; no such bucket.
        """
        return self.cluster.store.bucket(name, *bucket_key(request))

    def object_path(self, request: Request) -> tuple[str, str]:
        """Bucket and object name of `/v1/objects/<bucket>/<object>`."""
        parts = request.raw_path.split("/", 4)
        if len(parts) < 5 or not parts[3] or not parts[4]:
            got = len([part for part in parts if part])
            raise Failure(400, f"URL '{request.path.lstrip('/')}' is too short: expected 4 items, got {got}")
        name = unquote(parts[4])
        if batch_request.bad_path(name):
            raise Failure(400, f"invalid object name {quote(name)}", "errInvalidPath")
        return unquote(parts[3]), name

    def message(self, request: Request) -> dict[str, Any]:
        """The action message in the body."""
        with contextlib.suppress(ValueError):
            document = json.loads(request.body())
            if isinstance(document, dict):
                return document
        raise Failure(400, f"{self.node.name}: failed to unmarshal [*apc.ActMsg] ({request.method}), err: EOF")


def bucket_key(request: Request) -> tuple[str, str]:
    """Provider and namespace of a request's query."""
    return store.provider(request.query.get("provider", "")), request.query.get("namespace") or GLOBAL_NAMESPACE


def check_query(query: dict[str, str]) -> None:
    """Query keys that the server parses on every node, whatever the request.

    Raises:
        Failure: A value is not what it should be.
    """
    if "coloc" in query and not query["coloc"].isdigit():
        raise Failure(400, f"dpq: 'coloc={query['coloc']}', err: invalid syntax")
    mode = query.get("archmode")
    if mode:
        if query.get("archpath"):
            text = 'dpq: archpath="archpath" (match one) and archregx="archregx" (match many) are mutually exclusive'
            raise Failure(400, f"dpq: 'archmode={mode}', err: {text}")
        if mode not in _MATCH_MODES:
            text = f'invalid matching mode "{mode}", expecting one of: [{" ".join(_MATCH_MODES)}]'
            raise Failure(400, f"dpq: 'archmode={mode}', err: {text}")
