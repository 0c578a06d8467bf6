"""Writes the figures of the last run into docs/performance.md, and draws its pictures.

make bench JSON=bench/figures.json; python3 bench/page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
FIGURES = HERE / "figures.json"
PAGE = HERE.parent / "docs" / "performance.md"
PICTURE = HERE.parent / "docs" / "pictures" / "performance.svg"
BEGIN, END = "<!-- figures: bench/page.py writes from here", "<!-- to here -->"

WIDTH, LEFT, ROW = 1080, 470, 26


def number(value: float) -> str:
    """A figure as people read it."""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"


def table(told: dict[str, Any]) -> str:
    """All figures as Markdown, after a line that says where they are from."""
    lines = [f"Python {told['python']} on {told['machine']}; {told['method']}.", ""]
    lines += ["| what | figure | bar | holds | from |", "|---|---|---|---|---|"]
    for figure in told["figures"]:
        verdict = {None: "", True: "yes", False: "**no**"}[figure["holds"]]
        bar = "" if figure["bar"] is None else f"≤ {number(figure['bar'])}"
        value = f"{number(figure['value'])} {figure['unit']}"
        lines.append(f"| {figure['what']} | {value} | {bar} | {verdict} | {figure['beside']} |")
    return "\n".join(lines)


def picture(figures: list[dict[str, Any]]) -> str:
    """Every figure that has a bar, as a part of its bar: the line at the right is as far as it may go."""
    shown = [figure for figure in figures if figure["bar"]]
    scale = 360.0
    height = 70 + ROW * len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="20" y="28" font-size="17" font-weight="bold" fill="#1b2733">Each figure as a share of its bar</text>',
    ]
    for place, figure in enumerate(shown):
        y = 48 + ROW * place
        share = figure["value"] / figure["bar"]
        colour = "#2b7a5b" if figure["holds"] else "#b5462f"
        long = max(1.5, min(share, 1.3) * scale)
        label = f"{number(figure['value'])} of {number(figure['bar'])} {figure['unit']}"
        at = LEFT + max(long, scale if share > 0.6 else 0) + 8
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end" fill="#1b2733">{escape(figure["what"])}</text>',
            f'<rect x="{LEFT}" y="{y + 2}" width="{long:.1f}" height="16" rx="2" fill="{colour}"/>',
            f'<text x="{at:.1f}" y="{y + 14}" fill="#44525f">{escape(label)}</text>',
        ]
    end = 48 + ROW * len(shown)
    parts.append(f'<path d="M{LEFT + scale} 42V{end}" stroke="#1b2733" stroke-dasharray="4 3"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Read the figures, write the page and the picture."""
    told = json.loads(FIGURES.read_text("utf-8"))
    PICTURE.write_text(picture(told["figures"]), "utf-8")
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    first_line, _, rest = rest.partition("\n")
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{first_line}\n\n{table(told)}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
