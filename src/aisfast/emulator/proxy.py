"""The proxy: buckets, lists, the cluster map; objects and GetBatch it redirects to a target."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import Any
from urllib.parse import quote as url_quote
from urllib.parse import urlencode

from aisfast.emulator import batch_request, listing, shards, store
from aisfast.emulator.errors import Failure
from aisfast.emulator.httpd import Request, html_escape
from aisfast.emulator.node import BaseNode, bucket_key, check_query
from aisfast.emulator.refusals import failure

_SPECIAL = "%?# +"  # a path with one of these makes the server encode the whole query anew
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Proxy(BaseNode):
    def route(self, request: Request) -> None:
        parts = [part for part in request.path.split("/") if part]
        if parts[:1] != ["v1"] or len(parts) < 2:
            raise self.bad_url(request)
        what = parts[1]
        if what == "health":
            self.health(request)
            return
        self._authorize(request)
        check_query(request.query)
        if what in ("daemon", "cluster"):
            self.what(request)
        elif what == "buckets":
            self._buckets(request, parts[2:])
        elif what == "objects":
            self._objects(request)
        elif what == "ml":
            self._batch(request, parts[2:])
        else:
            raise self.bad_url(request)

    def _authorize(self, request: Request) -> None:
        token = self.cluster.token
        if token is None:
            return
        given = request.headers.get("authorization", "")
        header = "Authorization"
        if given:
            scheme, _, given = given.partition(" ")
            if scheme != "Bearer":
                raise Failure(401, f'invalid token from header "{header}": invalid authorization header format')
        else:
            header = "X-Amz-Security-Token"
            given = request.headers.get(header.lower(), "")
        if not given:
            raise Failure(401, "token required")
        if given != token:
            raise Failure(
                401, f'invalid token from header "{header}": invalid token [err: signature is invalid]: {given}'
            )

    # -- buckets

    def _buckets(self, request: Request, parts: list[str]) -> None:
        method = request.method
        if method == "HEAD" and parts:
            self._head_bucket(request, parts[0], "/".join(parts[1:]))
            return
        if method == "GET":
            message = self.message(request)
            if not parts:
                self._list_buckets(request)
            elif message.get("action") == "list":
                self._list_objects(request, parts[0], message.get("value"))
            elif message.get("action") == "summary-bck":
                self._summary(request, parts[0], message.get("value") or {})
            else:
                raise self._bad_action(message)
            return
        if method not in ("POST", "DELETE") or not parts:
            raise self.bad_url(request)
        message = self.message(request)
        action = message.get("action")
        if method == "POST" and action == "create-bck":
            provider, namespace = bucket_key(request)
            self.cluster.store.create(parts[0], provider, namespace)
        elif method == "DELETE" and action == "destroy-bck":
            self.cluster.store.destroy(self.bucket(request, parts[0]))
        else:
            self.bucket(request, parts[0])
            raise self._bad_action(message)
        request.reply(200)

    def _bad_action(self, message: dict[str, Any]) -> Failure:
        return Failure(400, f'invalid action "{message.get("action")}"')

    def _list_buckets(self, request: Request) -> None:
        asked = request.query.get("provider", "")
        self.reply_json(request, list(store.bucket_list(self.cluster.store, store.provider(asked) if asked else None)))

    def _list_objects(self, request: Request, name: str, asked: Any) -> None:
        if asked is None:
            self._list_buckets(request)
            return
        bucket = self.bucket(request, name)
        packed = "msgpack" in request.headers.get("accept", "")
        body = listing.page(bucket, asked, self.cluster.smap.targets, lambda: self.cluster.new_id(9), packed)
        kind = "application/msgpack" if packed else "application/json; charset=utf-8"
        request.reply(200, body, [("Content-Type", kind)])

    def _head_bucket(self, request: Request, name: str, prefix: str) -> None:
        bucket = self.bucket(request, name)
        headers = [("Ais-Bucket-Props", json.dumps(_props(bucket), separators=(",", ":")))]
        if "presence" not in request.query:
            request.reply(200, headers=headers)
        elif "uuid" not in request.query:
            request.reply(202, headers=[*headers, ("Ais-Xaction-Id", self.cluster.new_id(9))])
        else:
            summary = json.dumps(_summary(bucket, prefix), separators=(",", ":"))
            request.reply(200, headers=[*headers, ("Ais-Bucket-Summ", summary)])

    def _summary(self, request: Request, name: str, asked: dict[str, Any]) -> None:
        bucket = self.bucket(request, name)
        if asked.get("uuid"):
            self.reply_json(request, [_summary(bucket, asked.get("prefix") or "")])
        else:
            request.reply(202, self.cluster.new_id(9).encode(), [("Content-Type", "text/plain; charset=utf-8")])

    # -- redirects

    def _objects(self, request: Request) -> None:
        bucket_name, name = self.object_path(request)
        bucket = self.bucket(request, bucket_name)
        owner = self.cluster.store.locate(bucket, name)[1]
        script = self.cluster.faults.for_object("proxy", request.method, bucket, owner, name)
        if script is not None and script.before_head("proxy", request, bucket):
            return
        if request.method == "OPTIONS":
            request.reply(200, headers=[("Allow", "DELETE, GET, HEAD, POST, PUT")])
            return
        if request.method == "POST":
            self.message(request)
        self._redirect(request, owner, request.path, 301 if request.method == "GET" else 307)

    def _redirect(self, request: Request, target: int, path: str, status: int) -> None:
        """To `path` (decoded) on a target, with the redirect marker in the query. A body is not read for that."""
        marker = {"pid": self.node.id, "utm": _base36(time.time_ns())}
        if any(char in path for char in _SPECIAL):
            path = url_quote(path, safe="$&+,/:;=@~")
            query = urlencode(sorted({**request.query, **marker}.items()))
        else:  # as it came, the marker after it
            path = "".join(char if char.isascii() else _percent(char) for char in path)
            query = "&".join([request.raw_query] * bool(request.raw_query) + [f"{k}={v}" for k, v in marker.items()])
        location = f"{self.cluster.smap.targets[target].url}{path}?{query}"
        headers = [("Location", location)]
        body = b""
        if request.method in ("GET", "HEAD"):
            headers.append(("Content-Type", "text/html; charset=utf-8"))
            body = f'<a href="{html_escape(location)}">{HTTPStatus(status).phrase}</a>.\n\n'.encode()
        request.reply(status, body, headers)

    def _batch(self, request: Request, parts: list[str]) -> None:
        if request.method != "GET":
            self.not_allowed(request, "GET")
            return
        if not 1 <= len(parts) <= 2 or parts[0] != "moss":
            raise self.bad_url(request)
        coloc = int(request.query.get("coloc") or 0)
        if coloc > 2:
            raise Failure(400, f"invalid 'coloc={coloc}' (expecting 0, 1, or 2)")
        default = self.bucket(request, parts[1]) if len(parts) == 2 else None
        asked = batch_request.parse(request.body(), self.cluster.store, default)
        cluster = self.cluster
        present = cluster.smap.present()
        if not present:
            raise Failure(400, "no storage targets in the cluster", "ErrNoNodes")
        chosen, cluster.next_dt = cluster.next_dt, None
        if chosen not in present:
            chosen = self._most_entries(asked) if coloc else present[cluster.random.randrange(len(present))]
        wid = f"{self.node.id[:7]}-{cluster.new_id(5)}"
        bucket = default or asked.entries[0].bucket
        asked.targets = tuple(present)
        asked.script = cluster.faults.for_batch(bucket, chosen, asked.entries, asked.streaming)
        if asked.script is not None and asked.script.before_head("proxy", request, default, wid):
            return
        state, seconds = cluster.smap.state(chosen)
        if state != "well":
            kind = "refused" if state == "dead" else "not-ready" if seconds < cluster.smap.settle / 2 else "map"
            raise failure(kind, cluster, chosen, request, default, wid)
        try:
            shards.output_format(asked.mime)
            job = cluster.jobs[chosen].reserve(default, wid, asked)
        except Failure as error:
            path = batch_request.path_of(default, "noxid", wid, len(present))
            raise error.on_leg("POST", path, self.node.name, cluster.smap.targets[chosen].name) from None
        self._redirect(request, chosen, batch_request.path_of(default, job.xid, wid, len(present)), 307)

    def _most_entries(self, asked: batch_request.BatchRequest) -> int:
        counts = [0] * len(self.cluster.smap.targets)
        best, most = 0, 0
        for entry in asked.entries:
            owner = self.cluster.store.locate(entry.bucket, entry.name)[1]
            counts[owner] += 1
            if counts[owner] > most:
                best, most = owner, counts[owner]
        return best


def _percent(char: str) -> str:
    return "".join(f"%{byte:x}" for byte in char.encode())


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


def _props(bucket: store.Bucket) -> dict[str, Any]:
    """Bucket properties that clients look at."""
    return {
        "backend_bck": {"name": "", "provider": "", "namespace": {"uuid": "", "name": ""}},
        "write_policy": {"data": "immediate", "md": "immediate"},
        "provider": bucket.provider,
        "Renamed": "",
        "checksum": {
            "type": "md5",
            "validate_cold_get": False,
            "validate_warm_get": False,
            "validate_obj_move": False,
            "enable_read_range": False,
        },
        "mirror": {"copies": 1, "burst_buffer": 512, "enabled": False},
        "ec": {"data_slices": 1, "parity_slices": 1, "enabled": False},
        "access": "18446744073709551615",
        "features": "0",
        "bid": "1",
        "created": str(bucket.created),
        "versioning": {"enabled": True, "validate_warm_get": False, "synchronize": False},
    }


def _summary(bucket: store.Bucket, prefix: str) -> dict[str, Any]:
    sizes = [stored.size for name, stored in list(bucket.objects.items()) if name.startswith(prefix)]
    total = sum(sizes)
    return {
        "name": bucket.name,
        "provider": bucket.provider,
        "namespace": {"uuid": "", "name": ""},
        "ObjCount": {"obj_count_present": str(len(sizes)), "obj_count_remote": "0"},
        "ObjSize": {
            "obj_min_size": min(sizes, default=0),
            "obj_avg_size": total // len(sizes) if sizes else 0,
            "obj_max_size": max(sizes, default=0),
        },
        "TotalSize": {
            "size_on_disk": str(total),
            "size_all_present_objs": str(total),
            "size_all_remote_objs": "0",
            "total_disks_size": "0",
        },
        "used_pct": 0,
        "is_present": True,
    }
