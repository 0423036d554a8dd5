"""A slow decoder that is obviously right: the standard library on a GetBatch answer in TAR format.

It judges ours on answers of lawful form; of the unlawful, the standard library accepts some that ours must
refuse.
"""

from __future__ import annotations

import email.message
import http.client
import io
import json
import tarfile
from typing import Any, NamedTuple


class Decoded(NamedTuple):
    """What an answer says.

    `members`: (name, payload) of the whole regular members, in order. `reason`: why it is not whole, or None.
    """

    status: int
    headers: dict[str, str]
    metadata: dict[str, Any] | None
    members: list[tuple[str, bytes]]
    mtimes: list[float]
    reason: str | None


class _Socket:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._raw)


def decode(raw: bytes) -> Decoded:
    """Decode one HTTP answer. Never raises for what is wrong with the answer: that is the `reason`."""
    response = http.client.HTTPResponse(_Socket(raw), method="GET")  # type: ignore[arg-type]
    try:
        response.begin()
    except http.client.HTTPException as error:
        return Decoded(0, {}, None, [], [], f"head: {error!r}")
    headers = {name.lower(): value for name, value in response.getheaders()}
    body, reason = _body(response)
    metadata = None
    archive = body
    if response.status == 200 and headers.get("content-type", "").startswith("multipart/"):
        metadata, archive, trouble = _multipart(body, headers["content-type"])
        reason = reason or trouble
    members: list[tuple[str, bytes]] = []
    mtimes: list[float] = []
    if response.status == 200:
        members, mtimes, trouble = read_tar(archive)
        reason = reason or trouble
    return Decoded(response.status, headers, metadata, members, mtimes, reason)


def _body(response: http.client.HTTPResponse) -> tuple[bytes, str | None]:
    pieces = []
    try:
        while piece := response.read1(1 << 20):
            pieces.append(piece)
    except (http.client.HTTPException, ValueError) as error:
        return b"".join(pieces), f"http: {error!r}"
    cut = response.length and not response.chunked
    return b"".join(pieces), "http: body shorter than its Content-Length" if cut else None


def _multipart(body: bytes, content_type: str) -> tuple[dict[str, Any] | None, bytes, str | None]:
    message = email.message.Message()
    message["Content-Type"] = content_type
    delimiter = b"--" + str(message.get_param("boundary")).encode()
    if not body.startswith(delimiter + b"\r\n"):
        return None, b"", "multipart: no first delimiter"
    _, blank, rest = body.partition(b"\r\n\r\n")
    text, second, rest = rest.partition(b"\r\n" + delimiter + b"\r\n")
    _, blank2, archive = rest.partition(b"\r\n\r\n")
    if not (blank and second and blank2):
        return None, b"", "multipart: no archive part"
    try:
        metadata = json.loads(text)
    except ValueError as error:
        return None, archive, f"metadata: {error}"
    close = b"\r\n" + delimiter + b"--\r\n"
    return (
        metadata,
        archive.removesuffix(close),
        None if archive.endswith(close) else "multipart: no close delimiter",
    )


def read_tar(archive: bytes) -> tuple[list[tuple[str, bytes]], list[float], str | None]:
    """(members, mtimes, reason) of a TAR."""
    members: list[tuple[str, bytes]] = []
    mtimes: list[float] = []
    at = 0
    if archive[:512] != bytes(512):
        try:
            with tarfile.open(
                fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8", errors="surrogateescape"
            ) as tar:
                for info in tar:
                    payload = archive[info.offset_data : info.offset_data + info.size]
                    if info.isreg() and len(payload) < info.size:
                        return members, mtimes, f"tar: cut in member {info.name!r}"
                    if info.isreg():
                        members.append((info.name, payload))
                        mtimes.append(info.mtime)
                    at = info.offset_data + -(-info.size // 512) * 512
        except tarfile.TarError as error:
            return members, mtimes, f"tar: {error!r}"
    return members, mtimes, None if archive[at : at + 1024] == bytes(1024) else "tar: no trailer"
