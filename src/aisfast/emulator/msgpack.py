"""MessagePack, as much of it as list-objects answers need: maps, arrays, strings, integers from 0 on."""

from __future__ import annotations

import struct
from typing import Any


class Signed(int):
    """Not negative, but of a signed type on the other side, which shows in its encoding."""


def pack(value: Any) -> bytes:
    out: list[bytes] = []
    _pack(value, out)
    return b"".join(out)


def _pack(value: Any, out: list[bytes]) -> None:
    if isinstance(value, str):
        raw = value.encode("utf-8", "replace")
        out.append(_head(len(raw), 0xA0, 32, ((0xD9, ">B"), (0xDA, ">H"), (0xDB, ">I"))) + raw)
    elif isinstance(value, Signed):
        out.append(_head(value, 0, 128, ((0xD1, ">h"), (0xD2, ">i"), (0xD3, ">q"))))
    elif isinstance(value, int):
        out.append(_head(value, 0, 128, ((0xCC, ">B"), (0xCD, ">H"), (0xCE, ">I"), (0xCF, ">Q"))))
    elif isinstance(value, dict):
        out.append(_head(len(value), 0x80, 16, ((0xDE, ">H"), (0xDF, ">I"))))
        for key, item in value.items():
            _pack(key, out)
            _pack(item, out)
    else:
        out.append(_head(len(value), 0x90, 16, ((0xDC, ">H"), (0xDD, ">I"))))
        for item in value:
            _pack(item, out)


def _head(number: int, fixed: int, below: int, wider: tuple[tuple[int, str], ...]) -> bytes:
    """The shortest form of a length or an integer: one byte below a limit, else a type byte and a number."""
    if number < below:
        return bytes([fixed | number])
    for kind, form in wider:
        if number < 1 << 8 * struct.calcsize(form) - form[1].islower():
            return bytes([kind]) + struct.pack(form, number)
    raise ValueError(f"{number} is too large for MessagePack")
