"""An answer in memory, delivered without a socket. Light to import: under an instruction counter all is slow."""

from __future__ import annotations

from aisfast._decode import Framing, parse_head
from aisfast._delivery import Delivery, Form
from aisfast._request import Entries

READ = 256 << 10


class Memory:
    """Stands where a connection stands: each `pump` is one read of at most 256 KiB."""

    def __init__(self, raw: bytes, entries: Entries, form: Form) -> None:
        self.delivery = Delivery(
            entries, form, streaming=True, only_obj_name=False, missing_raises=True, max_entry=1 << 40,
        )  # fmt: skip
        head = parse_head(raw[: raw.index(b"\r\n\r\n") + 4])
        assert head is not None
        self.delivery.begin(True, self.delivery.count, 0.0)
        self.delivery.on_head(head, Framing.chunked(), "memory", 0.0)
        self.raw, self.at = memoryview(raw), head.size

    def pump(self, returned: bool = False) -> None:
        with self.delivery.get_buffer() as lent:
            n = min(len(lent), READ, len(self.raw) - self.at)
            lent[:n] = self.raw[self.at : self.at + n]
        self.at += n
        self.delivery.commit(n, 0.0)

    def finish(self) -> None:
        self.delivery.leftover()

    def close(self, error: BaseException | None = None) -> None:
        self.delivery.leftover()
