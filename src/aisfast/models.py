"""What goes over the wire and what comes back, as plain classes with the official fields and names.

The official ones are pydantic models. These do what programs ask of those, and leave the rest out: a field is given by
its own name or by its name on the wire, unknown ones are ignored, values are checked when a model is made and not when
a field is assigned.
"""

from __future__ import annotations

import copy
import importlib
import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from aisfast.enums import ArchiveMode
from aisfast.unsupported import unsupported

if TYPE_CHECKING:
    from typing import Self

    from aisfast._items import MossOut
    from aisfast.object import Object, ObjectProps

Fields: TypeAlias = dict[str, Any]
_T = TypeVar("_T")

# ----------------------------------------------------------------------------------- what a model is


class Spec(NamedTuple):
    """One field of a model."""

    name: str
    plain: frozenset[type]  # types of values that need no check
    other: str  # its name on the wire, "" if that is its name
    what: str  # what a value must be, for errors
    check: Callable[[Any], Any]  # the value as that; TypeError or ValueError if it is none
    default: Any  # REQUIRED if there is none
    fresh: bool  # each model gets a default of its own

    @property
    def wire(self) -> str:
        """Its name on the wire."""
        return self.other or self.name

    def value(self) -> Any:
        """The default."""
        return [] if self.fresh else self.default


REQUIRED = object()


class FrozenError(FrozenInstanceError, ValueError):
    """A field of a frozen model was assigned: an AttributeError and, as of the official models, a ValueError."""


