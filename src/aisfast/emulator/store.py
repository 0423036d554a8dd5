"""Buckets and objects, in memory or as files of a directory (DIR/<provider>/<bucket>/<object name>).

One store serves all targets; which target "has" an object is the cluster map's business. With a directory, names and
contents survive a restart; versions start at 1 again and custom metadata is lost. A file put there by hand counts too.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from aisfast.emulator import shards
from aisfast.emulator.errors import BucketNotFound, Failure, NotFound
from aisfast.emulator.smap import GLOBAL_NAMESPACE, Smap

PROVIDERS = {"ais": "ais", "aws": "s3", "gcp": "gs", "azure": "az", "oci": "oc"}  # name → scheme in texts
ALIASES = {"": "ais", "s3": "aws", "gs": "gcp", "az": "azure", "oc": "oci"}
SHARD_CACHE = 256 << 20  # bytes of unpacked shards kept

_BUCKET_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


def provider(name: str) -> str:
    """The normalized provider.

    Raises:
        Failure: No such provider.
    """
    name = ALIASES.get(name, name)
    if name not in PROVIDERS:
        known = ", ".join(p if p == s else f"{p} ({s}://)" for p, s in PROVIDERS.items())
        raise Failure(400, f'invalid backend provider "{name}": must be one of [{known}]', "ErrInvalidBackendProvider")
    return name


def check_bucket_name(name: str) -> None:
    """Raises Failure."""
    if not name:
        raise Failure(400, "bucket name is missing")
    if not _BUCKET_NAME.match(name) or ".." in name or name.startswith("."):
        text = "may only contain letters, numbers, dashes (-), underscores (_), and dots (.)"
        raise Failure(400, f"bucket name is invalid: {text}")


class Object:
    """One stored object. Immutable but for its access time, custom metadata and the checksum computed when asked."""

    def __init__(self, bucket: Bucket, name: str, content: bytes | Path, size: int, version: int, atime: int):
        self.bucket = bucket
        self.name = name
        self.content = content  # or where it is
        self.size = size
        self.version = version
        self.atime = atime  # nanoseconds since the epoch
        self.custom: dict[str, str] = {}
        self.owner = bucket.store.owner_of(bucket, name)
        self._md5: str | None = None

    @property
    def data(self) -> bytes:
        """Its bytes; other than `size` of them if a file was changed from outside."""
        if isinstance(self.content, bytes):
            return self.content
        try:
            return self.content.read_bytes()
        except OSError as error:
            raise Failure(400, f"{self.uri}: cannot be read: {error.strerror}") from None

    @property
    def uri(self) -> str:
        return f"{self.bucket.uri}/{self.name}"

    @property
    def checksum(self) -> tuple[str, str]:
        """Type and value. The real default is xxhash2, which the standard library lacks: md5 here."""
        if self._md5 is None:
            self._md5 = hashlib.md5(self.data, usedforsecurity=False).hexdigest()
        return "md5", self._md5

    def touch(self) -> None:
        """It was read."""
        self.atime = time.time_ns()

    def drop(self) -> None:
        if isinstance(self.content, Path):
            self.content.unlink(missing_ok=True)


class Bucket:
    """One bucket: objects by name, and their names in order."""

    def __init__(self, store: Store, prov: str, name: str, namespace: str = GLOBAL_NAMESPACE):
        self.store = store
        self.provider = prov
        self.name = name
        self.namespace = namespace
        self.created = time.time_ns()
        self.objects: dict[str, Object] = {}
        self._names: list[str] | None = None
        self._lock = threading.Lock()

    @property
    def uri(self) -> str:
        space = "" if self.namespace == GLOBAL_NAMESPACE else f"{self.namespace}/"
        return f"{PROVIDERS[self.provider]}://{space}{self.name}"

    @property
    def uname(self) -> str:
        """What the owner of an object is computed from, with the object's name after it."""
        return f"{self.provider}/{self.namespace}/{self.name}/"

    @property
    def folder(self) -> Path | None:
        if self.store.dir is None:
            return None
        space = [] if self.namespace == GLOBAL_NAMESPACE else [_safe(self.namespace)]
        return self.store.dir.joinpath(self.provider, *space, _safe(self.name))

    def names(self) -> list[str]:
        """All names in byte order."""
        with self._lock:
            if self._names is None:
                self._names = sorted(self.objects, key=_order)
            return self._names

    def names_after(self, marker: str) -> list[str]:
        names = self.names()
        return names[bisect_right(names, _order(marker), key=_order) :] if marker else names

    def put(self, name: str, data: bytes) -> Object:
        old = self.objects.get(name)
        version = old.version + 1 if old else 1
        held: bytes | Path = data
        if self.folder is not None:
            held = self.folder.joinpath(*(_safe(part) for part in name.split("/")))
            try:
                held.parent.mkdir(parents=True, exist_ok=True)
                part = held.with_name(f"{threading.get_ident()}%part")
                part.write_bytes(data)
                part.replace(held)
            except OSError as error:
                raise Failure(400, f"{self.uri}/{name}: cannot be stored as a file: {error.strerror}") from None
        made = Object(self, name, held, len(data), version, time.time_ns())
        self.add(made)
        return made

    def add(self, made: Object) -> None:
        with self._lock:
            if made.name not in self.objects:
                self._names = None
            self.objects[made.name] = made

    def delete(self, name: str) -> None:
        with self._lock:
            gone = self.objects.pop(name, None)
            self._names = None
        if gone is None:
            raise Failure(404, f"{self.uri}/{name} doesn't exist")
        gone.drop()

    def load(self) -> None:
        """Take in what the bucket's directory holds."""
        folder = self.folder
        assert folder is not None
        for root, _, files in os.walk(folder):
            parts = [unquote(part) if part != "%" else "" for part in Path(root).relative_to(folder).parts]
            for file in files:
                path = Path(root, file)
                if file.endswith("%part"):
                    path.unlink()
                    continue
                stat = path.stat()
                name = "/".join([*parts, unquote(file)])
                self.add(Object(self, name, path, stat.st_size, 1, stat.st_mtime_ns))


