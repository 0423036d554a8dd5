"""A report as one HTML file that needs nothing else: plots are SVG in it, styles too; there are no scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

from aisfast.bench import report as words
from aisfast.bench.ways import PARTS

Report = dict[str, Any]

WIDE = 400  # units of a plot; as many CSS pixels at most, so that its text stays readable on a telephone
LABEL = 96  # units for the names of ways
ROW = 30
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#888888")  # told apart by most eyes

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5c6675; --line: #d5dae1; --paper: #ffffff; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa4b2; --line: #37404d; --paper: #14181e; --card: #1b2129 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 64rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p.soft, figcaption { color: var(--soft); font-size: .875rem; margin: .25rem 0 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
figure { margin: 0; padding: .75rem; background: var(--card); border: 1px solid var(--line); border-radius: .5rem }
figure h2 { margin: 0 0 .5rem } figure svg { width: 100%; max-width: 440px; height: auto; display: block }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif } svg .soft { fill: var(--soft); font-size: 12px }
svg .grid { stroke: var(--line) }
.table { overflow-x: auto } table { border-collapse: collapse; font-size: .875rem; white-space: nowrap }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left } li { margin: .3rem 0 }
"""


def page(report: Report) -> str:
    """The file's text."""
    ways: Report = report["ways"]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(ways)}
    cpu = {name: row["cpu_us_per_object"]["median"] for name, row in ways.items()}
    rate = {name: row["objects_per_s"] for name, row in ways.items()}
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>aisfast bench</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>aisfast bench</h1>",
            f"<p>{escape(words.title(report))}</p>",
            f'<p class="soft">{escape(words.head(report))}. {escape(report["environment"]["time"])}</p>',
            '<div class="plots">',
            _figure("CPU per object", "Microseconds of the client; less is better.", _bars(cpu, colours, "{:.1f}")),
            _figure("Objects a second", "As fast as this server gives them.", _bars(rate, colours, "{:,.0f}")),
            _figure("Latency of a batch", "Share of batches that took no longer.", _latencies(ways, colours)),
            _figure("Where the time goes", "Shares of a batch's time, and its milliseconds; medians.", _splits(ways)),
            "</div>",
            _table("Costs", words.COSTS, words.costs(report)),
            _table("What happened", words.EVENTS, words.events(report)),
            _table("Where the time goes", *words.split(report)),
            "<h2>What to keep in mind</h2>\n<ul>",
            *(f"<li>{escape(f'{name} is left out: {why}.')}</li>" for name, why in report["left_out"].items()),
            *(f"<li>{escape(note)}</li>" for note in report["notes"]),
            "</ul>\n</body>\n</html>\n",
        ]
    )


def _figure(title: str, caption: str, plot: str) -> str:
    return f"<figure><h2>{escape(title)}</h2>{plot}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(title: str, names: Iterable[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<h2>{escape(title)}</h2>\n<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _svg(height: float, label: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDE} {height:g}" role="img" aria-label="{escape(label)}">' + "".join(parts) + "</svg>"
    )


def _name(row: int, name: str) -> str:
    return f'<text x="0" y="{ROW * row + 19}">{escape(name)}</text>'


def _bar(x: float, row: int, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{ROW * row + 5}" width="{width:.1f}" height="{ROW - 10}" fill="{colour}"/>'


def _bars(values: dict[str, float], colours: dict[str, str], form: str) -> str:
    """A bar for each way."""
    room = WIDE - LABEL - 64
    most = max([*values.values(), 1e-9])
    parts = []
    for i, (name, value) in enumerate(values.items()):
        width = max(1.0, room * value / most)
        parts += [
            _name(i, name),
            _bar(LABEL, i, width, colours[name]),
            f'<text x="{LABEL + width + 6:.1f}" y="{ROW * i + 19}">{form.format(value)}</text>',
        ]
    return _svg(ROW * len(values), "bars", parts)


def _latencies(ways: Report, colours: dict[str, str]) -> str:
    """Percentiles against time, both on scales that show what is rare."""
    rows = {name: row["latency"] for name, row in ways.items() if row["latency"]}
    if not rows:
        return _svg(ROW, "no latencies", ['<text x="0" y="19">nothing was measured</text>'])
    left, right, top, height = 44, 12, 8, 210
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
    found = [1e3 * row[key] for row in rows.values() for key in shares]
    low, high = math.floor(math.log10(max(min(found), 1e-3))), math.ceil(math.log10(max(*found, 1.1e-3)))

    def x(ms: float) -> float:
        return left + (WIDE - left - right) * (math.log10(max(ms, 1e-3)) - low) / max(1, high - low)

    def y(share: float) -> float:
        return top + height * (1 - (-math.log10(1 - share) - 0.3) / 2.7)

    parts = []
    for key, share in shares.items():
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDE - right}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        parts.append(f'<text class="soft" x="0" y="{y(share) + 4:.1f}">{key}</text>')
    for power in range(low, high + 1):
        at = x(10.0**power)
        anchor = "end" if power == high else "middle"
        place = f'x="{at:.1f}" y="{top + height + 18}" text-anchor="{anchor}"'
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{top + height}"/>')
        parts.append(f'<text class="soft" {place}>{10.0**power:g} ms</text>')
    for name, row in rows.items():
        points = " ".join(f"{x(1e3 * row[key]):.1f},{y(share):.1f}" for key, share in shares.items())
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2.5"/>')
    bottom = _legend({name: colours[name] for name in rows}, top + height + 30, parts)
    return _svg(bottom, "latency percentiles", parts)


def _splits(ways: Report) -> str:
    """A bar for each way: what share of its time each part is, and how long it was."""
    rows = {name: row["split"] for name, row in ways.items() if row["split"]}
    if not rows:
        return _svg(ROW, "no parts", ['<text x="0" y="19">none of these ways tells</text>'])
    colours = dict(zip(PARTS, COLOURS, strict=True))
    room = WIDE - LABEL - 64
    parts = []
    for i, (name, row) in enumerate(rows.items()):
        parts.append(_name(i, name))
        at = float(LABEL)
        for part, seconds in row.items():
            width = room * seconds / sum(row.values())
            parts.append(_bar(at, i, width, colours[part]))
            at += width
        parts.append(f'<text x="{at + 6:.1f}" y="{ROW * i + 19}">{1e3 * sum(row.values()):.2f}</text>')
    bottom = _legend(colours, ROW * len(rows) + 8, parts)
    return _svg(bottom, "parts of the time", parts)


def _legend(colours: dict[str, str], top: float, parts: list[str]) -> float:
    """Names beside their colours, three in a row, added to `parts`: where they end."""
    for i, (name, colour) in enumerate(colours.items()):
        x, y = (i % 3) * WIDE / 3, top + 20 * (i // 3)
        parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18:.1f}" y="{y + 11:.1f}">{escape(name)}</text>')
    return top + 20 * math.ceil(len(colours) / 3)