class Model:
    """What all models can do. `model` makes one of a class with annotated fields."""

    __slots__ = ("_given",)  # names of the fields that were given; None: all

    _given: frozenset[str] | None
    _wire: ClassVar[Mapping[str, str]] = {}  # name of a field -> its name on the wire, where they differ
    _specs: ClassVar[tuple[Spec, ...]] = ()
    _title: ClassVar[str] = ""

    def __init__(self, /, *args: Any, **given: Any) -> None:
        fill(self, args, given)

    # ------------------------------------------------------------------------------------- out of it

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Any = None,
        exclude: Any = None,
        by_alias: bool | None = None,
        exclude_unset: bool = False,
        exclude_defaults: bool = False,
        exclude_none: bool = False,
    ) -> Fields:
        """The fields as a dictionary, in their order.

        Args:
            mode: "python", or "json": bytes as text.
            include, exclude: Names of fields, or a mapping of such names to what is wanted of, or left out of, the
                models below them (of a list by index or "__all__"; True: all of it).
            by_alias: Under their names on the wire.
            exclude_unset: Without those that were not given.
            exclude_defaults: Without those that have their default.
            exclude_none: Without those that are None.
        Raises:
            ValueError: Mode "json", and bytes are no text.
        """
        how = _How(mode == "json", bool(by_alias), exclude_unset, exclude_defaults, exclude_none)
        dumped: Fields = _dumped(self, how, include, exclude)
        return dumped

    def model_dump_json(self, *, indent: int | None = None, **options: Any) -> str:
        """The same as JSON text. Options: see `model_dump`."""
        return json.dumps(
            self.model_dump(mode="json", **options),
            indent=indent,
            separators=(",", ":") if indent is None else None,
            ensure_ascii=False,
        )

    def dict(self, **options: Any) -> Fields:
        """As `model_dump`."""
        return self.model_dump(**options)

    def json(self, **options: Any) -> str:
        """As `model_dump_json`."""
        return self.model_dump_json(**options)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy; lists are shared unless it is deep.

        Args:
            update: Values for fields of the copy, not checked.
        """
        values = {spec.name: getattr(self, spec.name) for spec in self._specs}
        values = (copy.deepcopy(values) if deep else values) | dict(update or {})
        unknown = values.keys() - {spec.name for spec in self._specs}
        if unknown:
            raise ValueError(f"{self._title}: there is no field {min(unknown)!r}")
        given = self._given if self._given is None or not update else self._given | update.keys()
        return restored(type(self), tuple(values.values()), given)

    # ---------------------------------------------------------------------------------------- into it

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """A model from a mapping of its fields, under either name; a model as it is.

        Raises:
            ValueError: A field is missing or not what it must be, or `obj` is neither.
        """
        if isinstance(obj, cls):
            return obj
        made = cls.__new__(cls)
        fill(made, (), _mapping(obj, cls._title))
        return made

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray) -> Self:
        """A model from JSON text.

        Raises:
            ValueError: It is no JSON; or see `model_validate`.
        """
        try:
            obj = json.loads(json_data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{cls._title}: not JSON: {error}") from None
        return cls.model_validate(obj)

    # --------------------------------------------------------------------------------- as any object

    def __eq__(self, other: object) -> bool:
        if getattr(type(other), "_specs", None) is not self._specs:
            return NotImplemented
        return all(getattr(self, spec.name) == getattr(other, spec.name) for spec in self._specs)

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return ((spec.name, getattr(self, spec.name)) for spec in self._specs)

    def __repr__(self) -> str:
        return f"{self._title}({self._shown(', ')})"

    def __str__(self) -> str:
        return self._shown(" ")

    def _shown(self, between: str) -> str:
        return between.join(f"{spec.name}={getattr(self, spec.name)!r}" for spec in self._specs)

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), tuple(getattr(self, spec.name) for spec in self._specs), self._given)


def model(cls: type[_T]) -> type[_T]:
    """Make a model of a class: slots for its annotated fields, and what `Model` asks of it."""
    made = dataclass(slots=True, init=False, repr=False, eq=False)(cls)
    made._title = made.__name__  # type: ignore[attr-defined]
    wire = made._wire  # type: ignore[attr-defined]
    made._specs = tuple(  # type: ignore[attr-defined]
        spec_of(
            its.name,
            str(its.type),
            REQUIRED if its.default is MISSING and its.default_factory is MISSING else its.default,
            wire.get(its.name, ""),
        )
        for its in fields(made)  # type: ignore[arg-type]
    )
    return made


def spec_of(name: str, annotation: str, default: Any = REQUIRED, wire: str = "") -> Spec:
    """A field by what stands in a class: its name, annotation and default (`MISSING`: a new list)."""
    plain, what, check = _KINDS[annotation]
    return Spec(name, frozenset(plain), wire, what, check, default, default is MISSING)


def fill(self: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> None:
    """Set the fields of a new model.

    Raises:
        ValueError: A field is missing, or not what it must be.
        TypeError: There are more positional arguments than fields, or one twice.
    """
    specs: tuple[Spec, ...] = self._specs
    if args:
        names = [spec.name for spec in specs]
        if len(args) > len(names) or not given.keys().isdisjoint(names[: len(args)]):
            raise TypeError(f"{self._title}: takes its {len(names)} fields, each once")
        given = {**given, **dict(zip(names, args, strict=False))}
    put = object.__setattr__  # a frozen model's own refuses
    name = ""
    try:
        for spec in specs:
            name = spec[0]
            if name in given:
                value = given[name]
                if type(value) in spec[1] and spec[2] not in given:  # most values are what they must be already
                    put(self, name, value)
                    continue
            put(self, name, _value(self._title, spec, given))
    except OverflowError:
        raise ValueError(f"{self._title}: {name} is larger than any there is") from None
    put(self, "_given", _given(self, tuple(given)))


def _value(title: str, spec: Spec, given: Mapping[str, Any]) -> Any:
    for name in (spec.wire, spec.name):
        if name in given:
            value = given[name]
            break
    else:
        if spec.default is REQUIRED:
            raise ValueError(f"{title}: {_called(spec)} is missing")
        return spec.value()
    try:
        return value if type(value) in spec.plain else spec.check(value)
    except (TypeError, ValueError) as error:
        why = f": {error}" if type(value) in (dict, list) else ""
        raise ValueError(f"{title}: {_called(spec)}={value!r:.80} must be {spec.what}{why}") from None


def restored(cls: type[_T], values: tuple[Any, ...], given: frozenset[str] | None) -> _T:
    """A model of values that were checked before."""
    made = cls.__new__(cls)
    for spec, value in zip(cls._specs, values, strict=True):  # type: ignore[attr-defined]
        object.__setattr__(made, spec.name, value)
    object.__setattr__(made, "_given", given)
    return made


def given_of(cls: type[Model], values: tuple[Any, ...]) -> frozenset[str]:
    """The fields that would be given to make a model of these values: those that are not None."""
    return frozenset(spec.name for spec, value in zip(cls._specs, values, strict=True) if value is not None)


def _called(spec: Spec) -> str:
    return f"{spec.name} ({spec.other})" if spec.other else spec.name


def _given(self: Any, names: tuple[str, ...]) -> frozenset[str]:
    """The fields that stand under those names: one set for all models of which the same were given."""
    key = self._title, names
    found = _givens.get(key)
    if found is None:
        found = frozenset(spec.name for spec in self._specs if spec.name in names or spec.other in names)
        if len(_givens) < MANY:
            found = _givens.setdefault(key, found)
    return found


MANY = 1024  # ways of giving fields that are remembered
_givens: dict[tuple[str, tuple[str, ...]], frozenset[str]] = {}


class _How(NamedTuple):
    json: bool
    wire: bool
    unset: bool
    defaults: bool
    none: bool


def _dumped(value: Any, how: _How, include: Any, exclude: Any) -> Any:
    if isinstance(value, list):
        return [_dumped(value[i], how, *below) for i in range(len(value)) if (below := _below(i, include, exclude))]
    if isinstance(value, dict):
        return {key: _dumped(value[key], how, *below) for key in value if (below := _below(key, include, exclude))}
    if isinstance(value, bytes) and how.json:
        return value.decode()
    specs = getattr(type(value), "_specs", None)
    if specs is None:
        return value
    dump = {}
    for spec in specs:
        below = _below(spec.name, include, exclude)
        if below is None or (how.unset and value._given is not None and spec.name not in value._given):
            continue
        its = getattr(value, spec.name)
        if (how.none and its is None) or (how.defaults and its == spec.value()):
            continue
        dump[spec.wire if how.wire else spec.name] = _dumped(its, how, *below)
    return dump


def _below(key: Any, include: Any, exclude: Any) -> tuple[Any, Any] | None:
    """What to include and exclude of the value under that key; None: leave it out."""
    wanted = True if include is None else _rule(include, key)
    unwanted = False if exclude is None else _rule(exclude, key)
    if wanted is False or unwanted is True:
        return None
    return (None if wanted is True else wanted), (None if unwanted is False else unwanted)


def _rule(rules: Any, key: Any) -> Any:
    if isinstance(rules, Mapping):
        rule = rules.get(key, rules.get("__all__", False))
        return True if rule is ... else rule
    return key in rules or "__all__" in rules


# ------------------------------------------------------------------------------------------- checks


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return value.decode()
    raise TypeError


def _number(value: Any) -> int:
    if isinstance(value, int | str | bytes):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise TypeError


_TRUE, _FALSE = ("t", "true", "y", "yes", "on", "1"), ("f", "false", "n", "no", "off", "0")


def _truth(value: Any) -> bool:
    if isinstance(value, str | bytes):
        text = _text(value).lower()
        value = 1 if text in _TRUE else 0 if text in _FALSE else None
    if not isinstance(value, int | float) or value not in (0, 1):
        raise TypeError
    return bool(value)


_MODELS, _ITEMS, _LEGACY = "aisfast.models", "aisfast._items", "aisfast.legacy"


def _of(home: str, name: str) -> Any:
    return getattr(importlib.import_module(home), name).model_validate  # when needed: they need one another


def _one(home: str, name: str, value: Any) -> Any:
    return _of(home, name)(value)


def _list_of(home: str, name: str, value: Any) -> list[Any]:
    if value is None and home == _ITEMS:
        return []  # how a server says that there are none
    if not isinstance(value, list | tuple):
        raise TypeError("expected a list")
    validate = _of(home, name)
    return [validate(one) for one in value]


def _map_of(home: str, name: str, value: Any) -> dict[str, Any]:
    validate = _of(home, name)
    return {_text(key): validate(one) for key, one in _mapping(value, "mapping").items()}


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: expected a mapping of fields, found {type(value).__name__}")
    return value


def echo(value: Any) -> bytes | None:
    """An entry's `opaque` in an answer: bytes, or base64 text of either alphabet; what is neither is None."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value:
        return None
    try:
        return urlsafe_b64decode(value.replace("+", "-").replace("/", "_"))
    except ValueError:
        return None


