"""What goes over the wire and what comes back, as plain classes with the official fields and names.

The GetBatch models take a field by its own name or by its name on the wire and ignore what they do not know,
as the official ones do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from aisfast.enums import ArchiveMode
from aisfast.unsupported import unsupported

if TYPE_CHECKING:
    from aisfast._items import MossOut
    from aisfast.object import Object, ObjectProps

Fields: TypeAlias = dict[str, Any]

# ----------------------------------------------------------------------------------------- GetBatch


class _Model:
    """A dataclass that turns into a dictionary the way the official models do."""

    __slots__ = ()
    _wire: ClassVar[Mapping[str, str]] = {}  # name of a field -> its name on the wire, where they differ

    def model_dump(
        self, *, by_alias: bool = False, exclude_defaults: bool = False, exclude_none: bool = False
    ) -> Fields:
        """The fields as a dictionary, in their order.

        Args:
            by_alias: Under their names on the wire.
            exclude_defaults: Without those that have their default.
            exclude_none: Without those that are None.
        """
        options = {"by_alias": by_alias, "exclude_defaults": exclude_defaults, "exclude_none": exclude_none}
        dump: Fields = {}
        for its in fields(self):  # type: ignore[arg-type]
            value = getattr(self, its.name)
            default = [] if its.default_factory is list else its.default
            if (exclude_none and value is None) or (exclude_defaults and value == default):
                continue
            if isinstance(value, list):
                value = [item.model_dump(**options) for item in value]
            elif isinstance(value, _Model):
                value = value.model_dump(**options)
            dump[self._wire.get(its.name, its.name) if by_alias else its.name] = value
        return dump


@dataclass(frozen=True, slots=True, init=False)
class MossIn(_Model):
    """One entry of a batch: what is asked for.

    Attributes:
        obj_name: Name of the object; on the wire `objname`.
        bck: Its bucket, if not the batch's; on the wire `bucket`.
        provider: The bucket's provider; None or "" is ais.
        uname: Full name of a bucket, in place of `bck` and `provider`.
        opaque: Base64 text that comes back with the item (buffered mode).
        archpath: The file inside the object, which is an archive.
        start, length: Byte range; length -1 is to the end.
    Raises:
        ValueError: There is no `obj_name`, or it is no string.
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

    def __init__(
        self,
        *,
        obj_name: str | None = None,
        objname: str | None = None,
        bck: str | None = None,
        bucket: str | None = None,
        provider: str | None = None,
        uname: str | None = None,
        opaque: str | bytes | None = None,
        archpath: str | None = None,
        start: int | None = None,
        length: int | None = None,
        **_unknown: Any,
    ) -> None:
        name = objname if obj_name is None else obj_name
        if not isinstance(name, str):
            raise ValueError(f"MossIn: obj_name={name!r} must be the name of an object")
        put = object.__setattr__
        put(self, "obj_name", name)
        put(self, "bck", bucket if bck is None else bck)
        put(self, "provider", provider)
        put(self, "uname", uname)
        put(self, "opaque", opaque.decode() if isinstance(opaque, bytes) else opaque)
        put(self, "archpath", archpath)
        put(self, "start", start)
        put(self, "length", length)

    @classmethod
    def model_validate(cls, value: MossIn | Mapping[str, Any]) -> MossIn:
        """An entry from a mapping of its fields, under either name."""
        return value if isinstance(value, cls) else cls(**_mapping(value, "MossIn"))

    def dict(self, *_args: Any, **_kwargs: Any) -> Fields:
        """What is sent: the fields under their names on the wire, without those that have their default."""
        return self.model_dump(by_alias=True, exclude_defaults=True)


@dataclass(slots=True, init=False)
class MossReq(_Model):
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

    def __init__(self, **given: Any) -> None:
        for name, wire in self._wire.items():
            setattr(self, name, given.get(name, given.get(wire)))
        self.moss_in = [MossIn.model_validate(entry) for entry in self.moss_in or ()]

    @classmethod
    def model_validate(cls, value: MossReq | Mapping[str, Any]) -> MossReq:
        """A request from a mapping of its fields, under either name."""
        return value if isinstance(value, cls) else cls(**_mapping(value, "MossReq"))

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


