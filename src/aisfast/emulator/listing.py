"""List-objects: pages of names with the properties asked for, as JSON or MessagePack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from aisfast.emulator import msgpack, shards
from aisfast.emulator.errors import Failure
from aisfast.emulator.smap import Node
from aisfast.emulator.store import Bucket, Object

PAGE = 10000  # entries of a page where none is asked for

EXPAND_ARCHIVES = 1 << 3
NAME_ONLY = 1 << 4
NAME_SIZE = 1 << 5
NO_RECURSION = 1 << 11

PRESENT = 1 << 6
IN_ARCHIVE = 1 << 7
DIRECTORY = 1 << 8
IS_ARCHIVE = 1 << 9

Entry = dict[str, Any]

_SHORT = {
    "name": "n",
    "checksum": "cs",
    "atime": "a",
    "version": "v",
    "location": "t",
    "custom-md": "m",
    "size": "s",
    "copies": "c",
    "flags": "f",
}
_SIGNED = ("size", "copies")


def page(bucket: Bucket, asked: dict[str, Any], targets: list[Node], new_id: Callable[[], str], packed: bool) -> bytes:
    """One page.

    Args:
        asked: The list message (`prefix`, `pagesize`, `uuid`, `props`, `continuation_token`, `flags`, `start_after`).
        packed: MessagePack instead of JSON.
    """
    size = int(asked.get("pagesize") or 0) or PAGE
    flags = int(asked.get("flags") or 0)
    token = asked.get("continuation_token") or asked.get("start_after") or ""
    entries: list[Entry] = []
    for entry in _entries(
        bucket, asked.get("prefix") or "", flags, token, _wanted(asked.get("props") or "", flags), targets
    ):
        entries.append(entry)
        if len(entries) == size:
            break
    after = entries[-1]["name"] if len(entries) == size else ""
    uuid = asked.get("uuid") or new_id()
    if packed:
        short = [
            {_SHORT[key]: msgpack.Signed(v) if key in _SIGNED else v for key, v in entry.items()} for entry in entries
        ]
        return msgpack.pack({"UUID": uuid, "ContinuationToken": after, "Entries": short, "Flags": 0})
    texts = [{key: str(value) if key == "size" else value for key, value in entry.items()} for entry in entries]
    document = {"uuid": uuid, "continuation_token": after, "entries": texts, "flags": 0}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _wanted(props: str, flags: int) -> frozenset[str]:
    if flags & NAME_ONLY:
        return frozenset()
    if flags & NAME_SIZE or not props:
        return frozenset(("size",))
    return frozenset(props.replace(" ", "").split(","))


def _entries(
    bucket: Bucket, prefix: str, flags: int, token: str, wanted: frozenset[str], targets: list[Node]
) -> Iterator[Entry]:
    """Entries after `token` in order of their names."""
    seen_dir = ""
    expand = bool(flags & EXPAND_ARCHIVES)
    names = bucket.names() if expand else bucket.names_after(token)  # a token may stand inside an archive
    for name in names:
        if not name.startswith(prefix):
            continue
        if flags & NO_RECURSION and "/" in name[len(prefix) :]:
            folder = prefix + name[len(prefix) :].partition("/")[0] + "/"
            if folder != seen_dir and folder > token:
                seen_dir = folder
                yield {"name": folder, "flags": DIRECTORY}
            continue
        stored = bucket.store.locate(bucket, name)[0]
        if stored is None:
            continue  # deleted meanwhile, or out of reach
        members = _members(stored) if expand else None
        if name > token:
            yield _entry(stored, wanted, targets, PRESENT | (IS_ARCHIVE if members is not None else 0))
        for path, size in members or ():
            if path > token:
                yield _pruned({"name": path, "size": size if "size" in wanted else 0, "flags": PRESENT | IN_ARCHIVE})


def _members(stored: Object) -> list[tuple[str, int]] | None:
    """Names and sizes of a shard's files; None for what is no archive by its name, or cannot be read."""
    if shards.extension(stored.name) is None:
        return None
    try:
        shard = stored.bucket.store.shard(stored)
    except Failure:
        return None
    files = [member for member in shard.members if member.flag != b"5" and not member.name.endswith("/")]
    return sorted((f"{stored.name}/{member.name.removeprefix('./').lstrip('/')}", member.size) for member in files)


def _entry(stored: Object, wanted: frozenset[str], targets: list[Node], flags: int) -> Entry:
    entry: Entry = {"name": stored.name}
    if "checksum" in wanted:
        entry["checksum"] = stored.checksum[1]
    if "atime" in wanted:
        entry["atime"] = time.strftime("%d %b %y %H:%M UTC", time.gmtime(stored.atime / 1e9))
    if "version" in wanted:
        entry["version"] = str(stored.version)
    if "location" in wanted:
        entry["location"] = location(stored, targets)
    if "custom" in wanted and stored.custom:
        entry["custom-md"] = "[" + " ".join(f"{key}:{value}" for key, value in stored.custom.items()) + "]"
    if "size" in wanted:
        entry["size"] = stored.size
    if "copies" in wanted:
        entry["copies"] = 1
    entry["flags"] = flags
    return _pruned(entry)


def _pruned(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if value}


def location(stored: Object, targets: list[Node]) -> str:
    return f"{targets[stored.owner].name}:mp[/emulator, none]"