Echo: TypeAlias = bytes | None

_NONE = type(None)
_KINDS: dict[str, tuple[tuple[type, ...], str, Callable[[Any], Any]]] = {  # annotation -> plain, what, check
    "str": ((str,), "text", _text),
    "str | None": ((str, _NONE), "text or None", _text),
    "int": ((int,), "an integer", _number),
    "int | None": ((int, _NONE), "an integer or None", _number),
    "bool": ((bool,), "true or false", _truth),
    "bool | None": ((bool, _NONE), "true, false or None", _truth),
    "Echo": ((bytes, _NONE), "base64 text, bytes or None", echo),
    "list[MossIn]": ((), "a list of entries", partial(_list_of, _MODELS, "MossIn")),
    "list[MossOut]": ((), "a list of answers", partial(_list_of, _ITEMS, "MossOut")),
    "list[BatchResponseItem]": ((), "a list of answers", partial(_list_of, _LEGACY, "BatchResponseItem")),
    "Namespace | None": ((_NONE,), "a Namespace or None", partial(_one, _MODELS, "Namespace")),
    "NetInfo | None": ((_NONE,), "a NetInfo or None", partial(_one, _MODELS, "NetInfo")),
    "Snode": ((), "a Snode", partial(_one, _MODELS, "Snode")),
    "dict[str, Snode]": ((), "a mapping of nodes", partial(_map_of, _MODELS, "Snode")),
}

