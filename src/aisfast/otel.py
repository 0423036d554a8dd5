"""OpenTelemetry: a span for each batch, with what happened to it as events. Needs the extra `otel`.

    with aisfast.otel.trace():
        train()

A span is a child of what is current where the batch is asked for; where no SDK is configured, it goes nowhere.
Attributes are named by OpenTelemetry's conventions for HTTP clients where they have a name for it.
"""

from __future__ import annotations

from typing import Any

from aisfast.events import Event, Subscription, subscribe
from aisfast.session import origin_of
from aisfast.version import __version__

try:
    from opentelemetry.trace import SpanKind, StatusCode, get_tracer
except ImportError:
    raise ImportError("aisfast.otel needs opentelemetry-api: pip install 'aisfast[otel]'") from None

SPAN = "aisfast.batch"
_AGAIN = ("retried", "resumed")


def trace(tracer_provider: Any = None) -> Subscription:
    """Have a span made of each batch that is begun from now on, until the result is closed.

    A span lasts from `begun` to the batch's last event. Its attributes: `http.request.method`, `server.address` and
    `server.port` (of the endpoint), `http.response.status_code` (of the latest answer), `http.request.resend_count`
    (retries and resumes), `error.type` where it failed, `aisfast.batch.size`, `.entries`, `.payload_bytes`
    and `.outcome` ("whole", "failed", "closed"). All other events of `aisfast.events` are events of the span.

    Args:
        tracer_provider: Of spans; None: OpenTelemetry's global one.
    """
    return subscribe(_Spans(get_tracer("aisfast", __version__, tracer_provider)))


class _Spans:
    """The spans of the calls under way, and how often each has asked again."""

    def __init__(self, tracer: Any) -> None:
        self._tracer = tracer
        self._open: dict[int, tuple[Any, list[str]]] = {}

    def __call__(self, event: Event) -> None:
        at = int(event.time * 1e9)
        if event.kind == "begun":
            attributes = {"http.request.method": "GET", "aisfast.batch.size": event.size}
            span = self._tracer.start_span(SPAN, kind=SpanKind.CLIENT, attributes=attributes, start_time=at)
            self._open[event.call] = span, []
        elif event.call in self._open:
            span, kinds = self._open[event.call]
            if event.kind in ("whole", "failed", "closed"):
                del self._open[event.call]
                self._end(span, event, at)
                return
            if event.kind == "sent" and "sent" not in kinds:
                _, host, port = origin_of(event.url)
                span.set_attributes({"server.address": host, "server.port": port})
            kinds.append(event.kind)
            if event.kind in _AGAIN:
                span.set_attribute("http.request.resend_count", sum(kind in _AGAIN for kind in kinds))
            if event.status:
                span.set_attribute("http.response.status_code", event.status)
            span.add_event(f"aisfast.{event.kind}", _told(event), at)

    def _end(self, span: Any, event: Event, at: int) -> None:
        span.set_attributes(
            {
                "aisfast.batch.entries": event.entries,
                "aisfast.batch.payload_bytes": event.payload_bytes,
                "aisfast.batch.outcome": event.kind,
            }
        )
        if event.kind == "failed":
            span.set_attribute("error.type", event.error)
            span.set_status(StatusCode.ERROR, event.reason)
        span.end(at)


def _told(event: Event) -> dict[str, Any]:
    """The fields of an event that hold something, as attributes."""
    fields = {
        "url.full": event.url,
        "http.response.status_code": event.status,
        "error.type": event.error,
        "aisfast.reason": event.reason,
    }
    return {"aisfast.batch.entries": event.entries, **{name: value for name, value in fields.items() if value}}
