"""`Batch`: what to get, and the three ways to get it."""

from __future__ import annotations

from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import quote, urlencode

from aisfast._delivery import Delivery, Form, Results
from aisfast._request import Entries, check_names, name_fault
from aisfast.blocking import Blocking
from aisfast.call import Call
from aisfast.enums import Colocation
from aisfast.errors import IncompleteBatchError
from aisfast.models import MossIn, MossReq, given_of, restored
from aisfast.policy import Policy
from aisfast.resume import Resume
from aisfast.singles import Singles
from aisfast.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from aisfast._items import Item, MossOut
    from aisfast.bucket import Bucket
    from aisfast.client import Client
    from aisfast.columns import Columns
    from aisfast.object import Object
    from aisfast.raw import RawAnswer

FORMATS = (".tar", ".tgz", ".tar.gz", ".zip", ".tar.lz4")
BUCKET_REQUIRED = "Bucket must be provided when objects are specified as raw names (str or list of str)"


class LazyRequest(MossReq):
    """A `MossReq` whose entries are columns until somebody asks for the list. From then on the list is the truth."""

    __slots__ = ("_columns", "_list")

    def __init__(
        self,
        output_format: str | None = None,
        cont_on_err: bool | None = None,
        only_obj_name: bool | None = None,
        streaming_get: bool | None = None,
        colocation: int | None = None,
    ) -> None:
        self._columns: Entries | None = Entries()
        self._list: list[MossIn] | None = None
        self._given = None
        self.output_format = output_format
        self.cont_on_err = cont_on_err
        self.only_obj_name = only_obj_name
        self.streaming_get = streaming_get
        self.colocation = colocation

    @property
    def moss_in(self) -> list[MossIn]:
        if self._list is None:
            assert self._columns is not None
            self._list = [_model_of(self._columns, i) for i in range(len(self._columns))]
            self._columns = None
        return self._list

    @moss_in.setter
    def moss_in(self, entries: list[MossIn] | None) -> None:
        if entries:
            self._list, self._columns = entries, None
        else:
            self._list, self._columns = None, Entries()

    @property
    def columns(self) -> Entries | None:
        """The columns to add to, or None: there is a list."""
        if self._columns is not None and self._columns.frozen:
            self._columns = self._columns.copy()
        return self._columns

    def freeze(self) -> Entries:
        """The entries, for a call to keep: they do not change any more."""
        if self._list is not None:
            return Entries.of_models(self._list)
        assert self._columns is not None
        self._columns.frozen = True
        return self._columns

    def __len__(self) -> int:
        return len(self._columns if self._list is None else self._list)  # type: ignore[arg-type]

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {name: getattr(self, name) for name in self._wire if name != "moss_in"}
        return _request, (self._columns, self._list, fields)


def _request(columns: Entries | None, entries: list[MossIn] | None, fields: dict[str, Any]) -> LazyRequest:
    request = LazyRequest(**fields)
    request._columns, request._list = columns, entries
    return request


