"""The README's table is the one that the committed figures give."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("bench_readme", ROOT / "bench" / "readme.py")
assert SPEC is not None
assert SPEC.loader is not None
readme = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(readme)


def row(cpu: float, ratio: float) -> dict[str, Any]:
    return {"cpu": {"min": cpu / 2, "median": cpu}, "official_over_cpu": {"median": ratio}}


REPORT = {
    "environment": {
        "processor": "A Processor", "cores": 4, "python": "3.12.1 (main)", "versions": {"aistore": "2.0.0"},
    },
    "options": {"rounds": 9},
    "workloads": {
        "1k": {
            "count": 10_000, "size": 1024,
            "alternatives": {"official": row(0.5, 1), "get": row(0.01, 50), "stream": row(0.0084, 59.5)},
        },
        "1m": {"count": 300, "size": 1 << 20, "alternatives": {"official": row(0.3, 1), "get": row(0.06, 5)}},
    },
}  # fmt: skip


def test_table() -> None:
    lines = readme.table(REPORT).splitlines()
    assert lines[2:4] == [
        "| 10,000 x 1 KiB | 50.0 | 1.00 | 0.84 | - | - | 50.0x |",
        "| 300 x 1 MiB | 1000 | 200 | - | - | - | 5.00x |",
    ]
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert "A Processor, 4 cores; Python 3.12.1, aistore 2.0.0" in lines[-1]


def test_it_takes_the_place_of_the_one_before() -> None:
    text = f"above\n{readme.BEGIN}old\n{readme.END}below\n"
    made = readme.with_table(text, REPORT)
    assert "old" not in made
    assert made.startswith("above\n")
    assert made.endswith("below\n")
    assert readme.with_table(made, REPORT) == made
    with pytest.raises(ValueError, match="has no lines"):
        readme.with_table("nothing", REPORT)


def test_the_readme_has_the_table_of_the_committed_figures() -> None:
    if not readme.RESULTS.exists():
        pytest.skip("bench/results.json is not there")
    text = (ROOT / "README.md").read_text("utf-8")
    assert readme.with_table(text, json.loads(readme.RESULTS.read_text("utf-8"))) == text
