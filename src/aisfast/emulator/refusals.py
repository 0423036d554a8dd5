"""Error answers of a cluster that is not well, in its own words: what only a fault brings about."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aisfast.emulator.batch_request import path_of
from aisfast.emulator.errors import Failure

if TYPE_CHECKING:
    from aisfast.emulator import Cluster
    from aisfast.emulator.batch import Job
    from aisfast.emulator.httpd import Request
    from aisfast.emulator.store import Bucket


class Refusal(NamedTuple):
    leg: str  # "proxy": its own answer; "reserve": what the target told the proxy; "target"
    status: int
    tcode: str
    text: str
    buffered: bool = False  # never the answer to a streaming request


_POST = 'Post "{post}": '

#: By the name that a planned fault calls it (`kind`). In braces: names and numbers of the request at hand.
REFUSALS = {
    "refused": Refusal("proxy", 400, "Error", _POST + "dial tcp {host}: connect: connection refused"),
    "timeout": Refusal(
        *("proxy", 400, "Error"),
        _POST + "context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
    ),
    "dns": Refusal("proxy", 400, "Error", _POST + "dial tcp: lookup {dt_id}: no such host"),
    "no-targets": Refusal("proxy", 400, "ErrNoNodes", "no storage targets in the cluster"),
    "token": Refusal(
        "proxy", 401, "", 'invalid token from header "Authorization": invalid token [err: token expired]: {token}'
    ),
    "forbidden": Refusal("proxy", 403, "", "bucket {bucket}: GET access denied (allowed: [])"),
    "busy": Refusal("reserve", 429, "ErrTooManyRequests", '{job}: wid="{wid}" rejected: pending=256'),
    "pressure": Refusal(
        *("reserve", 429, "ErrTooManyRequests"),
        '{job}: wid="{wid}" rejected due to resource pressure (mem=critical, pending=97)',
    ),
    "not-ready": Refusal("reserve", 503, "", "not ready yet"),
    "renewal": Refusal(
        "reserve", 409, "", "x-moss renewal (temp) conflict: [{xid}, true, 0001-01-01 00:00:00 +0000 UTC]"
    ),
    "map": Refusal("reserve", 409, "", '{dt}: different Smap version from {p}({p_id}): "{older}" vs local {map}'),
    "target-count": Refusal("reserve", 400, "", "x-moss: expecting {nat} targets, have {fewer}"),
    "consumed": Refusal("target", 404, "ErrNotFound", '{job}: wid="{wid}" (prep-rx not done?) does not exist'),
    "not-active": Refusal("target", 409, "", 'x-moss: xid "{xid}" not active'),
    "pruned": Refusal("target", 404, "", 'x-moss: xid "{xid}" not active'),
    "user-abort": Refusal("target", 400, "", "user abort"),
    "peer-abort": Refusal("target", 400, "wrapError", "remote target aborted xaction: {job}, {peer}: unexpected EOF"),
    "abandoned": Refusal("target", 400, "errAbandonedWI", 'wi "{wid}" abandoned (age 5m30s)'),
    "neighbour": Refusal(
        *("target", 400, "wrapError"),
        'GFN({bucket}/{name}, {peer}): Get "{gfn}": read tcp {host}->{peer_host}: read: connection reset by peer',
        True,
    ),
    "hole": Refusal(
        *("target", 400, "errHole"),
        '{job}: timed out waiting for missing entry at index 0 [ {dt}, wid="{wid}", total-wait=20s ]',
        True,
    ),
    "membership": Refusal(
        *("target", 400, "ErrMembershipChange"),
        "{job}: detected cluster membership change from {map} to {newer_map}",
        True,
    ),
    "budget": Refusal("target", 400, "", '{job}: wid="{wid}" exceeded soft-errors limit: 9 (max: 8)', True),
    "missed-writing": Refusal("target", 400, "", "archive/tar: missed writing 4014 bytes", True),
    "damaged": Refusal("target", 400, "", "archive/tar: invalid tar header", True),
    "rate-limit": Refusal("proxy", 429, "ErrRateLimitFrontend", "Too Many Requests"),
}


def failure(
    kind: str,
    cluster: Cluster,
    target: int,
    request: Request | None = None,
    bucket: Bucket | None = None,
    wid: str = "",
    job: Job | None = None,
    *,
    peer: int | None = None,
    uri: str = "",
    name: str = "",
) -> Failure:
    """One of `REFUSALS` in the words for a request.

    Args:
        target: Index of the DT.
        bucket: Default bucket of the request.
        job: Its job; None before it has one.
        peer: Index of the other target that a text may name.
        uri: The bucket that a text may name.
        name: The object that a text may name.
    """
    error = REFUSALS[kind]
    smap = cluster.smap
    proxy, dt = smap.proxy, smap.targets[target]
    other = smap.targets[(target + 1) % len(smap.targets) if peer is None else peer]
    count, version = len(smap.present()), smap.version
    xid = job.xid if job else f"gbt-{cluster.new_id(9)}"
    path = path_of(bucket, "noxid", wid, count)
    query = f"{request.raw_query}&" if request and request.raw_query else ""
    _, _, token = request.headers.get("authorization", "").partition(" ") if request else ("", "", "")
    text = error.text.format(
        bucket=uri,
        dt=dt.name,
        dt_id=dt.id,
        fewer=count - 1,
        gfn=f"{other.url}/v1/objects/{uri.partition('://')[2]}/{name}?gfn=true&provider={uri.partition('://')[0]}",
        host=f"{dt.host}:{dt.port}",
        job=job.name if job else f"x-get-batch[{xid}]-{uri}",
        map=smap,
        name=name,
        nat=count,
        newer_map=str(smap).replace(f"v{version}", f"v{version + 1}", 1),
        older=version - 1,
        p=proxy.name,
        p_id=proxy.id,
        peer=other.name,
        peer_host=f"{other.host}:{other.port}",
        post=f"{dt.url}{path}?{query}tid={dt.id}",
        token=token,
        wid=wid,
        xid=xid,
    )
    made = Failure(error.status, text, error.tcode)
    return made.on_leg("POST", path, proxy.name, dt.name) if error.leg == "reserve" else made
