"""`aisfast doctor`: the way from here to the data, step by step: what works, what does not, and the remedy.

Law: it reads, it never writes; a step that fails says why, and steps that need it are not taken.
"""

from __future__ import annotations

import importlib
import ipaddress
import os
import platform
import ssl
import time
from importlib import metadata
from typing import TYPE_CHECKING

from aisfast.errors import AISError, WireError
from aisfast.messages import FAILED, printable, what_failed
from aisfast.session import origin_of
from aisfast.settings import DEFAULT_ENDPOINT
from aisfast.version import __version__

if TYPE_CHECKING:
    from aisfast.client import Client
    from aisfast.models import BucketModel, Smap, Snode
    from aisfast.object import Object
    from aisfast.settings import Settings

COMPILED = ("_blocks", "_decode", "_request", "_items", "_delivery")
PACKAGES = ("urllib3", "numpy", "lz4", "aistore")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
MOST_UNREACHABLE = 3  # targets after which the others are not tried: each costs a connect timeout
MOST_BUCKETS = 10  # to look for an object in
ENDS_SOON = 14 * 86400  # seconds a certificate has left when its end is worth a warning


class Failed(Exception):
    """A step failed so that what follows cannot be tried. It has been told."""


def examine(endpoint: str | None = None) -> int:
    """Take every step and print what was found.

    Args:
        endpoint: URL of the gateway; None: as `Client` finds it.
    Returns:
        Exit code: 0, or 1 if a step failed.
    """
    from aisfast.client import Client

    report = Report()
    try:
        _versions(report)
        try:
            client = Client(endpoint)
        except ValueError as error:
            report.fail("settings", what_failed(error), "correct the argument or the variable")
        with client:
            _settings(report, client.settings, endpoint)
            _connection(report, client)
            smap = _gateway(report, client)
            buckets = _access(report, client)
            _targets(report, client, smap)
            _get_batch(report, client, buckets)
    except Failed:
        report.note("-", "", "what comes after this step was not checked")
    return FAILED if report.failures else 0


class Report:
    """Prints findings as they come, and counts the failures."""

    def __init__(self) -> None:
        self.failures = 0

    def note(self, state: str, step: str, text: str, remedy: str = "") -> None:
        print(f"{state:<5} {step:<11} {printable(text)}", flush=True)
        if remedy:
            print(f"{'':<17} -> {printable(remedy)}", flush=True)

    def ok(self, step: str, text: str) -> None:
        self.note("ok", step, text)

    def warn(self, step: str, text: str, remedy: str) -> None:
        self.note("warn", step, text, remedy)

    def bad(self, step: str, error: AISError) -> None:
        """A failure that other steps do not depend on."""
        self.failures += 1
        self.note("FAIL", step, what_failed(error), error.remedy)

    def fail(self, step: str, text: str, remedy: str) -> None:
        """A failure that ends the examination.

        Raises:
            Failed: Always.
        """
        self.failures += 1
        self.note("FAIL", step, text, remedy)
        raise Failed


def _versions(report: Report) -> None:
    try:
        for name in COMPILED:
            importlib.import_module(f"aisfast.{name}")
        importlib.import_module("urllib3.connection")  # here, so that connecting is timed without it
    except ImportError as error:
        report.fail("versions", f"a module does not load: {error}", "install aisfast again for this Python")
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"no {name}")
    report.ok("versions", f"aisfast {__version__}, Python {platform.python_version()}, {', '.join(found)}")


def _settings(report: Report, settings: Settings, endpoint: str | None) -> None:
    origin = "argument" if endpoint else "AIS_ENDPOINT" if os.environ.get("AIS_ENDPOINT") else "default"
    report.ok("endpoint", f"{settings.endpoint} ({origin})")
    if origin == "default":
        report.note("", "", f"{DEFAULT_ENDPOINT} is taken where neither --endpoint nor AIS_ENDPOINT is given")
    others = sorted(name for name in os.environ if name.startswith(("AIS_", "AISFAST_")) or name.lower() in PROXIES)
    report.ok("settings", f"variables set: {', '.join(others) or 'none'}")


def _connection(report: Report, client: Client) -> None:
    settings, to = client.settings, client.session.endpoint
    began = time.perf_counter()
    try:
        sock, forwarded = client.session.connect(to.scheme, to.host, to.port)
    except AISError as error:
        step = "TLS" if getattr(error, "kind", "") == "tls" else "connection"
        report.fail(step, what_failed(error), error.remedy)
    except ValueError as error:  # a certificate file that cannot be used
        report.fail("TLS", what_failed(error), "correct the argument or the variable")
    with sock:
        way = "by way of a forward proxy" if forwarded else f"{(time.perf_counter() - began) * 1e3:.1f} ms"
        report.ok("connection", f"{to.place} ({way})")
        if isinstance(sock, ssl.SSLSocket):
            _tls(report, settings, sock)
    if to.scheme == "http":
        if settings.token and not _is_here(to.host):
            report.warn("TLS", "not used: the token travels unencrypted", "use an https endpoint")
        else:
            report.ok("TLS", "not used (http)")


