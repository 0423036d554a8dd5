"""One entry by REST: where a batch cannot bring it, or what came is in doubt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aisfast.errors import AISError, ErrRangeNotSatisfiable, LimitError

if TYPE_CHECKING:
    from aisfast._request import Entries
    from aisfast.session import Session

PIECE = 32 << 20  # bytes of an object got at a time: one that breaks off loses no more
PARALLEL = 8


class Singles:
    """Object GETs for the entries of one batch."""

    def __init__(self, session: Session, entries: Entries, namespace: str | None, max_entry: int) -> None:
        self._session = session
        self._entries = entries
        self._namespace = namespace
        self._max_entry = max_entry

    def size(self, index: int) -> int:
        """Bytes of the object, or of the archive's member, that the entry names.

        Raises:
            AISError: It cannot be told.
        """
        path, params, archpath = self._place(index)
        if archpath is not None:
            return len(self._member(index))
        answer = self._session.request("HEAD", path, params={**params, "props": "name,size"})
        return int(answer.headers.get("Content-Length", "0"))

    def payload(self, index: int) -> memoryview:
        """The entry's payload, its range cut out.

        Raises:
            ErrObjNotFound: It does not exist.
            ErrRangeNotSatisfiable: Its range lies outside.
            LimitError: It is larger than the policy allows.
            AISError: It cannot be had.
        """
        start, length = self._entries.row(index)[5:7]
        described = self._entries.describe(index)
        path, params, archpath = self._place(index)
        if archpath is not None:
            return self._cut(index, memoryview(self._member(index)), start, length)
        size = self.size(index)
        right = size if not length else size - start if length < 0 else length
        if length and (start >= size or right > size - start):
            raise self._out_of_range(index, size)
        if right > self._max_entry:
            raise LimitError(
                0,
                f"{described} of {right} bytes is over the limit of {self._max_entry} for one entry",
                layer="batch",
                entry=described,
                remedy="raise Policy(max_entry=...) or ask for ranges of it",
            )
        payload = bytearray()
        while len(payload) < right:
            first = start + len(payload)
            last = first + min(PIECE, right - len(payload)) - 1
            answer = self._session.request("GET", path, params=params, headers={"Range": f"bytes={first}-{last}"})
            piece = answer.data
            if answer.status == 200:  # no ranges here: the whole object
                return self._cut(index, memoryview(piece), start, length)
            if not piece or len(piece) > last - first + 1:
                raise AISError(0, f"{described}: an object GET brought the wrong range", answer.url or "")
            payload += piece
        return memoryview(payload)

    def several(self, indices: range) -> dict[int, Any]:
        """The payloads of some entries, or the errors that say why not, by index; a few at a time."""

        def one(index: int) -> memoryview | AISError:
            try:
                return self.payload(index)
            except AISError as error:
                return error

        with ThreadPoolExecutor(PARALLEL, "aisfast-get") as pool:
            return dict(zip(indices, pool.map(one, indices), strict=True))

    def _place(self, index: int) -> tuple[str, dict[str, str], str | None]:
        name, bucket, provider, archpath, *_ = self._entries.row(index)
        params = {"provider": (provider if bucket else self._entries.provider) or "ais"}
        if bucket is None and self._namespace is not None:
            params["namespace"] = self._namespace
        return f"objects/{quote(bucket or self._entries.bucket or '', safe='')}/{quote(name)}", params, archpath

    def _member(self, index: int) -> bytes:
        path, params, archpath = self._place(index)
        return self._session.request("GET", path, params={**params, "archpath": archpath or ""}).data

    def _cut(self, index: int, whole: memoryview, start: int, length: int) -> memoryview:
        if not length:
            return whole
        stop = len(whole) if length < 0 else start + length
        if start >= len(whole) or stop > len(whole):
            raise self._out_of_range(index, len(whole))
        return whole[start:stop]

    def _out_of_range(self, index: int, size: int) -> ErrRangeNotSatisfiable:
        described = self._entries.describe(index)
        return ErrRangeNotSatisfiable(
            416, f"{described}: it has {size} bytes", remedy="ask for a range inside the object", entry=described
        )