class Batch:
    """Objects, archive members and byte ranges to get in one request.

    Args:
        request_client: The `Client`.
        objects: A name, an `Object`, or a list of them, to begin with.
        bucket: Where names are looked up.
        output_format: ".tar", ".tgz" or ".tar.gz", ".tar.lz4" (needs the extra `lz4`), ".zip".
        cont_on_err: `get()` only: a missing entry comes empty, with `err_msg`; else it is an error.
        only_obj_name: Name members without their bucket.
        streaming_get: Entries come as the server reads them; else when all are read, with metadata ("buffered").
        colocation: A hint about where the objects live.
    Raises:
        ValueError: An argument is wrong, or a name is given without a bucket.
        NotImplementedError: `Colocation.TARGET_AND_SHARD_AWARE`, which the server does not have.
    """

    def __init__(
        self,
        request_client: Client,
        objects: list[Object | str] | list[Object] | list[str] | Object | str | None = None,
        bucket: Bucket | None = None,
        output_format: str = ".tar",
        cont_on_err: bool = True,
        only_obj_name: bool = False,
        streaming_get: bool = True,
        colocation: Colocation = Colocation.NONE,
    ) -> None:
        if colocation not in (0, 1, 2):
            raise ValueError(f"Invalid colocation value: {colocation}. Must be a Colocation enum member.")
        if colocation == Colocation.TARGET_AND_SHARD_AWARE:
            raise NotImplementedError("Colocation.TARGET_AND_SHARD_AWARE is not yet implemented on the server side.")
        if not isinstance(output_format, str) or output_format.lower() not in FORMATS:
            raise ValueError(f"Unsupported output format type {output_format}")
        self.request_client = request_client
        self.bucket = bucket
        self.request: MossReq = LazyRequest(
            output_format, cont_on_err, only_obj_name, streaming_get, int(colocation) if colocation else None
        )
        if objects is None:
            return
        given: list[Any] = objects if isinstance(objects, list) else [objects]
        if bucket is not None and check_names(given):
            self._columns().extend(given, *_place_of_bucket(bucket))  # type: ignore[union-attr]
            return
        for obj in given:
            self.add(obj)

    @property
    def requests_list(self) -> list[MossIn]:
        """The entries as a list that may be changed: the list itself, not a copy."""
        return self.request.moss_in

    def add(
        self,
        obj: Object | str,
        opaque: bytes | None = None,
        archpath: str | None = None,
        start: int | None = None,
        length: int | None = None,
        bck: str | None = None,
        provider: str | None = None,
    ) -> Self:
        """Add an entry.

        Args:
            obj: An `Object`, or the name of one.
            opaque: Bytes that come back with it.
            archpath: Path of a file in the object, which is an archive (.tar, .tgz, .tar.gz, .zip, .tar.lz4).
            start, length: Byte range [start, start + length) of the object or of the file in it; length -1: to the end.
            bck, provider: Bucket of a name that is not in the batch's own bucket; both or neither.
        Returns:
            The batch itself.
        Raises:
            ValueError: The name, archpath or range is one that no object has; a name without a bucket.
        """
        if start or length:
            _check_range(start, length)
        if (bck is None) != (provider is None):
            raise ValueError("bck and provider must be set together, or not at all")
        if isinstance(obj, str):
            name: str = obj
            if bck is None:
                if self.bucket is None:
                    raise ValueError(f"{BUCKET_REQUIRED}: {obj!r}")
                bck, provider = _place_of_bucket(self.bucket)
        elif hasattr(obj, "bucket_name") and hasattr(obj, "name"):
            if bck is not None:
                raise ValueError("bck/provider cannot be combined with an Object instance")
            name = obj.name
            bck, provider = _place_of_object(obj, self.bucket)
        else:
            raise ValueError(f"Unsupported object type: {type(obj)}")
        if opaque is not None and not isinstance(opaque, bytes | bytearray | memoryview):
            raise ValueError(f"entry {len(self)}: opaque={opaque!r} must be bytes")
        for what, text in (("name", name), ("archpath", archpath)):
            if text is None or (what == "archpath" and not text):
                continue
            if not isinstance(text, str):
                raise ValueError(f"entry {len(self)}: {what}={text!r} must be a str")
            fault = name_fault(str(text))
            if fault is not None:
                raise ValueError(f"entry {len(self)}: the {what} {text[:200]!r} {fault}: nothing can have it")
        echo = bytes(opaque) if opaque else None
        columns = self._columns()
        if columns is not None:
            columns.append(name, bck, provider, archpath, echo, start or 0, length or 0)
        else:
            one = Entries()
            one.append(name, bck, provider, archpath, echo, start or 0, length or 0)
            self.request.moss_in.append(_model_of(one, 0))
        return self

    def clear(self) -> Self:
        """Forget all entries. A call that is under way keeps its own."""
        self.request.moss_in = []
        return self

    @overload
    def get(
        self,
        raw: Literal[False] = False,
        decode_as_stream: bool = False,
        clear_batch: bool = True,
        *,
        tar_buffer_size: int | None = None,
        policy: Policy | None = None,
    ) -> Iterator[tuple[MossOut, bytes]]: ...

    @overload
    def get(
        self,
        raw: Literal[True],
        decode_as_stream: bool = False,
        clear_batch: bool = True,
        *,
        tar_buffer_size: int | None = None,
        policy: Policy | None = None,
    ) -> RawAnswer: ...

    def get(
        self,
        raw: bool = False,
        decode_as_stream: bool = False,
        clear_batch: bool = True,
        *,
        tar_buffer_size: int | None = None,
        policy: Policy | None = None,
    ) -> Iterator[tuple[MossOut, bytes]] | RawAnswer:
        """Send the request; iterate over (info, payload) of every entry, in order.

        Args:
            raw: Return the answer's body as it comes, to be read and closed. Nothing of it is verified, and nothing is
                asked for again.
            decode_as_stream: As the official SDK has it. Here every answer is decoded as it comes.
            clear_batch: Forget the entries, if nothing was raised.
            tar_buffer_size: Checked as the official SDK does, and not used.
            policy: Options for this call, in place of the client's.
        Returns:
            An iterator of pairs of `MossOut` and `bytes`; with `raw` a `RawAnswer`.
        Raises:
            ValueError: No entries, or a wrong argument.
            AISError: The server refused. While iterating: `ErrObjNotFound`, `WireError`, `IncompleteBatchError`.
        """
        self._check_not_empty()
        if tar_buffer_size is not None:
            if isinstance(tar_buffer_size, bool) or not isinstance(tar_buffer_size, int) or tar_buffer_size <= 0:
                raise ValueError("tar_buffer_size must be a positive integer")
            if raw or self.request.output_format == ".zip":
                raise ValueError("tar_buffer_size requires TAR extraction with raw=False")
        if raw:
            answer = self._raw(policy)
            if clear_batch:
                self.clear()
            return answer
        coer = self.request.cont_on_err
        call = self._call(Form.PAIRS, policy, strict=not coer, coer=coer)
        shell = Blocking(call)
        shell.open()
        if not self.request.streaming_get:
            _await_metadata(shell, call.delivery)
        if clear_batch:
            self.clear()
        return Results(call.delivery, shell)

    def stream(self, *, missing: str = "raise", policy: Policy | None = None) -> Stream:
        """Send the request; iterate over an `Item` of every entry, in order, each as soon as its payload is complete.

        Args:
            missing: "raise": a missing entry is an `ErrObjNotFound` at its position; "mark": it comes as an item that
                is not `ok`.
            policy: Options for this call, in place of the client's.
        Returns:
            A `Stream`, to be used in a `with` statement where it may be left early.
        Raises:
            ValueError: No entries, or a wrong argument.
            AISError: The server refused. While iterating: `ErrObjNotFound`, `WireError`, `IncompleteBatchError`.
        """
        call = self._call(Form.ITEMS, policy, strict=missing_raises(missing), coer=True)
        shell = Blocking(call)
        shell.open()
        return Stream(call, shell)

    def fetch(self, *, missing: str = "raise", into: Any = None, policy: Policy | None = None) -> Columns:
        """Send the request and receive the whole batch into one slab.

        Args:
            missing: "raise": `ErrObjNotFound` naming all missing entries; "mark": they are not `ok`.
            into: A writable buffer for the payloads, instead of memory of our own.
            policy: Options for this call, in place of the client's.
        Returns:
            The batch as `Columns`.
        Raises:
            ValueError: No entries, or a wrong argument.
            LimitError: `into` is too small; nothing was written past its end.
            AISError: `ErrObjNotFound`, `WireError`, `IncompleteBatchError` (with `.partial`), or the server refused.
        """
        from aisfast.columns import Columns

        call = self._call(Form.COLUMNS, policy, strict=missing_raises(missing), coer=True, into=into)
        delivery, shell = call.delivery, Blocking(call)
        shell.open()
        try:
            while not delivery.fill():
                shell.pump()
        except IncompleteBatchError as error:
            shell.close(error)
            error.partial = Columns.of(delivery, call.stats)
            raise
        except BaseException as error:
            shell.close(error)
            raise
        shell.finish()
        return Columns.of(delivery, call.stats)

    def __len__(self) -> int:
        return len(self.request)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return f"Batch(objects={len(self)}, format={self.request.output_format})"

    # ---------------------------------------------------------------------------------------------------------- inside

    def _columns(self) -> Entries | None:
        return self.request.columns  # type: ignore[attr-defined,no-any-return]

    def _check_not_empty(self) -> None:
        if not len(self):
            raise ValueError("No objects added to batch")

    def _call(
        self, form: int, policy: Policy | None, *, strict: bool, coer: bool | None, into: Any = None
    ) -> Call:
        self._check_not_empty()
        request = self.request
        client = self.request_client
        policy = self._policy(policy)
        transport = client.transport
        entries, namespace = self._frozen()
        coloc = request.colocation or 0
        path = self._path(coloc)
        coer = bool(coer or policy.get_missing)
        # of the request as it is now: a call that asks again later must ask the same
        write = partial(_body, request.output_format, coer, request.only_obj_name, coloc)

        delivery = Delivery(
            entries,
            form,
            streaming=bool(request.streaming_get),
            only_obj_name=bool(request.only_obj_name),
            missing_raises=strict,
            max_entry=policy.max_entry,
            mime=(request.output_format or ".tar").lower(),
            into=into,
            expected=int(transport.view.entry_bytes * len(entries)),
        )
        resume = Resume(
            delivery,
            policy,
            transport.view,
            body=write,
            place=path if (request.output_format or ".tar").lower() == ".tar" else None,
            streaming=bool(request.streaming_get),
            coer=coer,
            rest=self._rest,
            rng=transport.rng,
        )
        singles = partial(Singles, client.session, entries, namespace, policy.max_entry)
        aside = _path(None, "", None, coloc) if namespace is None and entries.name_buckets() else path
        return Call(transport, delivery, resume, path, aside, singles)

    def _policy(self, given: Policy | None) -> Policy:
        if given is not None and not isinstance(given, Policy):
            raise ValueError(f"policy={given!r} must be a Policy")
        return given or self.request_client.policy

    def _raw(self, policy: Policy | None) -> RawAnswer:
        """The answer to one request, through urllib3."""
        from aisfast.raw import RawAnswer

        request, session = self.request, self.request_client.session
        entries, _ = self._frozen()
        path = self._path(request.colocation or 0)
        answer = session.request(
            "GET",
            path,
            body=_body(
                request.output_format,
                request.cont_on_err,
                request.only_obj_name,
                request.colocation or 0,
                entries,
                bool(request.streaming_get),
            ),
            headers={"Content-Type": "application/json"},
            stream=True,
            read_timeout=session.settings.batch_read_timeout,
            redirect_hosts=self._policy(policy).redirect_hosts,
        )
        return RawAnswer(session, answer, f"{session.settings.endpoint}/v1/{path}")

    def _frozen(self) -> tuple[Entries, str | None]:
        """The entries, for a call to keep, and the namespace of the batch's own bucket."""
        entries: Entries = self.request.freeze()  # type: ignore[attr-defined]
        own = (None, None) if self.bucket is None else (self.bucket.name, _value(self.bucket.provider))
        if (entries.bucket, entries.provider) != own:
            entries = entries.copy()  # an earlier call may still hand out items of them
            entries.bucket, entries.provider = own
        if self.bucket is not None and self.bucket.namespace is not None:
            return entries, self.bucket.namespace.get_path()
        return entries, None

    def _path(self, coloc: int) -> str:
        if self.bucket is None:
            return _path(None, "", None, coloc)
        namespace = self.bucket.namespace
        space = None if namespace is None else namespace.get_path()
        return _path(self.bucket.name, _value(self.bucket.provider), space, coloc)

    def _copy(self) -> Batch:
        """A batch like this one, of the entries that it has now."""
        return self._rest(self._frozen()[0])

    def _rest(self, entries: Entries) -> Batch:
        """A batch like this one, of some of its entries."""
        request = self.request
        rest = Batch(
            self.request_client,
            bucket=self.bucket,
            output_format=request.output_format or ".tar",
            cont_on_err=bool(request.cont_on_err),
            only_obj_name=bool(request.only_obj_name),
            streaming_get=bool(request.streaming_get),
            colocation=Colocation(request.colocation or 0),
        )
        rest.request._columns = entries  # type: ignore[attr-defined]
        return rest


