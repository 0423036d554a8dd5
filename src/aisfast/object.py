"""One object: its properties, a reader and a writer. Thin: every method is one REST call.

Reading ends with an error where the announced length was not reached: short content never passes for whole.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from aisfast.enums import Provider
from aisfast.errors import AISConnectionError, AISError, AISTimeoutError
from aisfast.models import ArchiveConfig
from aisfast.session import READ_SIZE, FileBody, header_text
from aisfast.settings import KIB
from aisfast.unsupported import refuse, unsupported

if TYPE_CHECKING:
    import urllib3

    from aisfast.client import Client

CHUNK_SIZE = 32 * KIB  # of an iteration over a reader, unless said otherwise

_DOTS = re.compile(r"(^|/)\.\.?(/|$)")
_RANGE = re.compile(r"bytes=(\d+-\d*|-\d+)")


@dataclass
class BucketDetails:
    """What an object knows of its bucket."""

    name: str
    provider: Provider
    qparams: dict[str, str]
    path: str


class Response:
    """The answer to a write: what programs ask of it."""

    __slots__ = ("content", "headers", "status_code")

    def __init__(self, answer: urllib3.BaseHTTPResponse) -> None:
        self.status_code = answer.status
        self.headers = answer.headers
        self.content = answer.data

    ok = True  # an error status is raised instead

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)

    def __repr__(self) -> str:
        return f"<Response [{self.status_code}]>"


# --------------------------------------------------------------------------------------- properties


@dataclass
class ECInfo:
    """How an object is erasure-coded: number of the generation, of data and parity slices; whether it is a copy."""

    generation: int = 0
    data_slices: int = 0
    parity_slices: int = 0
    is_ec_copy: bool = False


@dataclass
class ChunksInfo:
    """Of a chunked object: number of chunks, and bytes of the largest."""

    chunk_count: int = 0
    max_chunk_size: int = 0


class ObjectAttributes:
    """What an answer's headers say of an object; empty or 0 where they say nothing."""

    __slots__ = ("_custom", "_headers")

    def __init__(self, response_headers: Mapping[str, str]) -> None:
        self._headers = {name.lower(): header_text(response_headers[name]) for name in response_headers}
        getlist = getattr(response_headers, "getlist", None)  # repeated headers, before they are joined
        pairs = getlist("ais-custom-md") if getlist else self._headers.get("ais-custom-md", "").split(",")
        self._custom = [header_text(pair) for pair in pairs]

    def _number(self, name: str) -> int:
        value = self._headers.get(name, "")
        return int(value) if value.isascii() and value.isdecimal() else 0

    @property
    def size(self) -> int:
        """Bytes of content (of a range or a member: of that)."""
        return self._number("content-length")

    @property
    def checksum_type(self) -> str:
        """For example `xxhash2`."""
        return self._headers.get("ais-checksum-type", "")

    @property
    def checksum_value(self) -> str:
        """In lower-case hex; always of the whole object."""
        return self._headers.get("ais-checksum-value", "")

    @property
    def access_time(self) -> str:
        """Nanoseconds since 1970, as text."""
        return self._headers.get("ais-atime", "")

    @property
    def obj_version(self) -> str:
        """Version, as text."""
        return self._headers.get("ais-version", "")

    @property
    def custom_metadata(self) -> dict[str, str]:
        """What users attached."""
        pairs = (item.strip().partition("=") for item in self._custom)
        return {key: value for key, equals, value in pairs if equals}

    @property
    def present(self) -> bool:
        """Whether the cluster itself holds the object."""
        return self._headers.get("ais-present", "") == "true"

    @property
    def location(self) -> str:
        """Target and mountpath."""
        return self._headers.get("ais-location", "")

    @property
    def mirror_paths(self) -> list[str]:
        """Paths of the copies."""
        paths = self._headers.get("ais-mirror-paths", "").strip("[]")
        return paths.split(",") if paths else []

    @property
    def mirror_copies(self) -> int:
        """Number of copies."""
        return self._number("ais-mirror-copies")

    @property
    def ec(self) -> ECInfo | None:
        """How the object is erasure-coded; None: it is not, or that was not asked for (props "ec")."""
        names = ("ais-ec-generation", "ais-ec-data", "ais-ec-parity")
        replicated = self._headers.get("ais-ec-replicated", "")
        if not replicated and not any(self._headers.get(name) for name in names):
            return None
        generation, data, parity = (self._number(name) for name in names)
        return ECInfo(generation, data, parity, replicated == "true")

    @property
    def chunks(self) -> ChunksInfo | None:
        """How the object is chunked; None: it is not, or that was not asked for (props "chunked")."""
        names = ("ais-chunks-count", "ais-chunks-max-chunk-size")
        if not any(self._headers.get(name) for name in names):
            return None
        return ChunksInfo(*(self._number(name) for name in names))

    @property
    def last_modified(self) -> str:
        """As in the header."""
        return self._headers.get("last-modified", "")

    @property
    def etag(self) -> str:
        """Without its quotes."""
        return self._headers.get("etag", "").strip('"')

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._headers})"


