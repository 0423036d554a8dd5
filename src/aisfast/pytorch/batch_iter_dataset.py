"""A PyTorch dataset of whole buckets, fetched in batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, get_worker_info

from aisfast.enums import Colocation
from aisfast.errors import AISError

if TYPE_CHECKING:
    from aisfast.bucket import Bucket
    from aisfast.client import Client
    from aisfast.object import Object

logger = logging.getLogger("aisfast")


class EntryError(AISError, RuntimeError):
    """The server has reported an object as failed: it is gone since it was listed, or cannot be read."""


class AISBatchIterDataset(IterableDataset[tuple[str, bytes]]):
    """All objects of some buckets as (name, payload) pairs; the workers of a DataLoader share them.

    Every worker lists all sources and takes each `num_workers`-th object, or, with `partition_sources_by_worker`,
    lists and takes each `num_workers`-th source. Ranks are not told apart: give each its own sources or prefixes.

    Args:
        ais_source_list: A bucket, or a list of them (of anything that has `list_all_objects_iter`).
        client: Fetches the batches.
        prefix_map: Source → prefix or prefixes of the objects to take; None, or a source not in it: all objects.
        show_progress: Show a progress bar for each worker. Needs `alive-progress`.
        max_batch_size: Objects in one request at most.
        output_format: See `Batch`.
        streaming: Entries come as the server reads them; else when all of a batch are read.
        colocation: A hint about where the objects live.
        partition_sources_by_worker: Share sources, not objects. Sources should be as many as workers, or more.
        cont_on_err: Skip an object that the server reports as failed, with a WARNING in the log; else it is an error.
    Raises:
        ValueError: There is no source.
        ImportError: `show_progress` without `alive-progress`.
    """

    def __init__(
        self,
        ais_source_list: Bucket | list[Bucket],
        client: Client,
        prefix_map: Mapping[Bucket, str | list[str] | None] = {},  # as official; never written to
        show_progress: bool = False,
        max_batch_size: int = 32,
        output_format: str = ".tar",
        streaming: bool = True,
        colocation: Colocation = Colocation.NONE,
        partition_sources_by_worker: bool = False,
        cont_on_err: bool = False,
    ) -> None:
        if not ais_source_list:
            raise ValueError(f"<{type(self).__name__}> ais_source_list must be provided")
        if show_progress:
            _progress_bar()
        one = hasattr(ais_source_list, "list_all_objects_iter")
        self._sources: list[Any] = [ais_source_list] if one else list(ais_source_list)  # type: ignore[arg-type]
        self._prefixes = prefix_map
        self._show_progress = show_progress
        self._share_sources = partition_sources_by_worker
        self.client = client
        self.max_batch_size = max_batch_size
        self.output_format = output_format
        self.streaming = streaming
        self.colocation = colocation
        self.cont_on_err = cont_on_err

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Pairs of object name and payload.

        Raises:
            EntryError: The server reports an object as failed, unless `cont_on_err`.
            AISError: What else listing and fetching raise.
        """
        objects, worker = self._share()
        if self._show_progress:
            title = type(self).__name__ + worker
            objects = _progress_bar()(objects, title=title, disable=False, force_tty=not worker)
        pending: list[Object] = []
        for obj in objects:
            pending.append(obj)
            if len(pending) == self.max_batch_size:
                yield from self._fetched(pending)
                pending = []
        if pending:
            yield from self._fetched(pending)

    def __len__(self) -> int:
        """Number of objects of all workers. Lists all sources each time."""
        return sum(1 for _ in self._objects(self._sources))

    def _objects(self, sources: Iterable[Any]) -> Iterator[Object]:
        for source in sources:
            prefixes = self._prefixes.get(source)
            if prefixes is None:
                prefixes = ""
            for prefix in [prefixes] if isinstance(prefixes, str) else prefixes:
                yield from source.list_all_objects_iter(prefix=prefix)

    def _share(self) -> tuple[Iterator[Object], str]:
        """This worker's objects, and what to call it."""
        worker = get_worker_info()
        if worker is None or worker.num_workers == 1:
            return self._objects(self._sources), ""
        name = f" (Worker {worker.id})"
        if self._share_sources:
            return self._objects(self._sources[worker.id :: worker.num_workers]), name
        return islice(self._objects(self._sources), worker.id, None, worker.num_workers), name

    def _fetched(self, objects: list[Object]) -> Iterator[tuple[str, bytes]]:
        # Failed entries are always asked to come in place: whoever stops at one has got all those before it.
        batch = self.client.batch(
            objects,
            output_format=self.output_format,
            streaming_get=self.streaming,
            colocation=self.colocation,
        )
        for info, payload in batch.get():
            if not info.err_msg:
                yield info.obj_name, payload
            elif self.cont_on_err:
                logger.warning("Skipping %s: %s", info.obj_name, info.err_msg)
            else:
                raise EntryError(0, f"{info.obj_name}: {info.err_msg}")


def _progress_bar() -> Any:
    try:
        from alive_progress import alive_it
    except ModuleNotFoundError:
        raise ImportError(
            "show_progress=True needs alive-progress: pip install alive-progress", name="alive_progress"
        ) from None
    return alive_it
