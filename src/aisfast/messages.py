"""How commands say that something failed: one printable line (what, where, the remedy) and an exit code."""

from __future__ import annotations

from aisfast.errors import AISError, parse_error_body

FAILED = 1  # exit code


def printable(text: str) -> str:
    """`text` in one line that a terminal only shows: control characters and what is no text as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def what_failed(error: BaseException) -> str:
    """What happened and where, in one line."""
    if isinstance(error, AISError):
        text = error.message
        if error.status_code:
            text = parse_error_body(error.message)["message"] or "an error without a text"
            text = f"{text} (status {error.status_code} from {error.req_url.partition('?')[0]})"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'output'}: {error.strerror}"
    else:
        text = str(error)
    return " ".join(text.split()) or type(error).__name__


def explain(error: BaseException) -> str:
    """What happened, where, and the remedy, in one line."""
    remedy = getattr(error, "remedy", "")
    return f"{what_failed(error)}; {remedy}" if remedy else what_failed(error)
