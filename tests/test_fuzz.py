"""The fuzzer's targets (`tests/fuzz`) on their corpus, as it is and a little mutated: seeded, so the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
FILES = {target: sorted((CORPUS / target).iterdir()) for target in TARGETS}
TRIES = {"head": 10_000, "chunked": 10_000, "multipart": 5000, "tar": 5000, "delivery": 1500}  # a second at most
BITES = [b"", b"\0", b"\r\n", b"\xff" * 8, b"0", b"7" * 12, b"\0" * 512, b'"', b"[" * 40, b"__404__/"]


def mutants(draw: random.Random, files: list[bytes], tries: int) -> Iterator[bytes]:
    """Bytes changed, cut out, put in, doubled, taken from another file."""
    for _ in range(tries):
        data = bytearray(draw.choice(files))
        for _ in range(draw.choice((1, 1, 2, 5))):
            at = draw.randrange(len(data) + 1)
            stop = min(len(data), at + draw.choice((0, 1, 1, 8, 512)))
            kind = draw.randrange(4)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            elif kind == 1:
                data[at:stop] = draw.choice(BITES)
            elif kind == 2:
                data[at:at] = data[at:stop]
            else:
                other = draw.choice(files)
                start = draw.randrange(len(other) + 1)
                data[at:stop] = other[start : start + stop - at]
        yield bytes(data)


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target):
    assert len(FILES[target]) >= 10
    for path in FILES[target]:
        try:
            TARGETS[target](path.read_bytes())
        except BaseException as error:
            raise AssertionError(f"{path}: {error!r}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_mutants(target):
    draw = random.Random(target)
    for data in mutants(draw, [path.read_bytes() for path in FILES[target]], TRIES[target]):
        try:
            TARGETS[target](data)
        except BaseException as error:
            raise AssertionError(f"{target}: {data!r}: {error!r}") from error
