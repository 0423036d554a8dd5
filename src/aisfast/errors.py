"""The exception tree. What a server or the wire can cause is an `AISError`; each names what, where and the remedy.

    AISError
    ├── AISRetryableError
    │   ├── ErrObjNotFound          (FileNotFoundError)
    │   └── ErrGETConflict
    ├── ErrBckNotFound              (FileNotFoundError)
    ├── ErrRemoteBckNotFound        (FileNotFoundError)
    ├── ErrBckAlreadyExists         (FileExistsError)
    ├── ErrETLNotFound, ErrETLAlreadyExists
    ├── ErrRangeNotSatisfiable
    ├── Unreadable
    ├── AISTimeoutError             (TimeoutError)
    ├── AISConnectionError          (ConnectionError)
    ├── WireError                   (OSError)
    │   └── LimitError
    └── IncompleteBatchError
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, NamedTuple

_RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")  # torchrun's, Slurm's, Open MPI's


def this_process() -> str:
    """Which process of its job this is, e.g. `RANK:3, WORKER:1` (of a PyTorch DataLoader); "" where nothing tells."""
    ranks = [rank for rank in map(os.environ.get, _RANKS) if rank is not None and rank.isdecimal()]
    told = [f"RANK:{rank}" for rank in ranks[:1]]
    worker = getattr(sys.modules.get("torch.utils.data"), "get_worker_info", lambda: None)()
    if worker is not None:
        told.append(f"WORKER:{worker.id}")
    return ", ".join(told)


class SentRequest(NamedTuple):
    """The request an error is about; without a token, a cookie or a body."""

    method: str
    url: str
    headers: dict[str, str]


class AISError(Exception):
    """Something a server or the wire caused.

    Args:
        status_code: HTTP status of the answer, or 0 where there was none.
        message: What happened. For an error answer the server's body as it came (the JSON text), tokens blotted out.
        req_url: The URL that was asked.
        req: What was sent: method, url, headers without secrets.
        remedy: What to do about it, in a few words.
        fields: Attributes of the subclass.
    Attributes:
        process: Which process of its job made it, e.g. `RANK:3, WORKER:1`; "" where the environment does not tell.
    """

    process: str = ""

    def __init__(
        self,
        status_code: int | str = 0,
        message: str = "",
        req_url: str = "",
        req: SentRequest | None = None,
        *,
        remedy: str = "",
        **fields: Any,
    ) -> None:
        if isinstance(status_code, str):  # `type(error)("text")`: how a DataLoader raises a worker's error again
            message, status_code = status_code, 0
        else:
            self.process = this_process()  # now: it may be shown by another one
        super().__init__(message)  # one argument: OSError would take two for errno and strerror
        self.status_code: int = status_code
        self.message = message
        self.req_url = req_url
        self.req = req
        self.remedy = remedy
        for name, value in fields.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        if not self.status_code and not self.req_url:
            text = f"{self.message}; {self.remedy}" if self.remedy else self.message
        else:
            text = f"STATUS:{self.status_code}, MESSAGE:{self.message}, REQ_URL:{self.req_url}"
            text = f"{text}, REMEDY:{self.remedy}" if self.remedy else text
        return f"{text}, {self.process}" if self.process else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.__dict__)


def _rebuild(cls: type[AISError], state: dict[str, Any]) -> AISError:
    return cls(**state)


class AISRetryableError(AISError):
    """An error that may be gone when asked again."""


class ErrObjNotFound(AISRetryableError, FileNotFoundError):
    """An object, or a member of an archive, does not exist."""


class ErrGETConflict(AISRetryableError):
    """The object is being written by somebody else."""


class ErrBckNotFound(AISError, FileNotFoundError):
    """The bucket does not exist."""


class ErrRemoteBckNotFound(AISError, FileNotFoundError):
    """The remote bucket does not exist, or its backend cannot be reached."""


class ErrBckAlreadyExists(AISError, FileExistsError):
    """The bucket exists already."""


class ErrETLNotFound(AISError):
    """The ETL does not exist."""


class ErrETLAlreadyExists(AISError):
    """The ETL exists already."""


class ErrRangeNotSatisfiable(AISError):
    """The byte range asked for lies outside the object.

    Attributes:
        entry: The entry it is about, as errors name it; "" if the server did not tell.
    """

    entry: str = ""


class Unreadable(AISError):
    """The server cannot read an object to its end: what it sent of it broke off at the same byte twice."""


class AISTimeoutError(AISError, TimeoutError):
    """Connecting, or waiting for the next byte, took too long."""


class AISConnectionError(AISError, ConnectionError):
    """No connection, or it broke, or it ended before the answer did.

    Attributes:
        kind: "refused" (nobody listens), "unreachable" (no way there), "dns" (no such host), "tls" (handshake
            or certificate), "proxy" (the forward proxy said no), "redirect" (one that is not followed),
            "broken" (anything later); "" if not known.
    """

    kind: str = ""


class WireError(AISError, OSError):
    """Bytes that are not what the protocol says, or not what was asked for.

    Attributes:
        layer: "http", "multipart", "metadata", "tar" or "batch": which decoder objects.
        offset: Bytes of that layer before the place, counted from the answer's first body byte; -1 if it has none.
        expected: What should have been there.
        found: What was there instead, a few bytes of it.
        entry: The entry it is about, as `bucket/name[/archpath]` with its index; "" if about none.
    """

    layer: str = ""
    offset: int = -1
    expected: str = ""
    found: str = ""
    entry: str = ""


class LimitError(WireError):
    """More than a limit allows (`aisfast.settings`, `Policy.max_entry`): refused before memory was taken."""


class IncompleteBatchError(AISError):
    """A batch that could not be made whole.

    Attributes:
        requested: Number of entries asked for.
        received: Number of entries verified and handed over.
        missing: Indices of the entries that were not.
        attempts: GetBatch requests sent.
        partial: The `Columns` so far, from `fetch()`; else None.
    """

    requested: int = 0
    received: int = 0
    missing: tuple[int, ...] = ()
    attempts: int = 0
    partial: Any = None
    _rest: Any = None

    def rest(self) -> Any:
        """A `Batch` of the entries that are missing, ready to be sent.

        Raises:
            ValueError: The error was raised again from its text alone (as a DataLoader does): the batch is not known.
        """
        if self._rest is None:
            raise ValueError("this IncompleteBatchError was made from its text alone: it does not know its batch")
        return self._rest


class UnsupportedVersionError(RuntimeError):
    """The installed official SDK is not one that `accelerate()` knows; it was left as it is."""


class InvalidBckProvider(ValueError):
    """The provider is unknown, or wrong for the operation."""

    def __init__(self, provider: object) -> None:
        super().__init__(f"Invalid bucket provider: '{provider}'")


class InvalidURLException(ValueError):
    """Not a URL of the form provider://bucket/object."""

    def __init__(self, url: object) -> None:
        super().__init__(f"Invalid URL: '{url}'. Ensure it follows the format 'provider://bucket/object'.")


