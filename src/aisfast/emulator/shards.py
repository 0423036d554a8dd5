"""Members of stored archives: `.tar`, `.tgz`, `.tar.gz`, `.tar.lz4`, `.zip`.

A shard is read once and kept. Damage in it does not hide what stands before it: members found so far stay readable, a
member whose data ends early is short, and only a name that was not found before the damage gets the error.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aisfast.emulator.errors import Failure, UnknownMime
from aisfast.emulator.tar import BLOCK, PIECE

EXTENSIONS = (".tar", ".tgz", ".tar.gz", ".zip", ".tar.lz4")


@dataclass
class Member:
    """One file of a shard.

    Attributes:
        name: As the archive has it.
        size: Bytes by its header.
        load: Gives its bytes, fewer than `size` if the archive ends early, and the error that comes after them: then,
            or for a wrong checksum.
        window: Where it begins in the inflated stream, which the server reads window by window; None where it does not.
        mtime, flag: Of its tar header.
    """

    name: str
    size: int
    load: Callable[[], tuple[bytes | memoryview, str | None]]
    window: int | None = None
    mtime: int = 0
    flag: bytes = b"0"

    def first_piece(self, start: int) -> int:
        """Bytes of the first piece that the server copies of a range from `start` on; further ones are PIECE long."""
        return PIECE if self.window is None else PIECE - (self.window + start) % PIECE


@dataclass
class Shard:
    """Members in archive order, and the error that ended the reading, if one did."""

    members: list[Member]
    error: str | None = None
    weight: int = 0  # bytes it keeps in memory beside the object's own
    _index: dict[str, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member in self.members:
            self._index.setdefault(_bare(member.name), member)

    def find(self, archpath: str) -> Member | None:
        """The first member of that name, one leading slash on either side aside.

        Raises:
            Failure: The archive is damaged before such a member was found.
        """
        member = self._index.get(_bare(archpath))
        if member is None and self.error is not None:
            raise Failure(400, self.error, "Error" if self.error.startswith("lz4") else "")
        return member


def read(name: str, data: bytes, uri: str) -> Shard:
    """Read the archive `data`, stored under `name`.

    Args:
        uri: How texts call it.
    Raises:
        Failure: Not an archive, or one that cannot be opened at all.
    """
    kind = extension(name) or _by_magic(name, data)
    try:
        if kind == ".zip":
            return _zip(data)
        if kind == ".tar":
            return Shard(*_tar(data, None))
        plain, damage = _gunzip(data) if kind in (".tgz", ".tar.gz") else _unlz4(data)
    except ValueError as error:
        raise Failure(400, f"failed to open {uri}: {error}", "wrapError") from None
    return Shard(*_tar(plain, damage, windows=kind != ".tar.lz4"), weight=len(plain))


def extension(name: str) -> str | None:
    """The archive extension of an object name."""
    return next((ext for ext in EXTENSIONS if name.endswith(ext)), None)


def output_format(mime: str) -> str:
    """The output format that `mime` asks for; "" asks for .tar.

    Raises:
        UnknownMime: None of the five.
        Failure: One that needs a package which is not there.
    """
    for ext in (".tar.gz", ".tar.lz4", *EXTENSIONS):
        if ext[1:] in mime:
            if ext == ".tar.lz4":
                _lz4("writing .tar.lz4")
            return ext
    if mime:
        raise UnknownMime(mime)
    return ".tar"


def _bare(name: str) -> str:
    return name[1:] if name.startswith("/") else name


def _by_magic(name: str, data: bytes) -> str:
    for at, mark, kind in (
        (257, b"ustar", ".tar"),
        (0, b"\x1f\x8b", ".tar.gz"),
        (0, b"PK", ".zip"),
        (0, b"\x04\x22\x4d\x18", ".tar.lz4"),
    ):
        if data[at : at + len(mark)] == mark:
            return kind
    raise Failure(400, f'unrecognized or unsupported file format: "{name}"')


def _tar(data: bytes, damage: str | None, windows: bool = False) -> tuple[list[Member], str | None]:
    """Members of a tar, and why the reading ended if not at its end.

    Args:
        damage: Why `data` ends where it does, if not because the archive is as long as that.
        windows: The server reads it through a window of PIECE bytes.
    """
    members: list[Member] = []
    view = memoryview(data)
    at, total = 0, len(data)
    name = size = None
    early = damage or "unexpected EOF"
    while at < total:
        block = data[at : at + BLOCK]
        if len(block) < BLOCK:
            return members, early
        at += BLOCK
        if not any(block):
            return members, None
        try:
            stored = int(block[148:156].strip(b" \0") or b"0", 8)
            length = _number(block[124:136])
            mtime = _number(block[136:148])
        except ValueError:
            return members, _BAD_HEADER
        if stored != sum(block[:148]) + 256 + sum(block[156:]) or length < 0:
            return members, _BAD_HEADER
        flag = block[156:157]
        if flag in (b"x", b"L"):
            body = data[at : at + length]
            if len(body) < length:
                return members, early
            if flag == b"L":
                name = _text(body)
            else:
                records = _records(body)
                if records is None:
                    return members, _BAD_HEADER
                name = records.get("path", name)
                size = int(records["size"]) if records.get("size", "").isdigit() else size
        elif flag not in (b"g", b"K"):
            own = _text(block[:100])
            if block[257:262] == b"ustar" and block[345]:
                own = _text(block[345:500]) + "/" + own
            name = own if name is None else name
            if flag in (b"5", b"1", b"2", b"3", b"4", b"6"):
                length = 0
            elif size is not None:
                length = size
            load = _slice(view, at, length, early)
            members.append(Member(name, length, load, at if windows else None, mtime, flag))
            name = size = None
        at += length + -length % BLOCK
    return members, damage if at == total else early


_BAD_HEADER = "archive/tar: invalid tar header"


def _slice(view: memoryview, at: int, length: int, early: str) -> Callable[[], tuple[memoryview, str | None]]:
    return lambda: (view[at : at + length], early if at + length > len(view) else None)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


def _number(raw: bytes) -> int:
    if raw[0] & 0x80:  # base-256
        return int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
    return int(raw.strip(b" \0") or b"0", 8)


def _records(body: bytes) -> dict[str, str] | None:
    found, at = {}, 0
    while at < len(body):
        end = body.find(b" ", at)
        if end < 0 or not body[at:end].isdigit():
            return None
        length = int(body[at:end])
        key, equals, value = body[end + 1 : at + length - 1].partition(b"=")
        if length <= end - at or not equals:
            return None
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        at += length
    return found


def _gunzip(data: bytes) -> tuple[bytes, str | None]:
    """The inflated bytes, and the error after them. Raises ValueError if there is not even a header."""
    if data[:2] != b"\x1f\x8b":
        raise ValueError("gzip: invalid header" if data else "EOF")
    out, rest = bytearray(), data
    while rest:
        stream = zlib.decompressobj(31)
        plain, error = _inflate(stream, rest)
        out += plain
        if error:
            return bytes(out), "gzip: invalid checksum" if "incorrect data check" in error else error
        if not stream.eof:
            return bytes(out), "unexpected EOF"
        rest = stream.unused_data
    return bytes(out), None


def _inflate(stream: zlib._Decompress, data: bytes) -> tuple[bytes, str | None]:
    """Decompress; from a damaged stream what it gives before its damage, and the error."""
    first = stream.copy()
    try:
        return stream.decompress(data), None
    except zlib.error as error:
        out = bytearray()
        with contextlib.suppress(zlib.error):
            for at in range(len(data)):
                out += first.decompress(data[at : at + 1])
        return bytes(out), str(error) if "incorrect data check" in str(error) else "flate: corrupt input"


def _lz4(what: str) -> Any:
    try:
        import lz4.frame
    except ImportError:
        raise Failure(501, f"{what} needs the lz4 package (pip install 'aisfast[lz4]')") from None
    return lz4.frame


def _unlz4(data: bytes) -> tuple[bytes, str | None]:
    frame = _lz4("reading .tar.lz4 shards")
    if not data:
        return b"", None
    stream = frame.LZ4FrameDecompressor()
    out = bytearray()
    try:
        for at in range(0, len(data), PIECE):
            out += stream.decompress(data[at : at + PIECE])
            if stream.eof:
                return bytes(out), None
    except RuntimeError:
        known = data[:4] == b"\x04\x22\x4d\x18"
        return bytes(out), "lz4: invalid source or destination buffer too short" if known else "lz4: bad magic number"
    return bytes(out), "unexpected EOF"


def _zip(data: bytes) -> Shard:
    """Raises ValueError if there is no directory."""
    try:
        infos = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError):
        raise ValueError("zip: not a valid zip file") from None
    members = []
    for info in infos:
        if not info.is_dir():
            window = 0 if info.compress_type == zipfile.ZIP_DEFLATED else None
            members.append(Member(info.filename, info.file_size, _zipped(data, info), window))
    return Shard(members)


def _zipped(data: bytes, info: zipfile.ZipInfo) -> Callable[[], tuple[bytes, str | None]]:
    def load() -> tuple[bytes, str | None]:
        head = data[info.header_offset : info.header_offset + 30]
        if head[:4] != b"PK\x03\x04" or len(head) < 30:
            return b"", "zip: not a valid zip file"
        start = info.header_offset + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
        raw = data[start : start + info.compress_size]
        error: str | None = None
        if info.compress_type == zipfile.ZIP_DEFLATED:
            raw, error = _inflate(zlib.decompressobj(-15), raw)
        elif info.compress_type != zipfile.ZIP_STORED:
            return b"", "zip: unsupported compression algorithm"
        if error is None and len(raw) < info.file_size:
            error = "unexpected EOF"
        if error is None and zlib.crc32(raw) != info.CRC:
            error = "zip: checksum error"
        return raw, error

    return load
