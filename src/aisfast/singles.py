"""One entry by REST: where a batch cannot bring it, or what came is in doubt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aisfast.errors import (
    AISConnectionError,
    AISError,
    AISTimeoutError,
    ErrRangeNotSatisfiable,
    LimitError,
    Unreadable,
    WireError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import urllib3

    from aisfast._request import Entries
    from aisfast.session import Session

PIECE = 32 << 20  # bytes of an object asked for at a time
READ_SIZE = 1 << 18
PARALLEL = 8
MOST_AHEAD = 64


class Singles:
    """Object GETs and HEADs for the entries of one batch. `until` is monotonic seconds."""

    def __init__(self, session: Session, entries: Entries, namespace: str | None, max_entry: int) -> None:
        self._session = session
        self._entries = entries
        self._namespace = namespace
        self._max_entry = max_entry
        self._sizes: dict[int, int] = {}  # of entries whose turn comes next, asked for ahead: where one is in doubt ...
        self._ahead = 0  # ... the next ones will be; so many
        self._begun: dict[int, tuple[str, bytearray]] = {}  # what came of payloads that broke off, and its version
        self._broke_at: dict[int, int] = {}  # and at which byte

    def size(self, index: int, until: float) -> int:
        """Bytes of the object, or of the archive's member, that the entry names.

        Raises:
            AISError: It cannot be told.
        """
        size = self._sizes.pop(index, None)
        if size is not None:
            return size
        following = range(index + 1, len(self._entries))
        ranged = (i for i in following if self._entries.row(i)[6])
        others = list(islice(ranged, self._ahead))
        self._ahead = min(MOST_AHEAD, 4 * self._ahead + 1)
        if not others:
            return self._size(index, until)[0]

        def one(i: int) -> int | AISError:
            try:
                return self._size(i, until)[0]
            except AISError as error:
                return error

        with ThreadPoolExecutor(PARALLEL, "aisfast-head") as pool:
            found, *sizes = pool.map(one, [index, *others])
        self._sizes = {i: size for i, size in zip(others, sizes, strict=True) if isinstance(size, int)}
        if isinstance(found, AISError):
            raise found
        return found

    def payload(self, index: int, until: float) -> memoryview:
        """The entry's payload, its range cut out. What came before a failure is kept for the next try.

        Raises:
            ErrObjNotFound: It does not exist.
            ErrRangeNotSatisfiable: Its range lies outside.
            LimitError: It is larger than the policy allows.
            AISError: It cannot be had.
        """
        start, length = self._entries.row(index)[5:7]
        path, params, archpath = self._place(index)
        if archpath is not None:
            answer = self._call("GET", path, {**params, "archpath": archpath}, {}, until)
            size = _length(answer)
            if size > self._max_entry:
                answer.close()
            self._check_size(index, size)
            member = bytearray()
            self._read_into(member, answer, size, index, until)
            first, stop = self._range(index, start, length, len(member))
            return memoryview(member)[first:stop]
        size, version = self._size(index, until)
        first, stop = self._range(index, start, length, size)
        self._check_size(index, stop - first)
        before, payload = self._begun.pop(index, (version, bytearray()))
        if before != version:  # written anew in between
            payload = bytearray()
        self._begun[index] = (version, payload)
        while first + len(payload) < stop:
            at = first + len(payload)
            last = min(stop, at + PIECE) - 1
            answer = self._call("GET", path, params, {"Range": f"bytes={at}-{last}"}, until)
            found = answer.headers.get("Content-Range", "")
            if answer.status != 206 or not found.startswith(f"bytes {at}-{last}/"):
                answer.close()
                raise self._wrong(index, answer, f"206, bytes {at}-{last}", f"{answer.status}, {found or 'no range'}")
            if _version(answer) != version:
                del self._begun[index]
                answer.close()
                raise self._failed(index, answer, "the object was written anew while it was read")
            self._read_into(payload, answer, last + 1 - at, index, until)
        del self._begun[index]
        return memoryview(payload)

    def several(self, indices: Iterable[int], until: float) -> dict[int, Any]:
        """The payloads of some entries, or the errors that say why not, by index; a few at a time."""

        def one(index: int) -> tuple[int, memoryview | AISError]:
            try:
                return index, self.payload(index, until)
            except AISError as error:
                return index, error

        with ThreadPoolExecutor(PARALLEL, "aisfast-get") as pool:
            return dict(pool.map(one, indices))

    # ------------------------------------------------------------------------------------------------------------ calls

    def _place(self, index: int) -> tuple[str, dict[str, str], str | None]:
        """Path and query of the entry's object, and the member in it."""
        name, bucket, provider, archpath, *_, uname = self._entries.row(index)
        namespace: str | None = None
        if uname is not None:
            provider, space, bucket = (*uname.split("/"), "", "")[:3]  # as the caller wrote it
            namespace = None if space == "@#" else space
        elif bucket is None:
            bucket, provider, namespace = self._entries.bucket, self._entries.provider, self._namespace
        params = {"provider": provider or "ais"}
        if namespace is not None:
            params["namespace"] = namespace
        return f"objects/{quote(bucket or '', safe='')}/{quote(name)}", params, archpath

    def _call(
        self, method: str, path: str, params: dict[str, str], headers: dict[str, str], until: float
    ) -> urllib3.BaseHTTPResponse:
        timeout = self._session.settings.read_timeout
        left = max(0.001, until - monotonic())
        return self._session.request(
            method,
            path,
            params=params,
            headers=headers,
            stream=True,
            read_timeout=left if timeout is None else min(left, timeout),
            tries=1,
        )

    def _size(self, index: int, until: float) -> tuple[int, str]:
        """Size and version of the object; of a member only the size, as the head of a GET tells it."""
        path, params, archpath = self._place(index)
        if archpath is None:
            answer = self._call("HEAD", path, {**params, "props": "name,size,version"}, {}, until)
            answer.release_conn()
        else:
            answer = self._call("GET", path, {**params, "archpath": archpath}, {}, until)
            answer.close()
        size = _length(answer)
        if size < 0:
            raise self._wrong(index, answer, "Content-Length", "none")
        return size, _version(answer)

    def _read_into(
        self, payload: bytearray, answer: urllib3.BaseHTTPResponse, size: int, index: int, until: float
    ) -> None:
        """Add `size` bytes of an answer's body to the payload; negative: all of it."""
        stop = len(payload) + size if size >= 0 else self._max_entry + 1
        path, described = self._place(index)[0], self._entries.describe(index)
        url = f"{self._session.settings.endpoint}/v1/{path}"
        try:
            with self._session.translated(url, "GET", None):
                while len(payload) < stop and (piece := answer.read1(min(READ_SIZE, stop - len(payload)))):
                    payload += piece
                    if monotonic() > until:
                        raise AISTimeoutError(0, f"{described}: no time is left", url, remedy="allow more time")
        except AISConnectionError as error:
            answer.close()
            if self._broke_at.get(index) == len(payload):
                raise Unreadable(0, f"it ends after {len(payload)} bytes", url) from error
            self._broke_at[index] = len(payload)
            raise
        except BaseException:
            answer.close()
            raise
        answer.release_conn()
        if size < 0:
            self._check_size(index, len(payload))
        elif len(payload) < stop:
            raise self._failed(index, answer, "an object GET was cut")

    # ----------------------------------------------------------------------------------------------------------- checks

    def _range(self, index: int, start: int, length: int, size: int) -> tuple[int, int]:
        """The part of an object of `size` bytes that was asked for."""
        if not length:
            return 0, size
        stop = size if length < 0 else start + length
        if start >= size or stop > size:
            described = self._entries.describe(index)
            raise ErrRangeNotSatisfiable(
                416, f"it has {size} bytes", remedy="ask for a range inside the object", entry=described
            )
        return start, stop

    def _check_size(self, index: int, size: int) -> None:
        if size > self._max_entry:
            described = self._entries.describe(index)
            raise LimitError(
                0,
                f"{described} of {size} bytes is over the limit of {self._max_entry} for one entry",
                layer="batch",
                entry=described,
                remedy="raise Policy(max_entry=...) or ask for ranges of it",
            )

    def _failed(self, index: int, answer: urllib3.BaseHTTPResponse, how: str) -> AISError:
        return AISError(0, f"{self._entries.describe(index)}: {how}", answer.url or "", remedy="ask again")

    def _wrong(self, index: int, answer: urllib3.BaseHTTPResponse, expected: str, found: str) -> WireError:
        described = self._entries.describe(index)
        return WireError(
            0,
            f"{described}: an object GET is answered with {found}, not with {expected}",
            answer.url or "",
            layer="http",
            expected=expected,
            found=found,
            entry=described,
            remedy="is there something on the way that changes answers?",
        )


def _length(answer: urllib3.BaseHTTPResponse) -> int:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


def _version(answer: urllib3.BaseHTTPResponse) -> str:
    return answer.headers.get("Ais-Version", "")