class Stream(Results):
    """Iterator of `Item`, and a context manager: leaving it early closes its connection and nothing else."""

    def __init__(self, call: Call, shell: Blocking) -> None:
        super().__init__(call.delivery, shell)
        self.stats: Stats = call.stats

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    if TYPE_CHECKING:

        def __next__(self) -> Item: ...


@lru_cache(256)
def _path(bucket: str | None, provider: str, namespace: str | None, coloc: int) -> str:
    """Where a batch is asked for, below `/v1/`."""
    params = {}
    if bucket is not None:
        params["provider"] = provider
        if namespace is not None:
            params["namespace"] = namespace
    if coloc:
        params["coloc"] = str(coloc)
    path = "ml/moss" if bucket is None else f"ml/moss/{quote(bucket, safe='')}"
    return f"{path}?{urlencode(params)}" if params else path


def _body(
    mime: str | None,
    coer: bool | None,
    onob: bool | None,
    coloc: int,
    entries: Entries,
    streaming: bool,
    tail: Entries | None = None,
) -> bytes:
    """The JSON of a request for these entries, and a tail of others."""
    text = entries.body(mime, coer, onob, streaming, coloc, tail)
    if entries.unspeakable >= 0:
        raise ValueError(
            f"{entries.describe(entries.unspeakable)!r}: its text holds lone surrogates, so it is no UTF-8 text; "
            "nothing can have that name"
        )
    return text


