"""The methods that take the place of the official `Batch`'s.

A batch keeps its entries as columns until somebody asks for its `request` or `requests_list`: then they become the real
list, of real `MossIn`, and the batch goes on as the official one. Only a batch of exactly the official class does so.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from aisfast._official import Pairs, entries_of
from aisfast._request import Entries
from aisfast.batch import Batch
from aisfast.enums import Colocation
from aisfast.errors import AISError
from aisfast.models import Namespace
from aisfast.official.client import Foreign
from aisfast.official.errors import translate
from aisfast.official.shape import Shape

if TYPE_CHECKING:
    from aisfast.official.patch import Patch

COLUMNS = "_aisfast_columns"  # in a batch's __dict__
PLACE = "_aisfast_place"  # likewise: its bucket, and the bucket's name and provider
_TARS = (".tar", ".tgz", ".tar.gz")

# What a batch of ours is made of is not as we know it.
CANNOT_SAY = (Foreign, ValueError, TypeError, OverflowError, AttributeError, KeyError)


def methods(shape: Shape, patch: Patch) -> dict[str, Any]:
    """What to set on the official `Batch`, by name."""
    ours = {"get": _get(shape, patch, shape.batch.get)}
    return ours | _column_methods(shape, patch) if shape.takes_names else ours


# ------------------------------------------------------------------------------------------------------------- sending


def _get(shape: Shape, patch: Patch, official: Callable[..., Any]) -> Callable[..., Any]:
    can_clear = "clear_batch" in shape.arguments

    @functools.wraps(official)
    def get(
        self: Any,
        raw: bool = False,
        decode_as_stream: bool = False,
        clear_batch: bool = can_clear,
        *,
        tar_buffer_size: int | None = None,
    ) -> Any:
        def theirs(clear: bool = clear_batch) -> Any:
            options: dict[str, Any] = {"clear_batch": clear} if can_clear else {}
            if tar_buffer_size is not None:
                options["tar_buffer_size"] = tar_buffer_size
            return official(self, raw, decode_as_stream, **options)

        if not patch.on or raw or not len(self):
            return theirs()
        request = _request(self)
        if tar_buffer_size is not None and not (
            type(tar_buffer_size) is int
            and tar_buffer_size > 0
            and str(request.output_format).lower() in _TARS
            and "tar_buffer_size" in shape.arguments
        ):
            return theirs()  # it says what is wrong
        try:
            fast = _batch_of(self, request, patch)
            pairs = patch.send(fast, lambda: theirs(clear=False), streaming=bool(request.streaming_get))
        except CANNOT_SAY as reason:
            patch.leave("Batch.get", reason)
            return theirs()
        if clear_batch:
            self.clear()
        return pairs

    return get


def _batch_of(theirs: Any, request: Any, patch: Patch) -> Batch:
    """A batch of ours that asks for the same. An error means that we cannot say it."""
    client = patch.clients.of(theirs.request_client, patch.policy)
    bucket = None
    if theirs.bucket:
        space = theirs.bucket.namespace
        namespace = Namespace(space.uuid, space.name) if space else None
        bucket = client.bucket(theirs.bucket.name, theirs.bucket.provider.value, namespace)
    fast = Batch(
        client,
        bucket=bucket,
        output_format=request.output_format,
        cont_on_err=bool(request.cont_on_err),
        only_obj_name=bool(request.only_obj_name),
        streaming_get=bool(request.streaming_get),
        colocation=Colocation(getattr(request, "colocation", None) or 0),  # from 1.20 on
    )
    entries = vars(theirs).get(COLUMNS)
    if entries is None:
        entries = entries_of(request.moss_in)
    else:
        entries.frozen = True
    if bucket is not None and bucket.namespace is not None:
        entries = _unplaced(entries, bucket.name, bucket.provider.value)
    fast.request._columns = entries  # type: ignore[attr-defined]
    return fast


def _unplaced(entries: Entries, bucket: str, provider: str) -> Entries:
    """Entries of the batch's own bucket that do not name it: a name is looked for outside all namespaces."""
    other = Entries()
    for i in range(len(entries)):
        name, *place, archpath, opaque, start, length, uname = entries.row(i)
        if place == [bucket, provider]:
            place = [None, None]
        other.append(name, place[0], place[1], archpath, opaque, start, length, uname)
    return other


def send(fast: Batch, **options: Any) -> Pairs:
    """Send a batch. When this returns, its first entry is decoded: what can fail before it has failed."""
    try:
        pairs = Pairs(fast.get(clear_batch=False), translate, **options)
        pairs.prime()
    except AISError as error:
        translate(error)
        raise
    return pairs


# ------------------------------------------------------------------------------------------------------------- columns


def _request(batch: Any) -> Any:
    """The batch's own `MossReq`, its list as it is."""
    return vars(batch).get("request")


def _fill_list(batch: Any, shape: Shape) -> Any:
    """Make the real list of a batch's columns, which end here. The `MossReq`."""
    request = _request(batch)
    columns = vars(batch).pop(COLUMNS, None)
    vars(batch).pop(PLACE, None)
    if columns is not None:
        request.moss_in.extend(_models(columns, shape))
    return request


