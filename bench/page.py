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


def table(run: dict[str, Any]) -> str:
    """All figures as Markdown, after a line that says where they are from."""
    lines = [f"Python {run['python']} on {run['machine']}; {run['method']}.", ""]
    lines += ["| what | figure | target | met | details |", "|---|---|---|---|---|"]
    for figure in run["figures"]:
        verdict = {None: "", True: "yes", False: "**no**"}[figure["met"]]
        target = "" if figure["target"] is None else f"≤ {number(figure['target'])}"
        value = f"{number(figure['value'])} {figure['unit']}"
        lines.append(f"| {figure['what']} | {value} | {target} | {verdict} | {figure['details']} |")
    return "\n".join(lines)


def picture(figures: list[dict[str, Any]]) -> str:
    """Every figure that has a target, as a share of it: the dashed line is the target."""
    shown = [figure for figure in figures if figure["target"]]
    scale = 360.0
    height = 70 + ROW * len(shown)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text x="20" y="28" font-size="17" font-weight="bold" fill="#1b2733">Each figure as a share of its target</text>',
    ]
    for place, figure in enumerate(shown):
        y = 48 + ROW * place
        share = figure["value"] / figure["target"]
        colour = "#2b7a5b" if figure["met"] else "#b5462f"
        long = max(1.5, min(share, 1.3) * scale)
        label = f"{number(figure['value'])} of {number(figure['target'])} {figure['unit']}"
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
    run = json.loads(FIGURES.read_text("utf-8"))
    PICTURE.write_text(picture(run["figures"]), "utf-8")
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    first_line, _, rest = rest.partition("\n")
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}{first_line}\n\n{table(run)}\n\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
