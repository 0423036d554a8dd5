"""The README's table, from what getbatch.py measured.

    python bench/getbatch.py --json bench/results.json      # on a quiet machine
    python bench/readme.py                                  # puts the table between its marks in README.md

A test holds the README against bench/results.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results.json"
BEGIN, END = "<!-- table: bench/readme.py -->\n", "<!-- end of table -->\n"
COLUMNS = {
    "official": "official SDK", "get": "`get()`", "stream": "`stream()`", "fetch": "`fetch()`", "drain": "raw drain",
}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """Markdown: CPU of the client in microseconds per object; the official SDK's as a multiple of that of `get()`."""
    lines = [
        f"| objects | {' | '.join(COLUMNS.values())} | SDK / `get()` |",
        f"| --- |{' ---: |' * (len(COLUMNS) + 1)}",
    ]
    for workload in report["workloads"].values():
        rows, count = workload["alternatives"], workload["count"]
        size = workload["size"]
        name = f"{count:,} x {f'{size >> 20} MiB' if size >= 1 << 20 else f'{size >> 10} KiB'}"
        cells = [number(1e6 * rows[key]["cpu"]["median"] / count) if key in rows else "-" for key in COLUMNS]
        times = number(rows["get"]["official_over_cpu"]["median"]) if "official_over_cpu" in rows["get"] else "-"
        lines.append(f"| {name} | {' | '.join(cells)} | {times}x |")
    environment = report["environment"]
    versions = environment["versions"]
    lines += [
        "",
        f"CPU of the client, microseconds per object, medians of {report['options']['rounds']} rounds, against a "
        f"server that costs nothing (`bench/getbatch.py`). {environment['processor']}, {environment['cores']} cores; "
        f"Python {environment['python'].split()[0]}, aistore {versions['aistore']}, loopback.",
    ]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Two or three figures that mean something."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def with_table(readme: str, report: dict[str, Any]) -> str:
    """The README with the table of this report.

    Raises:
        ValueError: It has no marks.
    """
    before, found, rest = readme.partition(BEGIN)
    _, ends, after = rest.partition(END)
    if not found or not ends:
        raise ValueError(f"README.md has no lines {BEGIN.strip()!r} and {END.strip()!r}")
    return f"{before}{BEGIN}\n{table(report)}\n{END}{after}"


def main() -> None:
    path = ROOT / "README.md"
    made = with_table(path.read_text("utf-8"), json.loads(RESULTS.read_text("utf-8")))
    path.write_text(made, "utf-8")


if __name__ == "__main__":
    main()
