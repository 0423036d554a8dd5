"""The API for batches before `Client.batch()` (official SDK 1.15 and 1.16), on top of `Batch`.

What differs from then: an answer that lacks entries is an error, and an entry that is missing says so in
`err_msg` in streaming mode too.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar

from aisfast.models import Echo, Fields, Model, Namespace, model, restored

if TYPE_CHECKING:
    from typing import Self

    from aisfast._items import MossOut
    from aisfast.batch import Batch
    from aisfast.bucket import Bucket
    from aisfast.client import Client
    from aisfast.object import Object

_UNAME = re.compile(r"([^/]+)/@([^#/]*)#([^/]*)/([^/]+)/?")  # provider/@uuid#name/bucket/


class _Record(Model):
    """A model with the methods of the official ones of then."""

    __slots__ = ()

    def json(self, **options: Any) -> str:
        """The fields as JSON text. Options: see `model_dump`."""
        return json.dumps(self.model_dump(mode="json", **options))

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As `model_copy`."""
        return self.model_copy(update=update, deep=deep)

    @classmethod
    def parse_obj(cls, obj: Any) -> Self:
        """As `model_validate`."""
        return cls.model_validate(obj)

    @classmethod
    def parse_raw(cls, b: str | bytes) -> Self:
        """As `model_validate_json`."""
        return cls.model_validate_json(b)


