"""Which official SDK is installed, and whether it is one we know: its classes, their arguments and their fields."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from aisfast.errors import UnsupportedVersionError

FROM, TO = (1, 16), (3, 0)  # versions that are tried: from this one to before that one

_BATCH = {
    "__init__": "request_client objects bucket output_format cont_on_err only_obj_name streaming_get colocation",
    "add": "obj opaque archpath start length bck provider",
    "get": "raw decode_as_stream clear_batch tar_buffer_size",
    "clear": "",
}
_LOADER = {"__init__": "request_client", "get_batch": "batch_request return_raw decode_as_stream"}
_RECORD = {"obj_name", "archpath", "bucket", "provider", "opaque", "err_msg", "size"}
_ENTRY = {"obj_name", "bck", "provider", "uname", "opaque", "archpath", "start", "length"}


@dataclass(frozen=True)
class Shape:
    """What is installed.

    Attributes:
        version: Of `aistore`.
        batch: Its `Batch`, or its `BatchLoader` where it has none.
        legacy: It has none.
        record: What comes with each payload: `MossOut`, or `BatchResponseItem`.
        entry: `MossIn`; None for a legacy one.
        object: Its `Object`.
        request_client, session_manager: What its client is made of.
        request: `RequestClient.request`, as it was found.
        encode: How a batch writes an entry's opaque; None for a legacy one.
        takes_names: An entry given by name says which bucket it is in.
        arguments: Of `Batch.get`, or of `BatchLoader.get_batch`.
    """

    version: str
    batch: Any
    legacy: bool
    record: Any
    entry: Any
    object: Any
    request_client: Any
    session_manager: Any
    request: Callable[..., Any]
    encode: Callable[[bytes], bytes] | None
    takes_names: bool
    arguments: frozenset[str]


def examine() -> Shape:
    """The installed SDK's shape.

    Raises:
        UnsupportedVersionError: There is none, or it is one that we do not know.
    """
    try:
        version = str(import_module("aistore.version").__version__)
    except (ImportError, AttributeError) as error:
        raise UnsupportedVersionError(f"no official SDK to accelerate: {error}; install aistore") from error
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers or not FROM <= (int(numbers[1]), int(numbers[2])) < TO:
        raise _unknown(version, f"it is not from {FROM[0]}.{FROM[1]} to before {TO[0]}.{TO[1]}")
    try:
        legacy = (int(numbers[1]), int(numbers[2])) < (1, 17)
        return _legacy(version) if legacy else _modern(version)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise _unknown(version, f"{type(error).__name__}: {error}") from error


def _modern(version: str) -> Shape:
    from base64 import b64encode, urlsafe_b64encode

    batch = import_module("aistore.sdk.batch.batch").Batch
    types = import_module("aistore.sdk.batch.types")
    arguments = _check_methods(version, batch, _BATCH)
    _check_fields(version, types.MossOut, _RECORD)
    _check_fields(version, types.MossIn, _ENTRY)
    probe = batch(None, bucket=SimpleNamespace(name="b", provider=SimpleNamespace(value="ais")))
    probe.add("n", opaque=b"\xfb\xff")
    (entry,) = probe.request.moss_in
    encode = {f(b"\xfb\xff").decode(): f for f in (b64encode, urlsafe_b64encode)}.get(entry.opaque)
    if encode is None:
        raise _unknown(version, f"it writes opaque as {entry.opaque!r}")
    return _shape(
        version,
        batch=batch,
        legacy=False,
        record=types.MossOut,
        entry=types.MossIn,
        encode=encode,
        takes_names=(entry.bck, entry.provider) == ("b", "ais") and "clear" in arguments,
        arguments=arguments["get"],
    )


def _legacy(version: str) -> Shape:
    loader = import_module("aistore.sdk.batch.batch_loader").BatchLoader
    arguments = _check_methods(version, loader, _LOADER)
    record = import_module("aistore.sdk.batch.batch_response").BatchResponseItem
    _check_fields(version, record, _RECORD | {"is_missing"})
    _check_fields(version, import_module("aistore.sdk.batch.batch_request").BatchObjectRequest, _ENTRY)
    return _shape(
        version,
        batch=loader,
        legacy=True,
        record=record,
        entry=None,
        encode=None,
        takes_names=False,
        arguments=arguments["get_batch"],
    )


def _shape(version: str, **found: Any) -> Shape:
    request_client = import_module("aistore.sdk.request_client").RequestClient
    session_manager = import_module("aistore.sdk.session_manager").SessionManager
    for name in ("base_url", "timeout", "token", "session_manager"):
        if not isinstance(inspect.getattr_static(request_client, name), property):
            raise _unknown(version, f"RequestClient.{name} is no property")
    return Shape(
        version=version,
        object=import_module("aistore.sdk.obj.object").Object,
        request_client=request_client,
        session_manager=session_manager,
        request=request_client.request,
        **found,
    )


def _check_methods(version: str, cls: Any, known: dict[str, str]) -> dict[str, frozenset[str]]:
    found = {}
    for name, arguments in known.items():
        if name == "clear" and not hasattr(cls, name):
            continue  # 1.17
        method = inspect.unwrap(getattr(cls, name))
        found[name] = frozenset(inspect.signature(method).parameters) - {"self"}
        more = found[name] - set(arguments.split())
        if more:
            raise _unknown(version, f"{cls.__name__}.{name} has arguments we do not know: {', '.join(sorted(more))}")
    return found


def _check_fields(version: str, model: Any, known: Iterable[str]) -> None:
    fields = set(getattr(model, "model_fields", None) or model.__fields__)
    if fields != set(known):
        raise _unknown(version, f"{model.__name__} has other fields: {', '.join(sorted(fields ^ set(known)))}")


def _unknown(version: str, why: str) -> UnsupportedVersionError:
    return UnsupportedVersionError(
        f"aistore {version} is not one that this aisfast can accelerate: {why}. It was left as it is; "
        "look for a newer aisfast, or use aisfast.sdk in its place"
    )