@dataclass(slots=True, init=False)
class MossResp(_Model):
    """What the server says about a batch in buffered mode.

    Attributes:
        out: One `MossOut` for each entry, in order.
        uuid: Id of the job.
    """

    out: list[MossOut] = field(default_factory=list)
    uuid: str = ""

    def __init__(
        self, *, out: Iterable[MossOut | Mapping[str, Any]] | None = None, uuid: str = "", **_unknown: Any
    ) -> None:
        from aisfast._items import MossOut  # compiled: not at import

        self.out = [MossOut.model_validate(entry) for entry in out or ()]
        self.uuid = uuid

    @classmethod
    def model_validate(cls, value: MossResp | Mapping[str, Any]) -> MossResp:
        """An answer's metadata from a mapping of its fields."""
        return value if isinstance(value, cls) else cls(**_mapping(value, "MossResp"))


# ------------------------------------------------------------------------------------------ buckets


@dataclass(slots=True)
class Namespace(_Model):
    """Where bucket names are unique: the cluster of that uuid, and a name within it."""

    uuid: str = ""
    name: str = ""

    def get_path(self) -> str:
        """As it stands in a query and in unique names: `@uuid#name`."""
        return f"@{self.uuid}#{self.name}"


@dataclass(slots=True)
class BucketModel(_Model):
    """A bucket as the cluster lists it."""

    name: str
    provider: str = ""
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
    """One object, or one member of an archive, in a listing.

    Attributes:
        name: Of the object; of a member: `shard/path`.
        size: Bytes; 0 if not asked for.
        checksum, atime, version, location: Text as the server gives it, "" if not asked for.
        copies: Number of copies.
        flags: Bits: see `is_cached` and `is_ok`; bit 7 marks members, bit 9 their archive.
        object: The `Object`, ready to be read.
    """

    name: str
    size: int = 0
    checksum: str = ""
    atime: str = ""
    version: str = ""
    location: str = ""
    copies: int = 0
    flags: int = 0
    object: Object | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_wire(cls, value: Any) -> BucketEntry:
        """The entry of one element of a listing in JSON, where sizes are text."""
        given = _mapping(value, "list entry")
        return cls(
            given["name"],
            int(given.get("size") or 0),
            given.get("checksum", ""),
            given.get("atime", ""),
            given.get("version", ""),
            given.get("location", ""),
            int(given.get("copies") or 0),
            int(given.get("flags") or 0),
        )

    def is_cached(self) -> bool:
        """Whether the cluster itself holds the object."""
        return bool(self.flags & 1 << 6)

    def is_ok(self) -> bool:
        """Whether the object is where it belongs, and whole."""
        return not self.flags & 0b11111

    def generate_object_props(self) -> ObjectProps:
        """The entry as an object's properties."""
        from aisfast.object import ObjectProps

        return ObjectProps(
            {
                "ais-name": self.name,
                "ais-checksum-value": self.checksum,
                "ais-atime": self.atime,
                "ais-version": self.version,
                "ais-location": self.location,
                "content-length": str(self.size),
                "ais-mirror-copies": str(self.copies),
            }
        )


@dataclass(slots=True)
class BucketList:
    """One page of a listing.

    Attributes:
        uuid: Of the listing; given back with the token.
        continuation_token: What to ask for the next page with; "" on the last one.
        entries: The objects.
        flags: Of the listing.
    """

    uuid: str = ""
    continuation_token: str = ""
    entries: list[BucketEntry] = field(default_factory=list)
    flags: int = 0

    @classmethod
    def from_wire(cls, value: Any) -> BucketList:
        """The page of an answer in JSON, where no entries may be null."""
        given = _mapping(value, "list")
        return cls(
            given.get("uuid", ""),
            given.get("continuation_token", ""),
            [BucketEntry.from_wire(entry) for entry in given.get("entries") or ()],
            int(given.get("flags") or 0),
        )


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


@dataclass(slots=True)
class NetInfo(_Model):
    """The address of a node in one network."""

    node_hostname: str = ""
    daemon_port: str = ""
    direct_url: str = ""


@dataclass(slots=True)
class Snode(_Model):
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


@dataclass(slots=True)
class Smap:
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


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what}: expected a mapping of fields, found {type(value).__name__}")
    return value
