"""A GetBatch request, read and checked as the proxy does: the first thing wrong is told in the server's words."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aisfast.emulator import store
from aisfast.emulator.errors import Failure, RangeNotSatisfiable, quote

if TYPE_CHECKING:
    from aisfast.emulator.script import Script

_BAD_PATH = re.compile(r"(?:^|/)\.\.?(?:/|$)").search
_TEXTS = frozenset(("objname", "bucket", "provider", "uname", "archpath", "opaque"))
_KEYS = _TEXTS | {"start", "length"}
_TOP = {
    "mime": (str, "OutputFormat", 'ReadString: expects " or n'),
    "coer": (bool, "ContinueOnErr", "ReadBool: expect t or f"),
    "onob": (bool, "OnlyObjName", "ReadBool: expect t or f"),
    "strm": (bool, "StreamingGet", "ReadBool: expect t or f"),
}


class Entry:
    """One requested object, archive member, or range of either."""

    __slots__ = ("archpath", "base", "bucket", "length", "name", "opaque", "provider", "start")

    def __init__(self, name: str, archpath: str, prov: str, opaque: str, start: int, length: int):
        self.name = name
        self.archpath = archpath
        self.provider = prov  # as given
        self.opaque = opaque  # canonical base64
        self.start = start
        self.length = length
        self.bucket: store.Bucket
        self.base = ""  # the object's name in the archive

    def range_of(self, size: int) -> tuple[int, int]:
        """Offset and length to deliver of a payload of `size` bytes.

        Raises:
            RangeNotSatisfiable: The range is not inside it; nothing is clipped.
        """
        start, length = self.start, self.length
        if start == 0 and length == 0:
            return 0, size
        if length == -1:
            if start >= size:
                raise RangeNotSatisfiable(f"start={start}", size)
            return start, size - start
        if start >= size or length > size - start:
            raise RangeNotSatisfiable(f"start={start},length={length}", size)
        return start, length


@dataclass
class BatchRequest:
    """A checked request and the body it was read from."""

    body: bytes
    entries: list[Entry]
    mime: str
    continue_on_error: bool
    streaming: bool
    script: Script | None = None  # faults planned for its answer
    targets: tuple[int, ...] = ()  # in the cluster map when it was made


def parse(body: bytes, objects: store.Store, default: store.Bucket | None) -> BatchRequest:
    """Read and check a request body.

    Args:
        default: Bucket of the path, if it names one.
    Raises:
        Failure: The server's text for the first thing that is wrong.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise _syntax_error(body) from None
    if document is not None and not isinstance(document, dict):
        raise _syntax_error(body)
    top = {key.lower(): value for key, value in (document or {}).items()}
    given = top.get("in") or []
    if not isinstance(given, list):
        text = body.decode("latin-1")
        at = _in_value(text)
        raise Failure(400, f"ReadArrayCB: expect [ or n, but found {text[at]}, {_place(body, at + 1)}")
    for key, (kind, field_name, expected) in _TOP.items():
        if not isinstance(top.get(key), (kind, type(None))):
            text = f"apc.MossReq.{field_name}: {expected}, but found {json.dumps(top[key])[0]}"
            raise Failure(400, f"failed to unmarshal [*apc.MossReq] (POST), err: {text}")
    only_names = bool(top.get("onob"))
    entries = []
    buckets: dict[tuple[str, str, str], store.Bucket] = {}
    for index, item in enumerate(given):
        try:
            entry, uname, bucket_name = _entry(item)
        except ValueError as error:
            raise Failure(400, f"unmarshalerDecoder: {error}, {_place(body, _entry_end(body, index))}") from None
        where = (uname, bucket_name, entry.provider if bucket_name else "")
        bucket = buckets.get(where)
        if bucket is None:
            bucket = buckets[where] = _bucket(objects, default, *where, entry.name)
        entry.bucket = bucket
        entry.base = entry.name if only_names else "" if uname else f"{bucket.name}/{entry.name}"
        entries.append(entry)
    if not entries:
        raise Failure(400, "moss: empty input")
    for bucket in buckets.values():
        objects.bucket(bucket.name, bucket.provider, bucket.namespace)
    return BatchRequest(body, entries, top.get("mime") or "", bool(top.get("coer")), bool(top.get("strm")))


def path_of(bucket: store.Bucket | None, xid: str, wid: str, targets: int) -> str:
    """Path of phase 1 and 2."""
    middle = f"{bucket.name}/" if bucket else ""
    return f"/v1/ml/moss/{middle}{xid}/{wid}/{targets}"


