"""A target: objects, their ranges and archive members, and the second leg of GetBatch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote as url_quote

from aisfast.emulator import batch, batch_request, listing, shards, store, tar
from aisfast.emulator.errors import Failure, NotFound, RangeNotSatisfiable
from aisfast.emulator.httpd import Answer, Request
from aisfast.emulator.node import BaseNode, bucket_key, check_query
from aisfast.emulator.smap import Node

if TYPE_CHECKING:
    from aisfast.emulator import Cluster

BINARY = ("Content-Type", "application/octet-stream")
_PROPS = {
    *("name", "size", "version", "checksum", "atime", "cached", "status", "copies", "ec", "custom", "location"),
    *("chunked", "last-modified", "etag"),
}
_PROP_OF = {
    "Ais-Atime": "atime",
    "Ais-Checksum-Type": "checksum",
    "Ais-Checksum-Value": "checksum",
    "Ais-Version": "version",
    "Ais-Custom-Md": "custom",
}


class Target(BaseNode):
    def __init__(self, cluster: Cluster, node: Node, index: int):
        super().__init__(cluster, node)
        self.index = index
        self._appends: dict[str, tuple[str, str, bytearray]] = {}  # handle → bucket uname, object name, bytes so far

    def route(self, request: Request) -> None:
        parts = [part for part in request.path.split("/") if part]
        if parts[:1] != ["v1"] or len(parts) < 2:
            raise self.bad_url(request)
        check_query(request.query)
        what = parts[1]
        if what == "health":
            self.health(request)
        elif what == "daemon":
            self.what(request)
        elif what == "objects":
            self._objects(request)
        elif what == "ml":
            self._batch(request, parts[2:])
        else:
            raise self.bad_url(request)

    def _redirected(self, request: Request) -> bool:
        return bool(request.query.get("pid")) and bool(request.query.get("utm"))

    # -- GetBatch

    def _batch(self, request: Request, parts: list[str]) -> None:
        if request.method != "GET":
            self.not_allowed(request, "GET, POST")
            return
        if not self._redirected(request):
            raise Failure(401, "direct target access denied")
        if not 4 <= len(parts) <= 5 or parts[0] != "moss":
            raise self.bad_url(request)
        xid, wid = parts[-3], parts[-2]
        body = request.body()
        job, asked = self.cluster.jobs[self.index].claim(xid, wid)
        if body != asked.body:  # the target reads the body again and does not compare
            reserved = asked
            asked = batch_request.parse(body, self.cluster.store, job.bucket)
            asked.script, asked.targets = reserved.script, reserved.targets
        output = shards.output_format(asked.mime)
        if asked.script is None or not asked.script.before_head("target", request, job.bucket, wid, job):
            batch.Assembly(asked, job, self.index, self.cluster).answer(request, wid, output)

    # -- objects

    def _objects(self, request: Request) -> None:
        bucket_name, name = self.object_path(request)
        method = request.method
        if method in ("PUT", "DELETE", "POST", "PATCH") and not self._redirected(request):
            who = f"{method} {request.path} from {request.connection.peer}"
            raise Failure(400, f"{self.node.name}: {who} is expected to be redirected")
        bucket = self.cluster.store.bucket(bucket_name, *bucket_key(request))
        script = self.cluster.faults.for_object("target", method, bucket, self.index, name)
        if script is not None and script.before_head("target", request, bucket):
            return
        if method == "GET":
            self._get(request, store.find(bucket, name, self.node.name))
        elif method == "HEAD":
            self._head(request, store.find(bucket, name, self.node.name))
        elif method == "PUT":
            self._put(request, bucket, name)
        elif method == "DELETE":
            bucket.delete(name)
            request.reply(200)
        elif method == "PATCH":
            self._patch(request, store.find(bucket, name, self.node.name))
        else:
            raise Failure(400, f'invalid action "{self.message(request).get("action")}"')

    def _get(self, request: Request, stored: store.Object) -> None:
        query = request.query
        asked = request.headers.get("range")
        if query.get("archpath") or query.get("archregx"):
            if asked:
                text = f"cannot range-read archived content range: {asked}, arch query: {_arch_query(query)}"
                raise Failure(400, f"{text} - operation not supported", "ErrUnsupp")
            if query.get("archpath"):
                self._get_member(request, stored, query["archpath"])
            else:
                self._get_matching(request, stored)
            return
        headers = [BINARY, *_attributes(stored)]
        data = stored.data
        if asked:
            start, stop = _byte_range(asked, stored)
            headers += [("Accept-Ranges", "bytes"), ("Content-Range", f"bytes {start}-{stop - 1}/{stored.size}")]
            request.reply(206, data[start:stop], [*headers, ("Content-Length", str(stop - start))])
        else:
            request.reply(200, data, [*headers, ("Content-Length", str(stored.size))])
        stored.touch()

    def _get_member(self, request: Request, stored: store.Object, archpath: str) -> None:
        archpath = archpath.removeprefix("/")
        member = self.cluster.store.member(stored, archpath, self.node.name)
        data, fault = member.load()
        if fault:
            raise Failure(400, fault)
        request.reply(200, bytes(data), [BINARY, ("Content-Length", str(len(data)))])
        stored.touch()

    def _get_matching(self, request: Request, stored: store.Object) -> None:
        """All files that match, as a tar."""
        query = request.query
        matches = _matcher(query, stored, self.node.name)
        members = [m for m in self.cluster.store.shard(stored).members if m.flag != b"5" and matches(m.name)]
        if not members:
            raise NotFound(f"{self.node.name}: {_arch_query(query)} in {stored.uri}")
        answer = Answer(request, 200, [("Content-Type", tar.TarWriter.content_type)])
        writer = tar.TarWriter(answer)
        for member in members:
            writer.member(member.name, member.size, member.mtime, batch.pieces(member.load()[0]))
        writer.close()
        answer.finish()
        stored.touch()

    def _head(self, request: Request, stored: store.Object) -> None:
        headers = [("Ais-Present", "true"), ("Content-Length", str(stored.size))]
        props = request.query.get("props")
        if props is None:
            headers += _attributes(stored)
            headers += [
                ("Ais-Name", url_quote(stored.name, safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}~")),
                ("Ais-Bucket-Name", stored.bucket.name),
                ("Ais-Bucket-Provider", stored.bucket.provider),
                ("Ais-Location", listing.location(stored, self.cluster.smap.targets)),
                ("Ais-Mirror-Copies", "1"),
                ("Ais-Mirror-Paths", "[/emulator]"),
            ]
            request.reply(200, headers=headers)
            return
        wanted = frozenset(props.replace(" ", "").split(","))
        for name in wanted - _PROPS:
            raise Failure(400, f'invalid property "{name}" in props list', headers=(("Ais-Present", "true"),))
        headers += [header for header in _attributes(stored) if _PROP_OF[header[0]] in wanted]
        if "location" in wanted:
            headers.append(("Ais-Location", listing.location(stored, self.cluster.smap.targets)))
        if "copies" in wanted:
            headers += [("Ais-Mirror-Copies", "1"), ("Ais-Mirror-Paths", "/emulator")]
        request.reply(200, headers=headers)

    def _put(self, request: Request, bucket: store.Bucket, name: str) -> None:
        query = request.query
        if "append_type" in query:
            self._append(request, bucket, name)
            return
        if "uploadId" in query or "partNumber" in query:
            raise Failure(501, "multipart uploads: this emulator does not have them")
        if name.endswith("/"):
            raise Failure(400, f'invalid object name "{name}"')
        data = request.body()
        kind = request.headers.get("ais-checksum-type", "")
        if kind in ("md5", "sha256", "sha512"):
            found = hashlib.new(kind, data, usedforsecurity=False).hexdigest()
            given = request.headers.get("ais-checksum-value", "")
            if given and given != found:
                raise Failure(
                    400, f"BAD DATA CHECKSUM: {bucket.uri}/{name} {kind}[{given}] != {kind}[{found}]", "ErrBadCksum"
                )
        stored = bucket.put(name, data)
        request.reply(200, headers=_attributes(stored))

    def _append(self, request: Request, bucket: store.Bucket, name: str) -> None:
        kind = request.query["append_type"]
        handle = request.query.get("append_handle", "")
        if handle:
            known = self._appends.get(handle)
            if known is None or known[:2] != (bucket.uname, name):
                raise Failure(400, f'invalid append handle "{handle}"')
            work = known[2]
        else:
            old = bucket.objects.get(name)
            work = bytearray(old.data) if old else bytearray()
        if kind == "append":
            work += request.body()
            if not handle:
                handle = f"{self.node.id}|/emulator/%wk/append.{self.cluster.new_id(8)}|md5|"
                self._appends[handle] = (bucket.uname, name, work)
            request.reply(200, headers=[("Ais-Append-Handle", handle)])
        elif kind == "flush":
            if not handle:
                raise Failure(400, f"{self.node.name}: failed to flush append {bucket.uri}/{name}: handle is empty")
            bucket.put(name, bytes(work))
            del self._appends[handle]
            request.reply(200)
        else:
            raise Failure(400, f'invalid append type "{kind}"')

    def _patch(self, request: Request, stored: store.Object) -> None:
        try:
            value = json.loads(request.body()).get("value") or {}
            fresh = {str(key): str(item) for key, item in value.items()}
        except (ValueError, AttributeError):
            raise Failure(400, f"{self.node.name}: failed to unmarshal [*apc.ActMsg] (PATCH)") from None
        if request.query.get("set-new-custom", "").lower() in ("true", "1", "yes", "on"):
            stored.custom = fresh
        else:
            stored.custom = {**stored.custom, **fresh}
        request.reply(200)


def _attributes(stored: store.Object) -> list[tuple[str, str]]:
    kind, value = stored.checksum
    return [
        ("Ais-Atime", str(stored.atime)),
        ("Ais-Checksum-Type", kind),
        ("Ais-Checksum-Value", value),
        ("Ais-Version", str(stored.version)),
        *(("Ais-Custom-Md", f"{key}={item}") for key, item in stored.custom.items()),
    ]


def _byte_range(asked: str, stored: store.Object) -> tuple[int, int]:
    """Half-open byte positions of a Range header.

    Raises:
        Failure: 416.
    """
    if "," in asked:
        raise Failure(416, f"cannot multi-range read {stored.uri} - operation not supported", "ErrUnsupp")
    match = re.fullmatch(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", asked)
    if match is None or not (match[1] or match[2]):
        raise Failure(416, f'read range "{asked}" is invalid (-)')
    size = stored.size
    if not match[1]:
        start, stop = max(0, size - int(match[2])), size
    else:
        start, stop = int(match[1]), min(size, int(match[2]) + 1) if match[2] else size
        if match[2] and int(match[2]) < start:
            raise Failure(416, f'read range "{asked}" is invalid (start > end)')
    if start >= size:
        error = RangeNotSatisfiable(asked.partition("=")[2].strip(), size, 416)
        error.headers = (("Content-Range", f"bytes */{size}"),)
        raise error
    return start, stop


def _arch_query(query: dict[str, str]) -> str:
    if query.get("archpath"):
        return f"(archpath={query['archpath']})"
    return f"(archregx={query.get('archregx', '')}, archmode={query.get('archmode', '')})"


def _matcher(query: dict[str, str], stored: store.Object, node: str) -> Callable[[str], bool]:
    """Does an archived file's name match?"""
    wanted = query["archregx"]
    mode = query.get("archmode") or "prefix"
    if mode == "regexp":
        try:
            search = re.compile(wanted).search
        except re.error as error:
            text = f"{node}: failed to extract files that match {_arch_query(query)} from {stored.uri}, err: {error}"
            raise Failure(400, text, "ErrFailedTo") from None
        return lambda name: search(name) is not None
    if mode == "prefix":
        return lambda name: name.startswith(wanted)
    if mode == "suffix":
        return lambda name: name.endswith(wanted)
    if mode == "substr":
        return lambda name: wanted in name
    return lambda name: _webdataset_key(name) == wanted


def _webdataset_key(name: str) -> str:
    """A name without its extensions."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]
