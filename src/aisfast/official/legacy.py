"""The method that takes the place of `BatchLoader.get_batch` (aistore 1.16)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aisfast._official import entries_of
from aisfast.batch import Batch
from aisfast.official.batch import CANNOT_SAY
from aisfast.official.client import Foreign
from aisfast.official.shape import Shape

if TYPE_CHECKING:
    from aisfast.official.patch import Patch


def methods(shape: Shape, patch: Patch) -> dict[str, Any]:
    """What to set on the official `BatchLoader`, by name."""
    official: Callable[..., Any] = shape.batch.get_batch

    @functools.wraps(official)
    def get_batch(self: Any, batch_request: Any, return_raw: bool = False, decode_as_stream: bool = False) -> Any:
        def theirs() -> Any:
            return official(self, batch_request, return_raw, decode_as_stream)

        if not patch.on or return_raw or not batch_request or batch_request.is_empty():
            return theirs()
        try:
            streaming = bool(batch_request.streaming)
            named = not batch_request.only_obj_name
            fast = _batch_of(self, batch_request, patch)
            return patch.send(fast, theirs, streaming=streaming, legacy=True, named=named)
        except CANNOT_SAY as reason:
            patch.leave("BatchLoader.get_batch", reason)
            return theirs()

    return {"get_batch": get_batch}


def _batch_of(loader: Any, request: Any, patch: Patch) -> Batch:
    """A batch of ours that asks for the same. An error means that we cannot say it."""
    client = patch.clients.of(loader._request_client, patch.policy)
    bucket, provider = request.get_request_bck_name_prov()
    if not bucket or not provider:
        raise Foreign("the first entry names no bucket")
    fast = Batch(
        client,
        bucket=client.bucket(bucket, provider),
        output_format=request.output_format,
        cont_on_err=bool(request.continue_on_err),
        only_obj_name=bool(request.only_obj_name),
        streaming_get=bool(request.streaming),
    )
    fast.request._columns = entries_of(request.obj_requests)  # type: ignore[attr-defined]
    return fast
