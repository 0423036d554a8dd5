"""Failures as the server tells them: a status, a text, and the type name that some carry (`tcode`)."""

from __future__ import annotations

import json


class Failure(Exception):
    """An answer that is an error.

    Args:
        status: HTTP status.
        message: The server's text.
        tcode: Name of the server's error type, or "".
        headers: Further headers of the answer.
    """

    def __init__(self, status: int, message: str, tcode: str = "", headers: tuple[tuple[str, str], ...] = ()):
        super().__init__(message)
        self.status = status
        self.message = message
        self.tcode = tcode
        self.headers = headers
        self._place: tuple[str, str, str, str] | None = None

    def on_leg(self, method: str, path: str, caller: str, node: str) -> Failure:
        """The same, but arisen between two nodes, in a request that `caller` made to `node`."""
        self._place = method, path, caller, node
        return self

    def json(self, node: str, method: str, path: str, remote: str) -> str:
        """The error document, one line without its newline."""
        method, path, caller, node = self._place or (method, path, "", node)
        document: dict[str, str | int] = {"tcode": self.tcode} if self.tcode else {}
        document.update(
            message=self.message,
            method=method,
            url_path=path,
            remote_addr=remote,
            caller=caller,
            node=node,
            status=self.status,
        )
        return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class NotFound(Failure):
    """Something that is not there: the one kind of error that continue-on-error makes soft."""

    def __init__(self, what: str):
        super().__init__(404, f"{what} does not exist", "ErrNotFound")


class BucketNotFound(Failure):
    def __init__(self, provider: str, uri: str):
        if provider == "ais":
            super().__init__(404, f'bucket "{uri}" does not exist', "ErrBckNotFound")
        else:
            super().__init__(404, f'{provider} bucket "{uri}" does not exist', "ErrRemoteBckNotFound")


class UnknownMime(Failure):
    def __init__(self, mime: str):
        super().__init__(400, f"unknown mime type {quote(mime)}", "errUnknownMime")


class RangeNotSatisfiable(Failure):
    def __init__(self, what: str, size: int | None = None, status: int = 400):
        known = "" if size is None else f"size={size}: "
        super().__init__(status, f"{known}not satisfiable range [{what}]", "ErrRangeNotSatisfiable")


def quote(text: str) -> str:
    """A quoted string as Go's %q prints it."""
    return json.dumps(text, ensure_ascii=False)