class ObjectProps(ObjectAttributes):
    """An object's attributes together with its name, bucket and provider."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """Of the object."""
        return self._headers.get("ais-name", "")

    @property
    def bucket_name(self) -> str:
        """Of its bucket."""
        return self._headers.get("ais-bucket-name", "")

    @property
    def bucket_provider(self) -> str:
        """Of its bucket."""
        return self._headers.get("ais-bucket-provider", "")


# ------------------------------------------------------------------------------------------ reading


class ObjectStream(io.BufferedIOBase):
    """An object's content as a binary file to read once, from front to end. Close it, or read it to its end.

    Args:
        reader: Whose content.
        response: The answer that brings it.
        max_resume: How often a broken connection is mended by going on behind the last byte received.
    Raises:
        AISConnectionError, AISTimeoutError: While reading; the content broke off.
    """

    def __init__(self, reader: ObjectReader, response: urllib3.BaseHTTPResponse, max_resume: int = 0) -> None:
        self._reader = reader
        self._response = response
        self._left = max_resume
        self._at = 0
        self._checksum = ObjectAttributes(response.headers).checksum_value

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the answer."""
        return self._response.headers

    def readable(self) -> bool:
        return not self.closed

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, fewer only at the end; without a size all that is left."""
        if size is None or size < 0:
            return b"".join(self.stream(READ_SIZE))
        pieces: list[bytes] = []
        while size and (piece := self._next(size)):
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    read1 = read

    def stream(self, amt: int = CHUNK_SIZE) -> Iterator[bytes]:
        """The rest of the content in pieces of `amt` bytes, the last one shorter."""
        while piece := self.read(amt):
            yield piece

    def _next(self, size: int) -> bytes:
        """Up to `size` bytes, at least one unless the content has ended."""
        if self.closed:
            raise ValueError("read from a closed object")
        while True:
            try:
                with self._reader._client.session.translated(self._reader._url):
                    piece = self._response.read(min(size, READ_SIZE))
                self._at += len(piece)
                return piece
            except (AISConnectionError, AISTimeoutError):
                self._response.close()
                if not self._left:
                    raise
            self._left -= 1
            self._response = self._reader._open(self._at)
            goes_on = self._response.status == 206 or not self._at
            if not goes_on or ObjectAttributes(self._response.headers).checksum_value != self._checksum:
                self._response.close()
                raise AISError(
                    0, f"{self._reader._url}: the object changed while it was read", self._reader._url
                )

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()


class ObjectReader:
    """Reads an object's content: all at once, in pieces, or as a file. Each call, each iteration asks anew.

    Made by `Object.get_reader`.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        params: dict[str, str],
        headers: dict[str, str],
        chunk_size: int | None = None,
    ) -> None:
        self._client = client
        self._path = path
        self._params = params
        self._headers = headers
        self._chunk_size = chunk_size or CHUNK_SIZE
        self._attributes: ObjectAttributes | None = None

    @property
    def _url(self) -> str:
        return f"{self._client.settings.endpoint}/v1/{self._path}"

    def head(self) -> ObjectAttributes:
        """Ask for the object's attributes."""
        params = {**self._params, "props": "checksum,atime,version,custom"}
        self._attributes = ObjectAttributes(
            self._client.session.request("HEAD", self._path, params=params).headers
        )
        return self._attributes

    @property
    def attributes(self) -> ObjectAttributes:
        """What the last answer said of the object; asked for if there was none."""
        return self._attributes or self.head()

    def read_all(self) -> bytes:
        """The whole content."""
        answer = self._client.session.request("GET", self._path, params=self._params, headers=self._headers)
        self._attributes = ObjectAttributes(answer.headers)
        return answer.data

    def raw(self) -> ObjectStream:
        """The content as it comes, as a binary file to read once; the caller closes it."""
        return self._stream()

    def as_file(self, buffer_size: int | None = None, max_resume: int = 5) -> ObjectStream:
        """As `raw()`, but a connection that breaks is mended by going on where it broke.

        Args:
            buffer_size: Of no effect, as in the official SDK.
            max_resume: How often.
        """
        if max_resume < 0:
            raise ValueError(f"max_resume={max_resume} must be 0 or more")
        plain = not {"archpath", "archregx"} & self._params.keys() and not self._headers
        return self._stream(max_resume if plain else 0)

    def __iter__(self) -> Iterator[bytes]:
        with self._stream() as stream:
            yield from stream.stream(self._chunk_size)

    def _stream(self, max_resume: int = 0) -> ObjectStream:
        response = self._open()
        self._attributes = ObjectAttributes(response.headers)
        return ObjectStream(self, response, max_resume)

    def _open(self, offset: int = 0) -> urllib3.BaseHTTPResponse:
        headers = {**self._headers, "Range": f"bytes={offset}-"} if offset else self._headers
        return self._client.session.request(
            "GET", self._path, params=self._params, headers=headers, stream=True
        )