@model
class BatchObjectRequest(_Record):
    """One entry of a request.

    Attributes:
        obj_name: Name of the object; on the wire `objname`.
        bck, provider: Its bucket; on the wire `bucket`. "": the one of the request's first entry.
        uname: `provider/@uuid#name/bucket/`, in place of the two: the only way to name a namespace.
        opaque: Base64 text that comes back with the item.
        archpath: The file inside the object, which is an archive.
        start, length: Byte range; length -1 is to the end.
    """

    _wire: ClassVar[Mapping[str, str]] = {"obj_name": "objname", "bck": "bucket"}

    obj_name: str
    bck: str = ""
    provider: str = ""
    uname: str = ""
    opaque: str | None = None
    archpath: str | None = ""
    start: int | None = None
    length: int | None = None

    def dict(self, *_args: Any, **_kwargs: Any) -> Fields:
        """What is sent: the fields under their names on the wire, without those that have their default."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


class BatchRequest:
    """What to fetch and how. What `Batch.add` refuses is refused when the request is sent.

    Args:
        output_format: ".tar", ".tgz" or ".tar.gz", ".tar.lz4", ".zip".
        continue_on_err: An entry that is missing does not end the batch.
        only_obj_name: Members of the answer are named without their bucket.
        streaming: The answer is one archive, sent as it is made; else multipart, with metadata.
    """

    def __init__(
        self,
        output_format: str = ".tar",
        continue_on_err: bool = True,
        only_obj_name: bool = False,
        streaming: bool = True,
    ) -> None:
        self.obj_requests: list[BatchObjectRequest] = []
        self.output_format = output_format
        self.continue_on_err = continue_on_err
        self.only_obj_name = only_obj_name
        self.streaming = streaming

    def add_object_request(
        self,
        obj: Object,
        opaque: bytes | None = None,
        archpath: str | None = None,
        start: int | None = None,
        length: int | None = None,
    ) -> None:
        """Add an object, a file in it, or a range of either.

        Args:
            opaque: Bytes that come back with the item.
            archpath: The file inside the object, which is an archive.
            start, length: Byte range; length -1 is to the end.
        Raises:
            ValueError: `obj` is no `Object`, or `opaque` is no bytes.
        """
        if not (hasattr(obj, "bucket_name") and hasattr(obj, "name")):
            raise ValueError(f"obj={obj!r} must be an Object: pass client.bucket(name).object(name)")
        if opaque is not None and not isinstance(opaque, bytes | bytearray | memoryview):
            raise ValueError(f"opaque={opaque!r} must be bytes: encode() it")
        provider = obj.bucket_provider.value
        namespace = obj.query_params.get("namespace")
        self.obj_requests.append(
            BatchObjectRequest(
                obj.name,
                obj.bucket_name,
                provider,
                uname=f"{provider}/{namespace}/{obj.bucket_name}/" if namespace else "",
                opaque=None if opaque is None else base64.b64encode(opaque).decode(),
                archpath="" if archpath is None else archpath,
                start=start,
                length=length,
            )
        )

    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return not self.obj_requests

    def get_request_bck_name_prov(self) -> tuple[str, str]:
        """Bucket and provider of the first entry: the ones the request is sent to.

        Raises:
            ValueError: There is none.
        """
        if self.is_empty():
            raise ValueError("BatchRequest is empty")
        return self.obj_requests[0].bck, self.obj_requests[0].provider

    def to_dict(self) -> dict[str, Any]:
        """The request under its names on the wire."""
        return {
            "in": [request.dict() for request in self.obj_requests],
            "mime": self.output_format,
            "coer": self.continue_on_err,
            "onob": self.only_obj_name,
            "strm": self.streaming,
        }

    def to_json(self) -> str:
        """The request as JSON text."""
        return json.dumps(self.to_dict(), indent=4)

    @classmethod
    def from_json(cls, json_str: str) -> BatchRequest:
        """A request from such text."""
        given = json.loads(json_str)
        request = cls(
            given.get("mime", ".tar"),
            given.get("coer", True),
            given.get("onob", False),
            given.get("strm", True),
        )
        request.obj_requests = [BatchObjectRequest.model_validate(entry) for entry in given.get("in", [])]
        return request


@model
class BatchResponseItem(_Record):
    """What came of one entry.

    Attributes:
        obj_name, bucket, provider, archpath: As asked for.
        opaque: The bytes given with the entry, or None.
        err_msg: Why the entry is missing, or None.
        size: Bytes of its payload; 0 in streaming mode.
        is_missing: The object is missing: of whole objects, and only where members are named with a bucket.
    """

    _wire: ClassVar[Mapping[str, str]] = {"obj_name": "objname"}

    obj_name: str = ""
    bucket: str = ""
    provider: str = ""
    archpath: str = ""
    opaque: Echo = None
    err_msg: str | None = None
    size: int = 0
    is_missing: bool = False

    @classmethod
    def from_batch_request(cls, batch_request: BatchRequest, req_index: int) -> BatchResponseItem:
        """What the request alone says of the entry at that index."""
        return cls.model_validate(batch_request.obj_requests[req_index].dict())

    @staticmethod
    def from_request_or_response(
        index: int, batch_request: BatchRequest, batch_response: BatchResponse | None
    ) -> BatchResponseItem:
        """What is said of the entry at that index: by the response if there is one, else by the request."""
        if batch_request.streaming or batch_response is None:
            return BatchResponseItem.from_batch_request(batch_request, index)
        return batch_response.responses[index]

    def is_file_missing(self, filename: str) -> bool:
        """Whether a member of that name stands for the missing object."""
        return filename == f"__404__/{self.bucket}/{self.obj_name}"


@model
class BatchResponse(_Record):
    """The metadata of an answer in buffered mode."""

    responses: list[BatchResponseItem] = field(default_factory=list)
    uuid: str = ""

    @classmethod
    def from_json(cls, json_str: str) -> BatchResponse:
        """The metadata from its JSON text."""
        given = json.loads(json_str)
        return cls(responses=given.get("out") or [], uuid=given.get("uuid", ""))


class BatchLoader:
    """Fetches requests. Made by `Client.batch_loader`."""

    def __init__(self, request_client: Client) -> None:
        self._client = request_client

    def get_batch(
        self, batch_request: BatchRequest, return_raw: bool = False, decode_as_stream: bool = False
    ) -> Iterator[tuple[BatchResponseItem, bytes]]:
        """Send the request. The request can be extended and sent again.

        Args:
            return_raw, decode_as_stream: As `raw` and `decode_as_stream` of `Batch.get`.
        Returns:
            An iterator of item and payload, in the order of the request.
        Raises:
            ValueError: The request is empty, or an entry is one that `Batch.add` refuses.
            AISError: See `Batch.get`.
        """
        if batch_request is not None and not hasattr(batch_request, "obj_requests"):
            raise ValueError(f"batch_request={batch_request!r} must be a BatchRequest")
        if batch_request is None or batch_request.is_empty():
            raise ValueError("Batch request must not be empty")
        batch = self._batch(batch_request)
        if return_raw:
            return batch.get(raw=True, decode_as_stream=decode_as_stream)  # type: ignore[return-value]  # the body
        streaming, named = batch_request.streaming, not batch_request.only_obj_name
        return ((_item(info, streaming, named), data) for info, data in batch.get(decode_as_stream=decode_as_stream))

    def _batch(self, request: BatchRequest) -> Batch:
        from aisfast.batch import Batch  # compiled modules: not at import

        entries = [self._entry(i, its) for i, its in enumerate(request.obj_requests)]
        own = entries[0][1]
        if own is None:
            raise ValueError(f"obj_requests[0] ({request.obj_requests[0]!r:.200}) must name its bucket")
        batch = Batch(
            self._client,
            bucket=own,
            output_format=request.output_format,
            cont_on_err=request.continue_on_err,
            only_obj_name=request.only_obj_name,
            streaming_get=request.streaming,
        )
        for entry, bucket, opaque in entries:
            obj = (bucket or own).object(entry.obj_name)
            batch.add(obj, opaque, entry.archpath, entry.start, entry.length)
        return batch

    def _entry(self, i: int, given: Any) -> tuple[BatchObjectRequest, Bucket | None, bytes | None]:
        """An element of `obj_requests`, the bucket if it names one, and its opaque."""
        try:
            entry = BatchObjectRequest.model_validate(given.dict())
            opaque = base64.b64decode(entry.opaque, validate=True) if entry.opaque else None
            return entry, self._bucket_of(entry), opaque
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f"obj_requests[{i}] ({given!r:.200}) is not an entry: {error}; "
                "append BatchObjectRequest objects"
            ) from None

    def _bucket_of(self, entry: BatchObjectRequest) -> Bucket | None:
        if entry.uname:
            parts = _UNAME.fullmatch(entry.uname)
            if not parts:
                raise ValueError(f"uname={entry.uname!r} must look like 'provider/@uuid#name/bucket/'")
            provider, uuid, name, bucket = parts.groups()
            return self._client.bucket(bucket, provider, Namespace(uuid, name) if uuid or name else None)
        return self._client.bucket(entry.bck, entry.provider or "ais") if entry.bck else None


def _item(info: MossOut, streaming: bool, named: bool) -> BatchResponseItem:
    values = (
        info.obj_name,
        info.bucket,
        info.provider,
        info.archpath or "",
        info.opaque,
        info.err_msg,
        0 if streaming else info.size,
        info.err_msg is not None and named and not info.archpath,
    )
    return restored(BatchResponseItem, values, None)
