"""Draws docs/pictures/dashboard.svg from the dashboard in template.yaml: `python3 docs/pictures/dashboard.py`.

Where each widget is and what it shows, by the names in the template. No data: those come from an account.
Standard library only.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE.parent.parent / "template.yaml"

CELL, ROW, GAP, TOP = 54, 27, 6, 46
"""A dashboard has 24 columns. Pixels of a column, of a row, between widgets, and above the first."""

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")

STYLE = """
  text { font-family: 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1f2937 }
  .title { font-size: 13.5px; font-weight: 600 }
  .label { font-size: 12px }
  .from { font-size: 10.5px; fill: #64748b }
  .query { font-size: 10.5px; font-family: Consolas, Menlo, 'DejaVu Sans Mono', monospace; fill: #64748b }
  .widget { fill: #ffffff; stroke: #cbd5e1 }
"""


def widgets(template: str) -> list[dict[str, Any]]:
    """The widgets of the template's dashboard; a reference is left as its name."""
    (body,) = re.findall(r"DashboardBody: !Sub \|\n((?: {8}.*\n)+)", template)
    return list(json.loads(re.sub(r"\$\{(?:AWS::)?(\w+)(?:\.\w+)?\}", r"\1", body))["widgets"])


def series(properties: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The label of each line in a graph, the metric and the statistic that it is of, and its colour."""
    before: list[str] = []
    for number, metric in enumerate(properties.get("metrics", [])):
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        colour = options.get("color", COLOURS[number % len(COLOURS)])
        if "expression" in options:
            found = re.search(r'MetricName="(\w+)"', options["expression"])
            yield options.get("label", "one for each status"), found[1] if found else "expression", colour
            continue
        words = [word for word in metric if isinstance(word, str)]
        before = [*before[: len(before) - len(words) + 1], *words[1:]] if words[0] == "..." else words
        yield options["label"], f"{before[1]}, {options.get('stat') or properties['stat']}", colour


def draw_widget(widget: dict[str, Any]) -> Iterator[str]:
    """The lines of SVG for one widget."""
    x, y = widget["x"] * CELL + GAP, widget["y"] * ROW + TOP
    width, height = widget["width"] * CELL - GAP, widget["height"] * ROW - GAP
    properties = widget["properties"]
    yield f'<rect class="widget" x="{x}" y="{y}" width="{width}" height="{height}" rx="6"/>'
    title, *rest = properties.get("title", properties.get("markdown", "").lstrip("# ")).split("\n")
    yield f'<text class="title" x="{x + 12}" y="{y + 21}">{escape(title)}</text>'
    y += 42
    for line in rest:
        yield f'<text class="from" x="{x + 12}" y="{y - 4}">{escape(line)}</text>'
    for label, source, colour in series(properties):
        yield f'<rect x="{x + 12}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
        yield f'<text class="label" x="{x + 28}" y="{y}">{escape(label)}</text>'
        yield f'<text class="from" text-anchor="end" x="{x + width - 12}" y="{y}">{escape(source)}</text>'
        y += 20
    for line in textwrap.wrap(properties.get("query", ""), (width - 24) // 7, break_on_hyphens=False):
        yield f'<text class="query" x="{x + 12}" y="{y}">{escape(line)}</text>'
        y += 15


def draw(template: str) -> str:
    """The picture as SVG text."""
    shown = widgets(template)
    width = 24 * CELL + GAP
    height = max(widget["y"] + widget["height"] for widget in shown) * ROW + TOP + GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        'aria-label="The dashboard of the stack: its widgets and what each shows">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" rx="12" fill="#f1f5f9"/>',
        '<text class="title" x="12" y="28">The dashboard: what it shows, and of which metric (no data here)</text>',
        *(line for widget in shown for line in draw_widget(widget)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "dashboard.svg").write_text(draw(TEMPLATE.read_text("utf-8")), encoding="utf-8")
