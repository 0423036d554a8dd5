"""A report as text for a terminal, and what is to be kept in mind about its figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aisfast.bench.ways import DRAIN, OFFICIAL, PARTS, PIPELINE

BUSY = 0.7  # load by core from which figures are not to be trusted
PERCENTILE = 1000  # batches without which p99.9 is just the slowest

Report = dict[str, Any]


def notes(report: Report) -> list[str]:
    """What to keep in mind."""
    return list(_notes(report["environment"], report["options"], report["objects"], report["ways"]))


def _notes(environment: Report, options: Report, objects: Report, ways: Report) -> Iterator[str]:
    if environment["emulator"]:
        yield (
            "This is the emulator: a server written in Python, slower than a real target, on the same cores as its "
            "clients. It sets the pace, so objects/s and latency say little about a cluster; CPU of the client is what "
            "counts here. For figures of your own: --endpoint and --bucket."
        )
    if environment["targets"] > 1:
        yield (
            f"{environment['targets']} targets: each ends a streaming answer some 100 ms late. The official SDK and "
            "the raw drain wait for that, aisfast does not: most of the difference in latency of small batches is this."
        )
    if objects["median"] >= 1 << 20:
        yield "Objects of a MiB and more: the kernel's copy is most of the cost, whoever decodes. Little is gained."
    if options["batch"] == 1:
        yield "One object in a batch: a GetBatch request costs what a GET costs, or more. Nothing is gained by it."
    yield (
        "Nothing is gained where one large object is got, or where the server is slower than any client: then every "
        "way waits for it. CPU per object still tells what is left of the machine for other work."
    )
    if environment["load"] is not None and environment["load"] > BUSY * (environment["cores"] or 1):
        yield (
            f"The machine was busy before (load {environment['load']} on {environment['cores']} cores): trust ratios, "
            "not figures."
        )
    if options["rate"]:
        yield f"Open loop, {options['rate']:g} batches a second: latency counts from when a batch should have started."
    late = {name: row["unserved"] for name, row in ways.items() if row["unserved"]}
    if late:
        told = ", ".join(f"{name} ({count:,})" for name, count in late.items())
        yield f"Overloaded at this rate, batches not even started: {told}. Their latencies mean nothing."
    thin = [name for name, row in ways.items() if row["batches"] < PERCENTILE]
    if thin:
        yield f"Fewer than {PERCENTILE:,} batches, so that p99.9 is little else than the slowest: {', '.join(thin)}."
    if PIPELINE in ways:
        yield "pipeline(): a batch's time counts from when it is taken, which is many batches before its turn comes."
    if DRAIN in ways:
        yield (
            "Raw drain: the request sent, the answer received by a plain loop, in Python, and forgotten. No objects "
            "come of it: it is the floor of reading what comes as it comes. aisfast lets bytes gather in the kernel, "
            "and may take less."
        )


def title(report: Report) -> str:
    """What was measured."""
    options, objects, environment = report["options"], report["objects"], report["environment"]
    where = "the emulator" if environment["emulator"] else "a cluster"
    return (
        f"batches of {options['batch']} from {objects['count']:,} objects of {amount(objects['median'])}, {where} with "
        f"{environment['targets']} target{'s' if environment['targets'] > 1 else ''}, {options['procs']} "
        f"process{'es' if options['procs'] > 1 else ''}"
    )


def head(report: Report) -> str:
    """What it was measured on."""
    environment = report["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    processor = environment["processor"] or environment["machine"]
    load = "" if environment["load"] is None else f", load {environment['load']}"
    return f"{processor}, {environment['cores']} cores{load}, {environment['system']}; {versions}"


def amount(size: float) -> str:
    """Bytes, readable."""
    if size >= 1 << 20:
        return f"{size / (1 << 20):.3g} MiB"
    return f"{size / 1024:.3g} KiB" if size >= 1024 else f"{size:.0f} B"


def ratio(report: Report, name: str) -> float | None:
    """CPU per object of the official SDK over that of this way."""
    ways = report["ways"]
    if OFFICIAL not in ways or not ways[name]["cpu_us_per_object"]["median"]:
        return None
    found: float = ways[OFFICIAL]["cpu_us_per_object"]["median"] / ways[name]["cpu_us_per_object"]["median"]
    return found


COSTS = ("way", "objects/s", "MB/s", "CPU us/obj", "(min..max)", "SDK/it", "p50 ms", "p90", "p99", "p99.9", "max")
EVENTS = ("way", "batches", "first ms", "429s", "resumes", "retries", "tail KB", "connections", "reads/batch")


def costs(report: Report) -> list[list[str]]:
    """A row of text for each way, as in COSTS."""
    rows = []
    for name, row in report["ways"].items():
        cpu, latency, times = row["cpu_us_per_object"], row["latency"], ratio(report, name)
        rows.append(
            [
                name,
                f"{row['objects_per_s']:,.0f}",
                f"{row['MB_per_s']:,.1f}" if row["bytes"] else "-",
                f"{cpu['median']:.1f}",
                f"{cpu['min']:.1f}..{cpu['max']:.1f}",
                f"{times:.1f}x" if times else "-",
                *(f"{1e3 * latency[key]:.2f}" if latency else "-" for key in ("p50", "p90", "p99", "p99.9", "max")),
            ]
        )
    return rows


def events(report: Report) -> list[list[str]]:
    """A row of text for each way, as in EVENTS."""
    rows = []
    for name, row in report["ways"].items():
        stats, first = row["stats"], row["first_item"]
        rows.append(
            [
                name,
                f"{row['batches']:,}",
                f"{1e3 * first['p50']:.2f}" if first else "-",
                *(f"{stats[key]:,}" if stats else "-" for key in ("throttled", "resumes", "retries")),
                f"{stats['tail_bytes'] / 1e3:,.1f}" if stats else "-",
                f"{stats['connections']:,}" if stats else "-",
                f"{stats['reads'] / row['batches']:.1f}" if stats and stats["requests"] else "-",
            ]
        )
    return rows


def split(report: Report) -> tuple[list[str], list[list[str]]]:
    """A head, and a row of text for each way whose time was taken apart."""
    rows = [
        [name, *(f"{1e3 * row['split'][part]:.3f}" if part in row["split"] else "-" for part in PARTS)]
        for name, row in report["ways"].items()
        if row["split"]
    ]
    return ["way, ms", *PARTS], rows


def text(report: Report) -> str:
    """All of it."""
    parts = [
        title(report),
        head(report),
        "",
        *_table(COSTS, costs(report)),
        "",
        *_table(EVENTS, events(report)),
        "",
        *_table(*split(report)),
        "",
        *(f"{name} is left out: {why}." for name, why in report["left_out"].items()),
        *report["notes"],
    ]
    return "\n".join(parts)


def _table(names: Iterable[str], rows: list[list[str]]) -> list[str]:
    whole = [list(names), *rows]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]

    def line(row: list[str]) -> str:
        cells = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([f"{row[0]:<{widths[0]}}", *cells])

    return [line(row) for row in whole]