class NoTargetError(AISError):
    """The cluster map has no active target."""


# ------------------------------------------------------------------------------------------------ from an error answer

_SECRET = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?i:(?<=bearer )[^\s\"',]+)")
_URI = re.compile(r"(?<![-\w])(ais|aws|s3|gcp|gs|azure|az|oci|oc|ht|hdfs)://((?:[@#][^\s/\"',\]]*/)?[^\s/\"',\]]+)(/[^\s\"',]+)?")
_REMEDIES = {
    401: "check the token: argument token=, AIS_AUTHN_TOKEN or AIS_AUTHN_TOKEN_FILE",
    403: "ask the cluster's administrator for access to this bucket",
    409: "something is changing there: try again in a second",
    429: "the cluster is overloaded: send fewer requests at a time",
    503: "the node is starting or leaving: try again in a few seconds",
}
NO_GATEWAY = "is this endpoint an AIStore gateway?"


def redact(text: str, *secrets: str | None) -> str:
    """`text` without tokens: the ones given, and whatever looks like a JWT or follows "Bearer"."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "<token>")
    return _SECRET.sub("<token>", text)


def hide(error: AISError, secret: str | None) -> None:
    """Blot a token out of an error that quotes what came."""
    for name, value in vars(error).items():
        if isinstance(value, str):
            setattr(error, name, redact(value, secret))
    error.args = (error.message,)


def parse_error_body(text: str) -> dict[str, Any]:
    """The fields of a server's JSON error body (tcode, message, node, ...); `{"message": text}` if it is none."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    return fields if isinstance(fields, dict) and isinstance(fields.get("message"), str) else {"message": text.strip()}


def error_from_answer(status: int, text: str, req: SentRequest, *secrets: str | None) -> AISError:
    """The exception for an error answer.

    Args:
        status: HTTP status, 400 or more.
        text: The body as it came (for HEAD: the `Hdr-Error` header).
        req: What was sent.
        secrets: Tokens that must not appear in the error.
    """
    text = redact(text, *secrets).rstrip() or f"an answer of status {status} without a text"
    fields = parse_error_body(text)
    message = fields["message"]
    uri = _URI.search(message)
    provider, has_object = (uri[1], bool(uri[3] and uri[3] != "/")) if uri else ("", False)
    remedy = _REMEDIES.get(status, "")
    if not remedy and status >= 500:
        remedy = "the node, or something before it, failed: try again; its log may tell why"
    elif not remedy:
        remedy = "the server refuses the request as it stands: mend what it names" if "tcode" in fields else NO_GATEWAY
    if "exceeded soft-errors limit" in message:
        remedy = "too many entries are missing for one buffered answer: ask for fewer at a time, or streaming"
    cls = AISError
    if fields.get("tcode") == "ErrRangeNotSatisfiable" or status == 416:
        cls, remedy = ErrRangeNotSatisfiable, "ask for a range inside the object"
    elif status == 404 and "etl job" in message:
        cls = ErrETLNotFound
    elif status == 404 and uri:
        remote = provider != "ais" or re.match("@[^#]", uri[2])  # not of this cluster's own namespaces, @#name
        cls = ErrObjNotFound if has_object else ErrRemoteBckNotFound if remote else ErrBckNotFound
        what, place = ("name", f"{uri[1]}://{uri[2]}") if has_object else ("bucket", f"{uri[1]}://")
        remedy = f"check the {what} with `aisfast ls {place}`"
    elif status == 409 and req.method == "GET":
        cls = ErrGETConflict
    elif status == 409 and "etl job" in message:
        cls = ErrETLAlreadyExists
    elif status == 409 and uri and not has_object:
        cls, remedy = ErrBckAlreadyExists, "take it as it is with create(exist_ok=True), or choose another name"
    return cls(status, text, req.url, req, remedy=remedy)