def _models(columns: Entries, shape: Shape) -> Iterable[Any]:
    assert shape.encode is not None
    entry = shape.entry
    for i in range(len(columns)):
        name, bucket, provider, archpath, opaque, start, length, _ = columns.row(i)
        if not (archpath or opaque or start or length):  # lhotse reads the list of each batch: this has to be quick
            yield entry(obj_name=name, bck=bucket, provider=provider)
            continue
        given: dict[str, Any] = {"opaque": shape.encode(opaque).decode() if opaque else None}
        given |= {"archpath": archpath, "start": start, "length": length}
        more = {key: value for key, value in given.items() if value}
        yield entry(obj_name=name, bck=bucket, provider=provider, **more)


def fill_lists(shape: Shape) -> None:
    """Turn the columns of all batches into lists: nobody will know of columns any more."""
    for obj in gc.get_objects():
        if issubclass(type(obj), shape.batch):
            _fill_list(obj, shape)


def _column_methods(shape: Shape, patch: Patch) -> dict[str, Any]:
    check_range = getattr(shape.batch, "_validate_byte_range", None)
    init, add, clear = shape.batch.__init__, shape.batch.add, shape.batch.clear

    @functools.wraps(init)
    def __init__(
        self: Any, request_client: Any, objects: Any = None, bucket: Any = None, *args: Any, **more: Any
    ) -> None:
        if not patch.on or type(self) is not shape.batch:
            init(self, request_client, objects, bucket, *args, **more)
            return
        given = [] if objects is None else objects if type(objects) is list else [objects]
        kinds = set(map(type, given))
        if not kinds <= {str, shape.object}:
            init(self, request_client, objects, bucket, *args, **more)
            return
        init(self, request_client, None, bucket, *args, **more)
        vars(self)[COLUMNS] = columns = Entries()
        if bucket and kinds == {str} and _is_text("".join(given)):
            columns.extend(given, bucket.name, bucket.provider.value)
            return
        for obj in given:
            self.add(obj)

    @functools.wraps(add)
    def fast_add(
        self: Any,
        obj: Any,
        opaque: Any = None,
        archpath: Any = None,
        start: Any = None,
        length: Any = None,
        bck: Any = None,
        provider: Any = None,
    ) -> Any:
        columns = self.__dict__.get(COLUMNS)
        if columns is not None:
            if columns.frozen:  # a call under way keeps its own
                columns = self.__dict__[COLUMNS] = columns.copy()
            place = (bck, provider)
            name = obj
            if type(obj) is str:
                if bck is None and provider is None:
                    place = _place_of(self)
            elif type(obj) is shape.object and bck is None and provider is None:
                name, place = obj.name, (obj.bucket_name, obj.bucket_provider.value)
            if _is_text(name) and _is_text(place[0]) and _is_text(place[1]):
                if opaque is None and archpath is None and start is None and length is None:
                    columns.append(name, *place)
                    return self
                if _is_plain(opaque, archpath, start, length) and (check_range is not None or not (start or length)):
                    if check_range is not None and (start or length):
                        check_range(start, length)
                    columns.append(name, *place, archpath, opaque or None, start or 0, length or 0)
                    return self
        if bck is None and provider is None:
            return add(self, obj, opaque, archpath, start, length)
        return add(self, obj, opaque, archpath, start, length, bck=bck, provider=provider)

    @functools.wraps(clear)
    def fast_clear(self: Any) -> Any:
        if COLUMNS not in vars(self):
            return clear(self)
        vars(self)[COLUMNS] = Entries()
        return self

    def count(self: Any) -> int:
        columns = vars(self).get(COLUMNS)
        return len(_request(self).moss_in if columns is None else columns)

    def state(self: Any) -> dict[str, Any]:
        _fill_list(self, shape)
        return dict(vars(self))

    def set_request(self: Any, value: Any) -> None:
        vars(self)["request"] = value
        vars(self).pop(COLUMNS, None)

    return {
        "__init__": __init__,
        "add": fast_add,
        "clear": fast_clear,
        "request": property(lambda self: _fill_list(self, shape), set_request),
        "__len__": count,
        "__getstate__": state,
    }


def _is_text(value: Any) -> bool:
    if type(value) is not str:
        return False
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_plain(opaque: Any, archpath: Any, start: Any, length: Any) -> bool:
    """What a batch may say of an entry beside its name needs none of the models' conversions and checks."""
    return (
        (opaque is None or type(opaque) is bytes)
        and (archpath is None or _is_text(archpath))
        and (start is None or (type(start) is int and -1 << 63 <= start < 1 << 63))
        and (length is None or (type(length) is int and -1 << 63 <= length < 1 << 63))
    )


def _place_of(batch: Any) -> tuple[Any, Any]:
    """Name and provider of a batch's own bucket."""
    bucket = batch.bucket
    known = batch.__dict__.get(PLACE)
    if known is not None and known[0] is bucket:
        place: tuple[Any, Any] = known[1]
        return place
    if not bucket:
        return (None, None)
    place = (bucket.name, bucket.provider.value)
    batch.__dict__[PLACE] = (bucket, place)
    return place
