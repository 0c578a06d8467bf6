"""Draws docs/pictures/flow.svg, the picture in the README: `python3 docs/pictures/draw.py`.

Standard library only. Change the lists below, run it, look at the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1180, 560


class Box(NamedTuple):
    """A part of the system: left, top, width, title, one or two lines below it, and a style class."""

    x: int
    y: int
    width: int
    title: str
    lines: tuple[str, ...]
    style: str

    @property
    def height(self) -> int:
        return 38 + 17 * len(self.lines)

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


class Arrow(NamedTuple):
    """A path through points, with a number for the order of the story and a label at a point."""

    points: tuple[tuple[float, float], ...]
    number: str
    label: str
    at: tuple[float, float]
    dashed: bool = False


ZONES = [
    (20, 60, 190, 480, "people"),
    (240, 60, 470, 480, "the stack, in your account"),
    (740, 60, 420, 480, "SageMaker notebook instance"),
]

BOXES = [
    Box(40, 100, 150, "A person tags", ("ssh = ngrok", "ssh = bastion"), "person"),
    Box(40, 430, 150, "… and connects", ("ssh my-notebook", "VS Code, scp, git …"), "person"),
    Box(265, 100, 150, "EventBridge", ("tag, state, script;", "a sweep as well"), "plain"),
    Box(500, 100, 180, "reconcile_notebook", ("puts the block into the", "lifecycle configuration"), "ours"),
    Box(500, 200, 180, "reconcile_bastion", ("opens port 22 from the", "bastion, and closes it"), "ours"),
    Box(500, 310, 180, "record_address", ("takes the report, tells", "what should be"), "ours"),
    Box(265, 310, 150, "DynamoDB", ("one record for", "each notebook"), "plain"),
    Box(265, 430, 150, "lookup_api", ("address, host keys,", "ssh-config, doctor"), "ours"),
    Box(770, 100, 170, "on-start script", ("our block, marked,", "then the owner's own"), "plain"),
    Box(975, 100, 170, "The agent", ("asks the stack what is", "wished; keeps it so"), "ours"),
    Box(975, 310, 170, "sshd", ("the person's keys and", "the stack's keys"), "plain"),
    Box(770, 430, 170, "ngrok tunnel", ("or the bastion", "of your own"), "plain"),
]

ARROWS = [
    Arrow(((190, 136), (265, 136)), "1", "tag", (234, 128)),
    Arrow(((415, 136), (500, 136)), "2", "SQS", (468, 128)),
    Arrow(((680, 136), (770, 136)), "3", "splice", (736, 128)),
    Arrow(((940, 136), (975, 136)), "4", "", (956, 126)),
    Arrow(
        ((1060, 172), (1060, 240), (760, 240), (760, 346), (680, 346)), "5", "report, signed by its role", (880, 232)
    ),
    Arrow(((500, 346), (415, 346)), "6", "", (460, 338)),
    Arrow(((340, 382), (340, 430)), "7", "", (352, 410)),
    Arrow(((265, 466), (190, 466)), "8", "", (228, 458)),
    Arrow(((115, 502), (115, 522), (855, 522), (855, 502)), "9", "ssh, host key verified", (480, 515)),
    Arrow(((940, 466), (1060, 466), (1060, 382)), "", "", (0, 0)),
    Arrow(((590, 172), (590, 200)), "", "", (0, 0), True),
]

STYLE = """
  text { font-family: 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1f2937 }
  .title { font-size: 15px; font-weight: 600 }
  .line { font-size: 12.5px; fill: #4b5563 }
  .zone { fill: #f8fafc; stroke: #cbd5e1; stroke-width: 1.2 }
  .zone-name { font-size: 13px; font-weight: 600; fill: #64748b; letter-spacing: .4px }
  .box { stroke-width: 1.4; rx: 8 }
  .plain { fill: #ffffff; stroke: #94a3b8 }
  .ours { fill: #e0f2fe; stroke: #0284c7 }
  .person { fill: #fef3c7; stroke: #d97706 }
  .arrow { fill: none; stroke: #334155; stroke-width: 1.6; marker-end: url(#tip) }
  .dashed { stroke-dasharray: 5 4 }
  .label { font-size: 12px; fill: #334155; text-anchor: middle }
  .number { font-size: 11px; font-weight: 700; fill: #ffffff; text-anchor: middle }
  .dot { fill: #0f172a }
"""


def draw() -> str:
    """The whole picture as SVG text, on a light ground that reads in dark pages too."""
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="From the tag on a notebook to ssh by its name">',
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#334155"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>',
        '<text class="title" x="20" y="36">From a tag to <tspan font-family="monospace">ssh my-notebook</tspan></text>',
    ]
    for x, y, width, height, name in ZONES:
        out.append(f'<rect class="zone" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>')
        out.append(f'<text class="zone-name" x="{x + 14}" y="{y + 22}">{escape(name)}</text>')
    for arrow in ARROWS:
        path = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(arrow.points))
        out.append(f'<path class="arrow{" dashed" if arrow.dashed else ""}" d="{path}"/>')
    for box in BOXES:
        out.append(
            f'<rect class="box {box.style}" x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8"/>'
        )
        out.append(f'<text class="title" x="{box.x + 12}" y="{box.y + 24}">{escape(box.title)}</text>')
        out.extend(
            f'<text class="line" x="{box.x + 12}" y="{box.y + 43 + 17 * i}">{escape(line)}</text>'
            for i, line in enumerate(box.lines)
        )
    for arrow in ARROWS:
        if not arrow.number:
            continue
        x, y = arrow.at
        offset = len(arrow.label) * 3.2 + 15 if arrow.label else 0
        if arrow.label:
            out.append(f'<text class="label" x="{x}" y="{y}">{escape(arrow.label)}</text>')
        out.append(f'<circle class="dot" cx="{x - offset}" cy="{y - 4}" r="8"/>')
        out.append(f'<text class="number" x="{x - offset}" y="{y}">{arrow.number}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("flow.svg").write_text(draw(), encoding="utf-8")
