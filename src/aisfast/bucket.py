"""One bucket: made, listed, described and destroyed by REST calls; the way to its objects."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aisfast.enums import FLTPresence, ListObjectFlag, Provider
from aisfast.errors import AISError, ErrBckAlreadyExists, ErrBckNotFound, InvalidBckProvider, WireError
from aisfast.models import BucketEntry, BucketList, BucketModel, Namespace
from aisfast.object import BucketDetails, Object, ObjectProps, Response
from aisfast.unsupported import unsupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aisfast.client import Client

POLL = 0.05  # seconds before a summary's job is asked again; half as much more each time, up to ...
POLL_MOST = 2.0


class AISSource(ABC):
    """Where objects come from: what a dataset asks of a bucket, and of anything that stands in for one."""

    @property
    @abstractmethod
    def client(self) -> Client:
        """Through which the objects are reached."""

    @abstractmethod
    def list_all_objects_iter(self, prefix: str = "", props: str = "name,size") -> Iterable[Object]:
        """The objects whose names begin with `prefix`, with those properties."""

    @abstractmethod
    def list_urls(self, prefix: str = "", etl: Any = None) -> Iterable[str]:
        """The URLs of the objects whose names begin with `prefix`."""


class Bucket(AISSource):
    """A bucket; no request is made before a method is called.

    Args:
        name: Of the bucket.
        client: Through which to reach it.
        provider: Who stores it; a `Provider`, its name, or an alias such as "s3".
        namespace: Where its name is unique; None: the global one.
    Raises:
        InvalidBckProvider: There is no such provider.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        provider: Provider | str = Provider.AIS,
        namespace: Namespace | None = None,
    ) -> None:
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(f"bucket name {name!r}: it must be text, not empty and without '/'")
        if namespace is not None and not isinstance(namespace, Namespace):
            raise ValueError(f"namespace={namespace!r} must be a Namespace: pass Namespace(name=...)")
        self._name = name
        self._client = client
        self._provider = Provider.parse(provider)
        self._namespace = namespace
        self._qparam = {"provider": self._provider.value}
        if namespace:
            self._qparam["namespace"] = namespace.get_path()
        self._details = BucketDetails(name, self._provider, self._qparam, self.get_path())

    @property
    def name(self) -> str:
        """Of the bucket."""
        return self._name

    @property
    def client(self) -> Client:
        """Through which the bucket is reached."""
        return self._client

    @client.setter
    def client(self, client: Client) -> None:
        self._client = client

    @property
    def provider(self) -> Provider:
        """Who stores it."""
        return self._provider

    @property
    def namespace(self) -> Namespace | None:
        """Where its name is unique; None: the global one."""
        return self._namespace

    @property
    def qparam(self) -> dict[str, str]:
        """What every request about the bucket has in its query."""
        return self._qparam

    def get_path(self) -> str:
        """Unique name: `provider/namespace/name/`."""
        return self.as_model().get_path()

    def as_model(self) -> BucketModel:
        """The bucket as the cluster lists it."""
        return BucketModel(self.name, self.provider.value, self.namespace)

    def object(self, obj_name: str, props: ObjectProps | None = None) -> Object:
        """The object of that name; no request is made."""
        return Object(self._client, self._details, obj_name, props)

    # ----------------------------------------------------------------------------- make and destroy

    def create(self, exist_ok: bool = False) -> Bucket:
        """Make the bucket. Returns it.

        Raises:
            ErrBckAlreadyExists: It is there already, unless `exist_ok`.
            InvalidBckProvider: Only ais buckets can be made.
        """
        self._make_or_destroy("POST", "create-bck", *((ErrBckAlreadyExists,) if exist_ok else ()))
        return self

    def delete(self, missing_ok: bool = False) -> None:
        """Destroy the bucket and all that is in it.

        Raises:
            ErrBckNotFound: It does not exist, unless `missing_ok`.
            InvalidBckProvider: Only ais buckets can be destroyed.
        """
        self._make_or_destroy("DELETE", "destroy-bck", *((ErrBckNotFound,) if missing_ok else ()))

    def verify_cloud_bucket(self) -> None:
        """Refuse an ais bucket.

        Raises:
            InvalidBckProvider: It is one.
        """
        if not self.provider.is_remote():
            raise InvalidBckProvider(self.provider)

    def _make_or_destroy(self, method: str, action: str, *accepted: type[AISError]) -> None:
        if self.provider.is_remote():
            raise InvalidBckProvider(self.provider)
        with suppress(*accepted):
            self.make_request(method, action)

    # ------------------------------------------------------------------------------------- describe

    def head(self) -> Mapping[str, str]:
        """The headers that describe the bucket: `Ais-Bucket-Props` is JSON.

        Raises:
            ErrBckNotFound: It does not exist.
        """
        return self._client.session.request("HEAD", self._path, params=self.qparam).headers

    def info(
        self, flt_presence: int = FLTPresence.FLT_EXISTS, bsumm_remote: bool = True, prefix: str = ""
    ) -> tuple[str, dict[str, Any]]:
        """Properties and summary.

        Args:
            flt_presence: Which objects count; see `FLTPresence`.
            bsumm_remote: Count remote objects too.
            prefix: Count only objects whose names begin so.
        Returns:
            The properties as JSON text, and the summary.
        """
        try:
            presence = FLTPresence(flt_presence)
        except ValueError:
            raise ValueError(f"flt_presence={flt_presence!r} must be one of FLTPresence") from None
        path = f"{self._path}/{quote(prefix)}" if prefix else self._path
        params = {**self.qparam, "presence": str(int(presence)), "bsumm_remote": str(bsumm_remote)}
        answer = self._client.session.request("HEAD", path, params=params)
        props = answer.headers.get("Ais-Bucket-Props", "{}")
        params["uuid"] = answer.headers.get("Ais-Xaction-Id", "").strip('"')
        for wait in _growing_waits():
            if answer.status == 200:
                break
            time.sleep(wait)
            answer = self._client.session.request("HEAD", path, params=params)
        return props, self._parsed(answer.headers.get("Ais-Bucket-Summ", "") or "{}")

    def summary(
        self, uuid: str = "", prefix: str = "", cached: bool = True, present: bool = True
    ) -> dict[str, Any]:
        """Number and sizes of objects.

        Args:
            uuid: Of a job that has been started; "" starts one.
            prefix: Count only objects whose names begin so.
            cached, present: Count only what the cluster itself holds.
        """
        value = {"uuid": uuid, "prefix": prefix, "cached": cached, "present": present}
        answer = self.make_request("GET", "summary-bck", value)
        if answer.status_code == 202:
            value["uuid"] = answer.text.strip().strip('"')
        for wait in _growing_waits():
            if answer.status_code == 200:
                break
            time.sleep(wait)
            answer = self.make_request("GET", "summary-bck", value)
        found = self._parsed(answer.text)
        return found[0] if isinstance(found, list) and found else {}

    def _parsed(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise WireError(
                0, f"bucket {self.name!r}: its summary is not JSON", layer="http", found=text[:80]
            ) from None

    # ----------------------------------------------------------------------------------------- list

    def list_objects(
        self,
        prefix: str = "",
        props: str = "",
        page_size: int = 0,
        uuid: str = "",
        continuation_token: str = "",
        flags: list[ListObjectFlag] | None = None,
        target: str = "",
        inventory_name: str = "",
        start_after: str = "",
    ) -> BucketList:
        """One page of the bucket's objects, by name.

        Args:
            prefix: Only names that begin so.
            props: What to tell of each, with commas: name, size, version, checksum, atime, cached, status,
                copies, ec, custom, location; "" is name and size.
            page_size: Entries at most; 0: as many as the server likes.
            uuid, continuation_token: From the page before.
            flags: Options.
            target: Only objects on the target of that id.
            inventory_name: List the inventory of that name in place of a remote bucket.
            start_after: Only names behind this one; for the first page of an ais bucket.
        Raises:
            ErrBckNotFound: The bucket does not exist.
            NotImplementedError: `start_after` with a remote bucket.
        """
        self._may_start_after(start_after)
        flags = list(flags or ())
        headers = {"Accept": "application/json"}
        if inventory_name:
            flags.append(ListObjectFlag.NBI)
            headers["Ais-Inv-Name"] = inventory_name
        value = {
            "prefix": prefix,
            "pagesize": page_size,
            "uuid": uuid,
            "props": props,
            "continuation_token": continuation_token,
            "flags": str(ListObjectFlag.join_flags(flags)),
            "target": target,
        }
        if start_after:
            value["start_after"] = start_after
        page = self._client.session.get_json(
            self._path,
            BucketList.from_wire,
            params=self.qparam,
            headers=headers,
            json={"action": "list", "name": "", "value": value},
        )
        for entry in page.entries:
            entry.object = self.object(entry.name)
        return page

    def list_objects_iter(
        self,
        prefix: str = "",
        props: str = "",
        page_size: int = 0,
        flags: list[ListObjectFlag] | None = None,
        target: str = "",
        inventory_name: str = "",
        start_after: str = "",
    ) -> Iterator[BucketEntry]:
        """All the bucket's objects, page after page as they are needed. Arguments: see `list_objects`."""
        self._may_start_after(start_after)
        return self._pages(prefix, props, page_size, flags, target, inventory_name, start_after)

    def _pages(
        self,
        prefix: str,
        props: str,
        page_size: int,
        flags: list[ListObjectFlag] | None,
        target: str,
        inventory_name: str,
        start_after: str,
    ) -> Iterator[BucketEntry]:
        uuid = token = ""
        while True:
            page = self.list_objects(
                prefix,
                props,
                page_size,
                uuid,
                token,
                flags,
                target,
                inventory_name,
                "" if token else start_after,
            )
            yield from page.entries
            if not page.continuation_token:
                return
            if page.continuation_token == token:
                raise WireError(
                    0,
                    f"bucket {self.name!r}: its listing does not go on behind {token!r}",
                    remedy="try again",
                    layer="http",
                )
            uuid, token = page.uuid, page.continuation_token

    def list_all_objects(
        self,
        prefix: str = "",
        props: str = "",
        page_size: int = 0,
        flags: list[ListObjectFlag] | None = None,
        target: str = "",
        inventory_name: str = "",
        start_after: str = "",
    ) -> list[BucketEntry]:
        """All the bucket's objects at once. Arguments: see `list_objects`."""
        return list(
            self.list_objects_iter(prefix, props, page_size, flags, target, inventory_name, start_after)
        )

    def list_all_objects_iter(
        self, prefix: str = "", props: str = "name,size", start_after: str = ""
    ) -> Iterator[Object]:
        """As `list_objects_iter`, but each as an `Object` that has its properties."""
        entries = self.list_objects_iter(prefix, props, start_after=start_after)
        return (self.object(entry.name, entry.generate_object_props()) for entry in entries)

    def list_archive(
        self, archive_obj_name: str, include_archive_obj: bool = False, props: str = "", page_size: int = 0
    ) -> list[BucketEntry]:
        """The members of an archive, each named `archive/path`.

        Args:
            archive_obj_name: The object that is the archive.
            include_archive_obj: Begin with the archive itself.
            props, page_size: See `list_objects`.
        """
        entries = self.list_objects_iter(archive_obj_name, props, page_size, [ListObjectFlag.ARCH_DIR])
        return [entry for entry in entries if include_archive_obj or entry.name != archive_obj_name]

    def list_urls(self, prefix: str = "", etl: Any = None) -> Iterator[str]:
        """The URLs of all objects whose names begin with `prefix`."""
        for entry in self.list_objects_iter(prefix, "name"):
            yield self.object(entry.name).get_url(etl=etl)

    # ---------------------------------------------------------------------------------------- store

    def put_files(
        self,
        path: str | PathLike[str],
        prefix_filter: str = "",
        pattern: str = "*",
        basename: bool = False,
        prepend: str | None = None,
        recursive: bool = False,
        dry_run: bool = False,
        verbose: bool = True,
    ) -> list[str]:
        """Store the files of a directory.

        Args:
            path: The directory.
            prefix_filter: Only files whose names begin so.
            pattern: Only files that match, as a shell would.
            basename: Name objects by the file's name alone, without its directory below `path`.
            prepend: Put this before each object's name.
            recursive: Directories below, too.
            dry_run: Store nothing.
            verbose: Of no effect.
        Returns:
            The names of the objects.
        Raises:
            ValueError: `path` is not a directory.
        """
        root = Path(path)
        if not root.is_dir():
            raise ValueError(f"{str(path)!r} is not a directory")
        names = []
        for file in sorted(root.rglob(pattern) if recursive else root.glob(pattern)):
            if not file.is_file() or not file.name.startswith(prefix_filter):
                continue
            name = (prepend or "") + (file.name if basename else file.relative_to(root).as_posix())
            if not dry_run:
                self.object(name).get_writer().put_file(file)
            names.append(name)
        return names

    # ------------------------------------------------------------------------------------- the rest

    copy = unsupported("Bucket.copy")
    create_inventory = unsupported("Bucket.create_inventory")
    destroy_inventory = unsupported("Bucket.destroy_inventory")
    evict = unsupported("Bucket.evict")
    inspect = unsupported("Bucket.inspect")
    objects = unsupported("Bucket.objects")
    rename = unsupported("Bucket.rename")
    show_inventory = unsupported("Bucket.show_inventory")
    transform = unsupported("Bucket.transform")
    write_dataset = unsupported("Bucket.write_dataset")

    def make_request(
        self,
        method: str,
        action: str,
        value: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
        name: str = "",
    ) -> Response:
        """Send an action about the bucket."""
        message = {"action": action, "name": name, "value": value}
        return Response(
            self._client.session.request(
                method.upper(), self._path, params=params or self.qparam, json=message
            )
        )

    @property
    def _path(self) -> str:
        return f"buckets/{quote(self._name)}"

    def _may_start_after(self, start_after: str) -> None:
        if start_after and self.provider.is_remote():
            raise NotImplementedError(
                f"start_after: buckets of provider {self.provider.value!r} cannot be listed from a name"
            )

    def __repr__(self) -> str:
        return f"Bucket({self.provider.value}://{self.name})"


def _growing_waits() -> Iterator[float]:
    wait = POLL
    while True:
        yield wait
        wait = min(wait * 1.5, POLL_MOST)