def _tls(report: Report, settings: Settings, sock: ssl.SSLSocket) -> None:
    mine = ", with a client certificate" if settings.client_cert else ""
    if settings.skip_verify:
        remedy = "give the CA in AIS_CLIENT_CA and unset AIS_SKIP_VERIFY_CRT"
        report.warn("TLS", f"{sock.version()}{mine}; the server's certificate is not verified", remedy)
        return
    ends = str((sock.getpeercert() or {}).get("notAfter", ""))
    if ends and ssl.cert_time_to_seconds(ends) - time.time() < ENDS_SOON:
        report.warn("TLS", f"{sock.version()}{mine}; the server's certificate ends {ends}", "renew it")
    else:
        report.ok("TLS", f"{sock.version()}{mine}, certificate verified, valid until {ends}")


def _gateway(report: Report, client: Client) -> Smap:
    try:
        client.session.request("GET", "health")
        smap = client.cluster().get_info()
    except AISError as error:
        step = "auth" if error.status_code in (401, 403) else "gateway"
        report.fail(step, what_failed(error), error.remedy or "is the endpoint an AIStore gateway?")
    if not smap.tmap:
        report.fail("gateway", f"cluster {smap.uuid} has no targets", "wait until they have joined")
    here = client.session.endpoint.place
    if here in [_url(node).partition("://")[2] for node in smap.tmap.values()]:
        report.fail("gateway", f"{here} is a target", f"set the endpoint to a gateway: {_url(smap.proxy_si)}")
    nodes = f"{len(smap.pmap)} gateway(s), {len(smap.tmap)} target(s)"
    report.ok("gateway", f"cluster {smap.uuid}: {nodes}, map version {smap.version}")
    return smap


def _access(report: Report, client: Client) -> list[BucketModel]:
    try:
        buckets = client.cluster().list_buckets("")
    except AISError as error:
        report.fail("auth", what_failed(error), error.remedy)
    token = "with the token" if client.session.token else "without a token"
    report.ok("auth", f"{len(buckets)} bucket(s) listed {token}")
    return buckets


def _targets(report: Report, client: Client, smap: Smap) -> None:
    reached, lost = [], 0
    for name, node in sorted(smap.tmap.items()):
        try:
            to = origin_of(client.session.follow(client.settings.endpoint, _url(node)))
            sock, _ = client.session.connect(to.scheme, to.host, to.port)
            sock.close()
        except AISError as error:
            error.message = f"target {name}: {error.message}"
            report.bad("redirect", error)
            lost += 1
            if lost == MOST_UNREACHABLE:
                report.note("-", "redirect", "other targets were not tried")
                return
        else:
            reached.append(to.place)
    if reached:
        shown = ", ".join(reached[:4]) + (", ..." if len(reached) > 4 else "")
        report.ok("redirect", f"{len(reached)} of {len(smap.tmap)} target(s) can be reached: {shown}")


def _get_batch(report: Report, client: Client, buckets: list[BucketModel]) -> None:
    """One byte of the first object that is found, through GetBatch."""
    try:
        found = _some_object(client, buckets)
        if found is None:
            report.note(
                "-", "GetBatch", "not tried: no object was found", "store one: aisfast put --create FILE ais://BUCKET"
            )
            return
        name = f"ais://{found.bucket_name}/{found.name}"
        batch = client.batch(bucket=client.bucket(found.bucket_name)).add(found, start=0, length=1)
        with batch.stream() as items:
            sizes = [item.size for item in items]
    except AISError as error:
        report.bad("GetBatch", error)
        return
    if sizes != [1]:
        report.bad("GetBatch", WireError(0, f"{name}: of its first byte {sizes} bytes came"))
        return
    hops = f"{items.stats.redirects} redirect(s)"
    report.ok("GetBatch", f"the first byte of {name} came after {hops}, {items.stats.wall * 1e3:.1f} ms")


def _some_object(client: Client, buckets: list[BucketModel]) -> Object | None:
    own = [b.name for b in buckets if b.provider == "ais" and (b.namespace is None or b.namespace.get_path() == "@#")]
    for name in own[:MOST_BUCKETS]:
        for entry in client.bucket(name).list_objects(props="name,size", page_size=10).entries:
            if entry.size:
                return entry.object
    return None


def _url(node: Snode) -> str:
    return node.public_net.direct_url if node.public_net else ""


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