# ----------------------------------------------------------------------------------------- GetBatch


@model
class MossIn(Model):
    """One entry of a batch: what is asked for. Frozen.

    Attributes:
        obj_name: Name of the object; on the wire `objname`.
        bck: Its bucket, if not the batch's; on the wire `bucket`.
        provider: The bucket's provider; None or "" is ais.
        uname: Full name of a bucket, in place of `bck` and `provider`.
        opaque: Base64 text that comes back with the item (buffered mode).
        archpath: The file inside the object, which is an archive.
        start, length: Byte range; length -1 is to the end.
    Raises:
        ValueError: There is no `obj_name`, or a value is not what it must be.
    """

    _wire: ClassVar[Mapping[str, str]] = {"obj_name": "objname", "bck": "bucket"}

    obj_name: str
    bck: str | None = None
    provider: str | None = None
    uname: str | None = None
    opaque: str | None = None
    archpath: str | None = None
    start: int | None = None
    length: int | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenError(f"MossIn is frozen: {name!r} cannot be set; make another, or use model_copy(update=...)")

    def __delattr__(self, name: str) -> None:
        raise FrozenError(f"MossIn is frozen: {name!r} cannot be deleted")

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self))

    def dict(self, *_args: Any, **_kwargs: Any) -> Fields:
        """What is sent: the fields under their names on the wire, without those that have their default."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


@model
class MossReq(Model):
    """A GetBatch request.

    Attributes:
        moss_in: The entries; on the wire `in`.
        output_format: ".tar", ".tgz", ".zip"; on the wire `mime`.
        cont_on_err: Put an empty member in place of what is missing and go on; on the wire `coer`.
        only_obj_name: Name members without the bucket; on the wire `onob`.
        streaming_get: One archive, sent as it is made; else multipart with metadata; on the wire `strm`.
        colocation: See `Colocation`; on the wire `coloc`.
    """

    _wire: ClassVar[Mapping[str, str]] = {
        "moss_in": "in",
        "output_format": "mime",
        "cont_on_err": "coer",
        "only_obj_name": "onob",
        "streaming_get": "strm",
        "colocation": "coloc",
    }

    moss_in: list[MossIn] = field(default_factory=list)
    output_format: str | None = None
    cont_on_err: bool | None = None
    only_obj_name: bool | None = None
    streaming_get: bool | None = None
    colocation: int | None = None

    def add(self, moss_in: MossIn) -> MossReq:
        """Append an entry. Returns the request, for chaining."""
        self.moss_in.append(moss_in)
        return self

    def extend(self, moss_ins: Iterable[MossIn]) -> MossReq:
        """Append entries. Returns the request, for chaining."""
        self.moss_in.extend(moss_ins)
        return self

    def dict(self, *_args: Any, **_kwargs: Any) -> Fields:
        """What is sent: the fields under their names on the wire, without those that have their default."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