def _await_metadata(shell: Blocking, delivery: Delivery) -> None:
    try:
        while not delivery.metadata_ready():
            shell.pump()
    except BaseException as error:
        shell.close(error)
        raise


def missing_raises(missing: str) -> bool:
    """Whether missing entries are an error, as the argument of that name says."""
    if missing not in ("raise", "mark"):
        raise ValueError(f"missing={missing!r} must be 'raise' or 'mark'")
    return missing == "raise"


def _check_range(start: int | None, length: int | None) -> None:
    for name, value in (("start", start), ("length", length)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"Invalid byte range: {name}={value!r} must be an integer of 64 bits")
    if start and start < 0:
        raise ValueError(f"Invalid byte range: start={start} must be >= 0")
    if length is not None and length < -1:
        raise ValueError(f"Invalid byte range: length={length} must be > 0, or -1 to read to the end")
    if start and not length:
        raise ValueError(f"Invalid byte range: start={start} requires length > 0 or -1 (use -1 to read to the end)")


def _value(provider: Any) -> str:
    return provider if type(provider) is str else str(getattr(provider, "value", provider))


def _place_of_bucket(bucket: Bucket) -> tuple[str | None, str | None]:
    """What to send with an entry of the batch's own bucket. A bucket in a namespace can only be named by the request as
    a whole, since `bucket` in an entry is looked up in the global one."""
    return (None, None) if bucket.namespace is not None else (bucket.name, _value(bucket.provider))


def _place_of_object(obj: Object, own: Bucket | None) -> tuple[str | None, str | None]:
    namespace = obj.query_params.get("namespace")
    if namespace is None:
        return obj.bucket_name, _value(obj.bucket_provider)
    if own is None or own.namespace is None or (own.name, own.namespace.get_path()) != (obj.bucket_name, namespace):
        raise ValueError(
            f"object {obj.name!r} lives in namespace {namespace} of bucket {obj.bucket_name!r}: a request can name "
            "only the namespace of its own bucket; give the batch that bucket"
        )
    return None, None


def _model_of(entries: Entries, i: int) -> MossIn:
    from base64 import b64encode

    name, bucket, provider, archpath, opaque, start, length, uname = entries.row(i)
    text = b64encode(opaque).decode() if opaque else None
    values = (name, bucket, provider, uname, text, archpath, start or None, length or None)
    return restored(MossIn, values, given_of(MossIn, values))