def _entry(item: Any) -> tuple[Entry, str, str]:
    """An entry with its uname and bucket name. Raises ValueError with the server's text."""
    if not isinstance(item, dict):
        raise ValueError(f"json: cannot unmarshal {_kind(item)} into Go value of type apc.alias")
    if not item.keys() <= _KEYS:
        item = {key.lower(): value for key, value in item.items()}
    for key in item.keys() & _KEYS:
        value = item[key]
        if value is not None and (type(value) is not str if key in _TEXTS else type(value) is not int):
            wanted = "string" if key in _TEXTS else "int64"
            found = f"number {value}" if type(value) is float and key not in _TEXTS else _kind(value)
            raise ValueError(f"json: cannot unmarshal {found} into Go struct field alias.{key} of type {wanted}")
    name = item.get("objname") or ""
    archpath = item.get("archpath") or ""
    opaque = item.get("opaque") or ""
    start = item.get("start") or 0
    length = item.get("length") or 0
    if opaque:
        opaque = _canonical(opaque)
    if not name or name[-1] == "/" or bad_path(name):
        raise ValueError(f"invalid object name {quote(name)}")
    if archpath and (archpath[-1] == "/" or bad_path(archpath)):
        raise ValueError(f"invalid archpath {quote(archpath)} (oname: {quote(name)})")
    if start < 0 or length < -1 or (start and not length):
        asked = f"start={start}" if length == -1 else f"start={start},length={length}"
        raise ValueError(RangeNotSatisfiable(f"{asked} (oname: {quote(name)})").message)
    return (
        Entry(name, archpath, item.get("provider") or "", opaque, start, length),
        item.get("uname") or "",
        item.get("bucket") or "",
    )


def bad_path(path: str) -> bool:
    """Might this path lead out of its place?"""
    return path.startswith("~/") or _BAD_PATH(path) is not None


def _bucket(
    objects: store.Store, default: store.Bucket | None, uname: str, bucket: str, prov: str, name: str
) -> store.Bucket:
    """The bucket of an entry; whether it exists is checked when all entries have been read."""
    if uname:
        uname_provider, namespace, bucket, rest = (uname.split("/", 3) + [""] * 3)[:4]
        store.check_bucket_name(bucket)
        found = objects.known_or_new(bucket, store.provider(uname_provider), namespace)
        if rest:
            text = f'not expecting object name (got "{found.uri}/{rest}")'
            raise Failure(400, f"parse-uname {quote(uname)}: {text}")
        return found
    if bucket:
        store.check_bucket_name(bucket)
        return objects.known_or_new(bucket, store.provider(prov))
    if default is None:
        raise Failure(400, f"missing bucket specification for object {quote(name)}")
    return default


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "null" if value is None else "array" if isinstance(value, list) else "object"


def _canonical(opaque: str) -> str:
    """Standard base64 decoded and encoded again; line ends do not count."""
    opaque = opaque.replace("\r", "").replace("\n", "")
    for at, char in enumerate(opaque):
        if not (char.isascii() and (char.isalnum() or char in "+/=")):
            raise ValueError(f"illegal base64 data at input byte {at}")
    try:
        return base64.b64encode(base64.b64decode(opaque, validate=True)).decode()
    except binascii.Error:
        at = len(opaque) if "=" in opaque else len(opaque) // 4 * 4
        raise ValueError(f"illegal base64 data at input byte {at}") from None


# The JSON library of the server tells where it stopped by quoting the bytes around.


def _place(body: bytes, at: int) -> str:
    near = body[max(0, at - 10) : at + 10].decode("utf-8", "replace")
    wide = body[max(0, at - 50) : at + 50].decode("utf-8", "replace")
    return f"error found in #{min(at, 10)} byte of ...|{near}|..., bigger context ...|{wide}|..."


def _entry_end(body: bytes, index: int) -> int:
    """Offset after entry `index` of `in` of a body that is JSON."""
    text = body.decode("latin-1")  # one character per byte; no byte above 127 has a meaning in JSON
    at = _skip(text, _in_value(text) + 1)
    for _ in range(index):
        _, at = _read(text, at)
        at = _skip(text, _skip(text, at) + 1)
    return int(_read(text, at)[1])


def _in_value(text: str) -> int:
    """Offset of the value of `in`."""
    at = _skip(text, text.index("{") + 1)
    while True:
        key, at = _read(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if key.lower() == "in":
            return at
        _, at = _read(text, at)
        at = _skip(text, _skip(text, at) + 1)


_read = json.JSONDecoder(strict=False).raw_decode


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _syntax_error(body: bytes) -> Failure:
    """For a body that is not JSON, or not an object."""
    text = body.decode("latin-1")
    first = _skip(text, 0)
    if text[first : first + 1] not in ("{", "n"):
        found = text[first : first + 1] or "\0"
        return Failure(
            400, f"ReadObjectCB: expect {{ or n, but found {found}, {_place(body, min(len(body), first + 1))}"
        )
    try:
        json.loads(text)
        at = len(body)
    except json.JSONDecodeError as error:
        at = error.pos
    except RecursionError:
        at = len(body)
    found = text[at : at + 1] or "\0"
    return Failure(400, f"ReadArrayCB: expect ] in the end, but found {found}, {_place(body, min(len(body), at + 1))}")