@model
class MossResp(Model):
    """What the server says about a batch in buffered mode.

    Attributes:
        out: One `MossOut` for each entry, in order.
        uuid: Id of the job.
    """

    out: list[MossOut] = field(default_factory=list)
    uuid: str = ""


# ------------------------------------------------------------------------------------------ buckets


@model
class Namespace(Model):
    """Where bucket names are unique: the cluster of that uuid, and a name within it."""

    uuid: str = ""
    name: str = ""

    def get_path(self) -> str:
        """As it stands in a query and in unique names: `@uuid#name`."""
        return f"@{self.uuid}#{self.name}"


@model
class BucketModel(Model):
    """A bucket as the cluster lists it."""

    name: str
    provider: str
    namespace: Namespace | None = None

    @classmethod
    def from_wire(cls, value: Any) -> BucketModel:
        """The bucket of one entry of the cluster's list."""
        given = _mapping(value, "bucket")
        namespace = given.get("namespace")
        return cls(
            str(given["name"]),
            given.get("provider", ""),
            Namespace(namespace.get("uuid", ""), namespace.get("name", "")) if namespace else None,
        )

    def as_dict(self) -> Fields:
        """The fields that are set."""
        return self.model_dump(exclude_none=True)

    def get_path(self) -> str:
        """The bucket's unique name, `provider/namespace/name/`."""
        return f"{self.provider}/{self.namespace.get_path() if self.namespace else '@#'}/{self.name}/"


@dataclass(slots=True)
class BucketEntry:
    """One object, or one member of an archive, in a listing. Its fields are named as on the wire.

    Attributes:
        n, name: Of the object; of a member: `shard/path`.
        s, size: Bytes; 0 if not asked for.
        cs, checksum; a, atime; v, version; t, location: Text as the server gives it, "" if not asked for.
        c, copies: Number of copies.
        f, flags: Bits: see `is_cached` and `is_ok`; bit 7 marks members, bit 9 their archive.
        object: The `Object`, ready to be read.
    """

    n: str
    cs: str = ""
    a: str = ""
    v: str = ""
    t: str = ""
    s: int = 0
    c: int = 0
    f: int = 0
    object: Object | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_wire(cls, value: Any) -> BucketEntry:
        """The entry of one element of a listing in JSON, where names are long and sizes are text."""
        given = _mapping(value, "list entry")
        return cls(
            given["name"],
            given.get("checksum", ""),
            given.get("atime", ""),
            given.get("version", ""),
            given.get("location", ""),
            int(given.get("size") or 0),
            int(given.get("copies") or 0),
            int(given.get("flags") or 0),
        )

    @property
    def name(self) -> str:
        """See `BucketEntry`."""
        return self.n

    @property
    def checksum(self) -> str:
        """See `BucketEntry`."""
        return self.cs

    @property
    def atime(self) -> str:
        """See `BucketEntry`."""
        return self.a

    @property
    def version(self) -> str:
        """See `BucketEntry`."""
        return self.v

    @property
    def location(self) -> str:
        """See `BucketEntry`."""
        return self.t

    @property
    def size(self) -> int:
        """See `BucketEntry`."""
        return self.s

    @property
    def copies(self) -> int:
        """See `BucketEntry`."""
        return self.c

    @property
    def flags(self) -> int:
        """See `BucketEntry`."""
        return self.f

    def is_cached(self) -> bool:
        """Whether the cluster itself holds the object."""
        return bool(self.f & 1 << 6)

    def is_ok(self) -> bool:
        """Whether the object is where it belongs, and whole."""
        return not self.f & 0b11111

    def generate_object_props(self) -> ObjectProps:
        """The entry as an object's properties."""
        from aisfast.object import ObjectProps

        return ObjectProps(
            {
                "ais-name": self.n,
                "ais-checksum-value": self.cs,
                "ais-atime": self.a,
                "ais-version": self.v,
                "ais-location": self.t,
                "content-length": str(self.s),
                "ais-mirror-copies": str(self.c),
            }
        )


