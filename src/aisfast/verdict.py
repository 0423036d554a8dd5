"""What an error answer to a GetBatch request means: its status tells little, and no 400 is certain to be our fault."""

from __future__ import annotations

from enum import Enum

from aisfast.errors import AISError, ErrBckNotFound, ErrRemoteBckNotFound, parse_error_body


class Verdict(Enum):
    """What to make of an error answer."""

    FINAL = "the request's own fault"
    TRANSIENT = "ask again"
    AT_ONCE = "ask again at once: the redirect was used before, or came too late"
    CONFLICT = "ask again when the cluster map has settled"
    SUSPECT = "ask again; the same once more is an entry's fault"
    BUDGET = "too many misses for one buffered answer"
    MISSING = "an entry does not exist"
    RANGE = "an entry's range lies outside its object"
    UNREADABLE = "an entry's archive is damaged, or none"


# how a target complains of an archive; and of something that may be a damaged object, or one in the middle of a change
ARCHIVE_TEXTS = ("archive/", "failed to open ", "flate:", "gzip:", "lz4:", "zip:")
OBJECT_TEXTS = ("archive/tar: missed writing", "errsize ", "unexpected EOF")


def verdict_of(error: AISError) -> Verdict:
    """The verdict on an error answer."""
    status = error.status_code
    fields = parse_error_body(error.message)
    text, tcode = fields["message"], fields.get("tcode")
    if status in (408, 429) or status >= 500:
        return Verdict.TRANSIENT
    if status == 409:
        return Verdict.CONFLICT
    if status == 404:
        if "prep-rx not done?" in text or "not active" in text:
            return Verdict.AT_ONCE
        if isinstance(error, ErrBckNotFound | ErrRemoteBckNotFound):
            return Verdict.FINAL
        return Verdict.MISSING if "does not exist" in text or "doesn't exist" in text else Verdict.FINAL
    if status != 400:
        return Verdict.FINAL
    node = str(fields.get("node", ""))
    if "exceeded soft-errors limit" in text:
        return Verdict.BUDGET
    if tcode == "ErrRangeNotSatisfiable" or "not satisfiable range" in text:
        # the gateway refuses what no object can satisfy
        return Verdict.FINAL if node.startswith("p[") else Verdict.RANGE
    own = node.startswith("t[") and fields.get("method") == "GET"  # of an object that the target itself has read
    if own and (tcode == "ErrLmetaCorrupted" or text.startswith(OBJECT_TEXTS)):
        return Verdict.SUSPECT
    if text.startswith(ARCHIVE_TEXTS) or "unsupported file format" in text:
        return Verdict.UNREADABLE
    if tcode == "errUnknownMime" or "unknown mime type" in text:
        return Verdict.FINAL
    if node.startswith("p["):
        # written before it asked a target?
        asked = fields.get("method") != "GET" or text.startswith('Post "') or tcode in ("Error", "ErrNoNodes")
        return Verdict.TRANSIENT if asked else Verdict.FINAL
    return Verdict.TRANSIENT  # whatever a target says of itself, or why a job was stopped
