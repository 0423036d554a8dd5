"""Which object an entry names, where it is asked for by a call of its own."""

from __future__ import annotations

from typing import Any, cast

import pytest

from aisfast._request import Entries
from aisfast.singles import Singles


@pytest.mark.parametrize(
    ("entry", "namespace", "path", "params"),
    [
        (("o", None, None, None), None, "own/o", {"provider": "aws"}),
        (("o", None, None, None), "@#ns", "own/o", {"provider": "aws", "namespace": "@#ns"}),
        (("d/é?", "b", "gcp", "m"), "@#ns", "b/d/%C3%A9%3F", {"provider": "gcp"}),
        (("o", "b", None, None, None, 0, 0, "ais/@#/u/"), None, "u/o", {"provider": "ais"}),
        (("o", None, None, None, None, 0, 0, "ais/@#ns/u/"), None, "u/o", {"provider": "ais", "namespace": "@#ns"}),
        (("o", None, None, None, None, 0, 0, "nonsense"), None, "/o", {"provider": "nonsense", "namespace": ""}),
    ],
)
def test_place(entry: tuple[Any, ...], namespace: str | None, path: str, params: dict[str, str]) -> None:
    entries = Entries()
    entries.bucket, entries.provider = "own", "aws"
    entries.append(*entry)
    singles = Singles(cast("Any", None), entries, namespace, 1)
    assert singles._place(0) == (f"objects/{path}", params, entry[3])