@dataclass(slots=True)
class BucketList:
    """One page of a listing. Its fields are named as on the wire.

    Attributes:
        UUID, uuid: Of the listing; given back with the token.
        ContinuationToken, continuation_token: What to ask for the next page with; "" on the last one.
        Flags, flags: Of the listing.
        Entries, entries: The objects; None is none.
    """

    UUID: str
    ContinuationToken: str
    Flags: int
    Entries: list[BucketEntry] | None = None

    @classmethod
    def from_wire(cls, value: Any) -> BucketList:
        """The page of an answer in JSON, where names are others and no entries may be null."""
        given = _mapping(value, "list")
        return cls(
            given.get("uuid", ""),
            given.get("continuation_token", ""),
            int(given.get("flags") or 0),
            [BucketEntry.from_wire(entry) for entry in given.get("entries") or ()],
        )

    @property
    def uuid(self) -> str:
        """See `BucketList`."""
        return self.UUID

    @property
    def continuation_token(self) -> str:
        """See `BucketList`."""
        return self.ContinuationToken

    @property
    def flags(self) -> int:
        """See `BucketList`."""
        return self.Flags

    @property
    def entries(self) -> list[BucketEntry]:
        """The objects."""
        return [] if self.Entries is None else self.Entries


@dataclass
class ArchiveConfig:
    """Which members of an archive to read: the one at `archpath`, or all that `regex` selects.

    Raises:
        ValueError: A regex without a mode or a mode without a regex; a regex beside an archpath.
    """

    archpath: str = ""
    regex: str = ""
    mode: ArchiveMode | None = None

    def __post_init__(self) -> None:
        if bool(self.regex) != bool(self.mode):
            raise ValueError("ArchiveConfig: regex and mode are given together")
        if self.regex and self.archpath:
            raise ValueError("ArchiveConfig: give archpath for one member or regex for several, not both")


# ------------------------------------------------------------------------------------------ cluster


@model
class NetInfo(Model):
    """The address of a node in one network."""

    node_hostname: str = ""
    daemon_port: str = ""
    direct_url: str = ""


@model
class Snode(Model):
    """A node of the cluster.

    Attributes:
        daemon_id: Its id.
        daemon_type: "proxy" (gateway) or "target" (storage).
        public_net, intra_control_net, intra_data_net: Its addresses.
        flags: Bits 2 and 3: in maintenance, being decommissioned.
        id_digest: Hash of its id.
    """

    daemon_id: str
    daemon_type: str
    public_net: NetInfo | None = None
    intra_control_net: NetInfo | None = None
    intra_data_net: NetInfo | None = None
    flags: int = 0
    id_digest: int = 0

    @classmethod
    def from_wire(cls, value: Any) -> Snode:
        """The node of one value of the map."""
        given = _mapping(value, "node")

        def net(name: str) -> NetInfo | None:
            its = given.get(name)
            return (
                NetInfo(*(its.get(key, "") for key in ("node_ip_addr", "daemon_port", "direct_url")))
                if its
                else None
            )

        return cls(
            given["daemon_id"],
            given["daemon_type"],
            net("public_net"),
            net("intra_control_net"),
            net("intra_data_net"),
            int(given.get("flags") or 0),
            int(given.get("id_digest") or 0),
        )

    def in_maint_or_decomm(self) -> bool:
        """Whether the node is on its way out."""
        return bool(self.flags & 0b1100)


@model
class Smap(Model):
    """The cluster map.

    Attributes:
        tmap, pmap: Targets and gateways, by id.
        proxy_si: The primary gateway.
        version: Goes up with every change.
        uuid: Of the cluster.
        creation_time: Of the cluster.
    """

    tmap: dict[str, Snode]
    pmap: dict[str, Snode]
    proxy_si: Snode
    version: int = 0
    uuid: str = ""
    creation_time: str = ""

    @classmethod
    def from_wire(cls, value: Any) -> Smap:
        """The map of an answer in JSON, where the version is text."""
        given = _mapping(value, "cluster map")
        return cls(
            {name: Snode.from_wire(node) for name, node in given["tmap"].items()},
            {name: Snode.from_wire(node) for name, node in given["pmap"].items()},
            Snode.from_wire(given["proxy_si"]),
            int(given.get("version") or 0),
            given.get("uuid", ""),
            given.get("creation_time", ""),
        )

    get_target_for_object = unsupported("Smap.get_target_for_object")