# ------------------------------------------------------------------------------------------ writing


class ObjectWriter:
    """Writes an object's content and custom metadata. Made by `Object.get_writer`."""

    def __init__(self, client: Client, path: str, params: dict[str, str]) -> None:
        self._client = client
        self._path = path
        self._params = params

    def put_content(self, content: bytes) -> Response:
        """Store bytes (of a `str`: its UTF-8) as the object."""
        return self._put(_bytes(content), self._params)

    def put_file(self, path: str | PathLike[str]) -> Response:
        """Store a file's content as the object, without loading it whole.

        Raises:
            ValueError: There is no such file, or it became shorter while it was sent.
        """
        if not Path(path).is_file():
            raise ValueError(f"{str(path)!r} is not a file")
        with open(path, "rb") as file:
            return self._put(FileBody(file), self._params)

    def append_content(self, content: bytes, handle: str = "", flush: bool = False) -> str:
        """Append bytes; what is appended appears with the flush.

        Args:
            content: What to append; nothing is, with a flush.
            handle: What the last call returned, "" at first.
            flush: Make what was appended so far the object.
        Returns:
            The handle for the next call.
        """
        params = {**self._params, "append_type": "flush" if flush else "append", "append_handle": handle}
        return self._put(_bytes(content), params).headers.get("Ais-Append-Handle", "")

    def set_custom_props(self, custom_metadata: dict[str, str], replace_existing: bool = False) -> Response:
        """Attach custom metadata, to what is there or in place of it."""
        params = {**self._params, "set-new-custom": "true"} if replace_existing else self._params
        message = {"action": "", "name": "", "value": custom_metadata}
        return Response(self._client.session.request("PATCH", self._path, params=params, json=message))

    as_file = unsupported("ObjectWriter.as_file")

    def _put(self, body: bytes | FileBody, params: dict[str, str]) -> Response:
        return Response(self._client.session.request("PUT", self._path, params=params, body=body))


def _bytes(content: Any) -> bytes:
    return content.encode() if isinstance(content, str) else bytes(memoryview(content))


# ------------------------------------------------------------------------------------------- object