class Store:
    """All buckets.

    Args:
        directory: Where objects live as files, or None for memory.
        smap: Says which target owns an object, and which ones are there.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, smap: Smap):
        self.dir = Path(directory) if directory is not None else None
        self.buckets: dict[tuple[str, str, str], Bucket] = {}
        self._smap = smap
        self._placed: dict[str, int] = {}
        self.lock = threading.Lock()
        self._shards: OrderedDict[Object, shards.Shard] = OrderedDict()
        self._shard_bytes = 0

    def owner_of(self, bucket: Bucket, name: str) -> int:
        """Index of the target that owns an object, there or not: one that is in the map."""
        uname = bucket.uname + name
        placed = self._placed.get(uname) if self._placed else None
        if placed is None or self._smap.state(placed)[0] == "gone":
            return self._smap.owner(uname)
        return placed

    def locate(self, bucket: Bucket, name: str) -> tuple[Object | None, int]:
        """The object and its target; None and who would own it, if it is not there, or its target not in the map."""
        stored = bucket.objects.get(name)
        if stored is None or (self._smap.troubled and self._smap.state(stored.owner)[0] == "gone"):
            return None, self.owner_of(bucket, name)
        return stored, stored.owner

    def place(self, bucket: Bucket, name: str, target: int) -> None:
        self._placed[bucket.uname + name] = target
        stored = bucket.objects.get(name)
        if stored is not None:
            stored.owner = target

    def load(self) -> None:
        """Find what a directory already holds. A directory of files without the provider's level is not looked at."""
        if self.dir is None:
            return
        self.dir.mkdir(parents=True, exist_ok=True)
        for prov in PROVIDERS:
            for folder in sorted(self.dir.glob(f"{prov}/*")):
                if not folder.is_dir():
                    continue
                name, namespace, inner = unquote(folder.name), GLOBAL_NAMESPACE, [folder]
                if name.startswith("@"):
                    namespace, inner = name, sorted(folder.iterdir())
                for sub in inner:
                    bucket = Bucket(self, prov, unquote(sub.name), namespace)
                    self.buckets[prov, namespace, bucket.name] = bucket
                    bucket.load()

    def bucket(self, name: str, prov: str = "ais", namespace: str = GLOBAL_NAMESPACE) -> Bucket:
        """Raises BucketNotFound."""
        bucket = self.known_or_new(name, prov, namespace)
        if (prov, namespace, name) not in self.buckets:
            raise BucketNotFound(prov, bucket.uri)
        return bucket

    def known_or_new(self, name: str, prov: str = "ais", namespace: str = GLOBAL_NAMESPACE) -> Bucket:
        """The bucket, or one that is not in the store."""
        return self.buckets.get((prov, namespace, name)) or Bucket(self, prov, name, namespace)

    def create(self, name: str, prov: str = "ais", namespace: str = GLOBAL_NAMESPACE) -> Bucket:
        """Raises Failure if the name is bad or taken."""
        check_bucket_name(name)
        bucket = Bucket(self, prov, name, namespace)
        with self.lock:
            if (prov, namespace, name) in self.buckets:
                raise Failure(409, f'bucket "{bucket.uri}" already exists', "ErrBucketAlreadyExists")
            if bucket.folder is not None:
                bucket.folder.mkdir(parents=True, exist_ok=True)
            self.buckets[prov, namespace, name] = bucket
        return bucket

    def destroy(self, bucket: Bucket) -> None:
        with self.lock:
            self.buckets.pop((bucket.provider, bucket.namespace, bucket.name), None)
        if bucket.folder is not None:
            shutil.rmtree(bucket.folder, ignore_errors=True)

    def shard(self, stored: Object) -> shards.Shard:
        """The object read as an archive, from the cache if it is there."""
        with self.lock:
            known = self._shards.get(stored)
            if known is not None:
                self._shards.move_to_end(stored)
                return known
        read = shards.read(stored.name, stored.data, stored.uri)
        read.weight += 0 if isinstance(stored.content, bytes) else stored.size
        with self.lock:
            if stored not in self._shards:
                self._shards[stored] = read
                self._shard_bytes += read.weight + 1024
                while self._shard_bytes > SHARD_CACHE and len(self._shards) > 1:
                    self._shard_bytes -= self._shards.popitem(last=False)[1].weight + 1024
        return read

    def member(self, stored: Object, archpath: str, node: str) -> shards.Member:
        """A file of a shard.

        Args:
            node: How texts name the target that reads (`t[id]`).
        Raises:
            NotFound: The shard has no such file.
            Failure: The shard cannot be read.
        """
        member = self.shard(stored).find(archpath)
        if member is None:
            raise NotFound(f"{node}: {archpath} in {stored.uri}")
        return member


def find(bucket: Bucket, name: str, node: str) -> Object:
    """The object, or NotFound as the target `node` would word it."""
    stored = bucket.store.locate(bucket, name)[0]
    if stored is None:
        raise NotFound(f"{node}: {bucket.uri}/{name}")
    return stored


def _order(name: str) -> bytes:
    return name.encode("utf-8", "replace")


def _safe(part: str) -> str:
    """A path component that any file system takes; "%" for an empty one."""
    if part in (".", ".."):
        return part.replace(".", "%2E")
    return quote(part, safe=" !#$&'()+,-.;=@[]^_`{}~") if part else "%"


def bucket_list(store: Store, prov: str | None) -> Iterator[dict[str, Any]]:
    """What list-buckets answers."""
    for bucket in sorted(store.buckets.values(), key=lambda b: (b.provider, b.namespace, b.name)):
        if prov is None or bucket.provider == prov:
            uuid, _, space = bucket.namespace[1:].partition("#")
            yield {"name": bucket.name, "provider": bucket.provider, "namespace": {"uuid": uuid, "name": space}}