class Object:
    """A name in a bucket; no request is made before a method is called.

    Made by `Bucket.object`.
    """

    __slots__ = ("_bck", "_client", "_name", "_props")

    def __init__(
        self, client: Client, bck_details: BucketDetails, name: str, props: ObjectProps | None = None
    ) -> None:
        self._client = client
        self._bck = bck_details
        self._name = name
        self._props = props

    @property
    def name(self) -> str:
        """Of the object."""
        return self._name

    @property
    def bucket_name(self) -> str:
        """Of its bucket."""
        return self._bck.name

    @property
    def bucket_provider(self) -> Provider:
        """Of its bucket."""
        return self._bck.provider

    @property
    def query_params(self) -> dict[str, str]:
        """What every request about the object has in its query."""
        return self._bck.qparams

    @property
    def uname(self) -> str:
        """Unique name: `provider/namespace/bucket/name`."""
        return self._bck.path + self._name

    @property
    def props(self) -> ObjectProps:
        """The object's properties, asked for anew."""
        return self.head("checksum,atime,version,copies,custom,location")

    @property
    def props_cached(self) -> ObjectProps | None:
        """The properties that were last asked for, or came with a listing."""
        return self._props

    @property
    def _path(self) -> str:
        name = self._name
        if not isinstance(name, str) or not name or name.endswith("/") or _DOTS.search(name):
            raise ValueError(
                f"object name {name!r} in bucket {self.bucket_name!r}: it must not be empty, end in '/', "
                "or have a part '.' or '..'"
            )
        return f"objects/{quote(self._bck.name)}/{quote(name)}"

    def head(self, props: str = "") -> ObjectProps:
        """Ask for properties.

        Args:
            props: Which, with commas: name, size, version, checksum, atime, copies, ec, custom, location,
                chunked; "" is name and size.
        Raises:
            ErrObjNotFound: There is no such object.
        """
        params = {**self.query_params, "props": props or "name,size"}
        headers = self._client.session.request("HEAD", self._path, params=params).headers
        headers.setdefault("Ais-Name", self.name)
        headers.setdefault("Ais-Bucket-Name", self.bucket_name)
        headers.setdefault("Ais-Bucket-Provider", self.bucket_provider.value)
        self._props = ObjectProps(headers)
        return self._props

    def get_reader(
        self,
        archive_config: ArchiveConfig | None = None,
        blob_download_config: Any = None,
        chunk_size: int | None = None,
        etl: Any = None,
        writer: Any = None,
        latest: bool = False,
        byte_range: str | None = None,
        direct: bool = False,
        num_workers: int | None = None,
    ) -> ObjectReader:
        """A reader of the content. No request is made, unless there is a `writer`.

        Args:
            archive_config: Read members of the archive that the object is.
            chunk_size: Bytes of each piece of an iteration.
            writer: A binary file that the content is written to at once; the caller closes it.
            latest: Of a remote bucket's object, the version that the remote has now.
            byte_range: `"bytes=0-499"`, `"bytes=500-"` or `"bytes=-500"`.
            blob_download_config, etl, direct, num_workers: Not part of aisfast.
        Raises:
            ValueError: The range is none of these.
            NotImplementedError: One of the options that are not part of aisfast.
        """
        for option in ("blob_download_config", "etl", "direct", "num_workers"):
            if locals()[option]:
                refuse(f"get_reader({option}=...)")
        params = dict(self.query_params)
        headers = {}
        if archive_config:
            params["archpath"] = archive_config.archpath
            params["archregx"] = archive_config.regex
            if archive_config.mode:
                params["archmode"] = archive_config.mode.value
        if latest:
            params["latest-ver"] = "true"
        if byte_range:
            if not _RANGE.fullmatch(byte_range):
                raise ValueError(
                    f"byte_range={byte_range!r} must look like 'bytes=0-499', 'bytes=500-' or 'bytes=-500'"
                )
            headers["Range"] = byte_range
        reader = ObjectReader(self._client, self._path, params, headers, chunk_size)
        if writer:
            writer.writelines(reader)
        return reader

    def get_writer(self) -> ObjectWriter:
        """A writer of content and custom metadata."""
        return ObjectWriter(self._client, self._path, self.query_params)

    def delete(self) -> Response:
        """Delete the object.

        Raises:
            ErrObjNotFound: There is no such object.
        """
        return Response(self._client.session.request("DELETE", self._path, params=self.query_params))

    def get_semantic_url(self) -> str:
        """`provider://bucket/name`."""
        return f"{self.bucket_provider.value}://{self.bucket_name}/{self.name}"

    def get_url(self, archpath: str = "", etl: Any = None) -> str:
        """The URL of the object, or of the member at `archpath`, at the gateway."""
        if etl:
            refuse("get_url(etl=...)")
        params = {**self.query_params, "archpath": archpath} if archpath else self.query_params
        return f"{self._client.settings.endpoint}/v1/{self._path}?{urlencode(params)}"

    copy = unsupported("Object.copy")
    promote = unsupported("Object.promote")
    blob_download = unsupported("Object.blob_download")
    multipart_upload = unsupported("Object.multipart_upload")

    def __repr__(self) -> str:
        return f"Object({self.get_semantic_url()})"
