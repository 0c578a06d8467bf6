"""Draws docs/pictures/flow.svg, the picture in the README: `python3 docs/pictures/draw.py`.

Standard library only. Change the lists below, run it, view the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1240, 620


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


class Arrow(NamedTuple):
    """A path through points, with a number for the order of the scenario and a label at a point.

    dashed: not a step of the scenario, but what keeps it true. both: something comes back.
    """

    points: tuple[tuple[float, float], ...]
    number: str = ""
    label: str = ""
    at: tuple[float, float] = (0, 0)
    dashed: bool = False
    both: bool = False


ZONES = [
    (20, 60, 210, 540, "people"),
    (260, 60, 500, 440, "the stack, in your account"),
    (800, 60, 420, 540, "SageMaker notebook instance"),
]

BOXES = [
    Box(35, 100, 180, "A user tags", ("ssh = ngrok", "ssh = bastion, eice"), "person"),
    Box(35, 410, 180, "… and connects", ("ssh my-notebook", "VS Code, scp, git …"), "person"),
    Box(280, 100, 200, "EventBridge", ("changes of tags, states,", "scripts; and a sweep"), "plain"),
    Box(545, 100, 200, "reconcile_notebook", ("installs the block in the", "lifecycle configuration"), "ours"),
    Box(545, 205, 200, "reconcile_rules", ("opens port 22 to bastion or", "endpoint, and closes it"), "ours"),
    Box(545, 310, 200, "record_address", ("accepts the report,", "replies what to do"), "ours"),
    Box(280, 310, 200, "DynamoDB", ("one record for", "each notebook"), "plain"),
    Box(280, 410, 200, "lookup_api", ("address, host keys,", "ssh-config, doctor"), "ours"),
    Box(395, 520, 235, "ngrok, bastion or endpoint", ("carries the connection,", "encrypted end to end"), "plain"),
    Box(815, 100, 190, "on-start script", ("the managed block,", "then the owner's script"), "plain"),
    Box(1055, 100, 150, "The agent", ("asks the stack,", "keeps it so"), "ours"),
    Box(1055, 520, 150, "sshd", ("their own keys,", "central keys"), "plain"),
]

ARROWS = [
    Arrow(((215, 136), (280, 136)), "1", "", (248, 128)),
    Arrow(((480, 136), (545, 136)), "2", "SQS", (518, 128)),
    Arrow(((745, 136), (815, 136)), "3", "", (781, 128)),
    Arrow(((1005, 136), (1055, 136)), "4", "", (1029, 128)),
    Arrow(((1110, 172), (1110, 346), (745, 346)), "5", "report, signed by the notebook's role", (945, 338), both=True),
    Arrow(((545, 346), (480, 346)), "6", "", (513, 338)),
    Arrow(((380, 382), (380, 410)), "7", "", (400, 400)),
    Arrow(((280, 446), (215, 446)), "8", "", (246, 438)),
    Arrow(((125, 482), (125, 556), (395, 556)), "9", "ssh, host key verified", (325, 548)),
    Arrow(((630, 556), (1055, 556))),
    Arrow(((645, 172), (645, 205)), dashed=True),
    Arrow(((1160, 172), (1160, 520)), dashed=True),
]

NOTES = [
    (945, 366, "the answer: mode, token, central keys"),
    (1120, 440, "tunnel, keys"),
]
"""Words next to arrows, centred: x, y, text."""

STYLE = """
  text { font-family: 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1f2937 }
  .title { font-size: 14.5px; font-weight: 600 }
  .line { font-size: 12.5px; fill: #4b5563 }
  .zone { fill: #f8fafc; stroke: #cbd5e1; stroke-width: 1.2 }
  .zone-name { font-size: 13px; font-weight: 600; fill: #64748b; letter-spacing: .4px }
  .box { stroke-width: 1.4; rx: 8 }
  .plain { fill: #ffffff; stroke: #94a3b8 }
  .ours { fill: #e0f2fe; stroke: #0284c7 }
  .person { fill: #fef3c7; stroke: #d97706 }
  .arrow { fill: none; stroke: #334155; stroke-width: 1.6; marker-end: url(#tip) }
  .both { marker-start: url(#tip) }
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
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto-start-reverse">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#334155"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#ffffff"/>',
        '<text class="title" x="20" y="36">From a tag to <tspan font-family="monospace">ssh my-notebook</tspan></text>',
    ]
    for x, y, width, height, name in ZONES:
        out.append(f'<rect class="zone" x="{x}" y="{y}" width="{width}" height="{height}" rx="10"/>')
        out.append(f'<text class="zone-name" x="{x + 14}" y="{y + 22}">{escape(name)}</text>')
    for arrow in ARROWS:
        path = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(arrow.points))
        style = "arrow" + " dashed" * arrow.dashed + " both" * arrow.both
        out.append(f'<path class="{style}" d="{path}"/>')
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
        at, base = arrow.at
        offset = len(arrow.label) * 3.2 + 15 if arrow.label else 0
        if arrow.label:
            out.append(f'<text class="label" x="{at}" y="{base}">{escape(arrow.label)}</text>')
        out.append(f'<circle class="dot" cx="{at - offset}" cy="{base - 4}" r="8"/>')
        out.append(f'<text class="number" x="{at - offset}" y="{base}">{arrow.number}</text>')
    out.extend(f'<text class="label" x="{x}" y="{y}">{escape(text)}</text>' for x, y, text in NOTES)
    out.append("</svg>")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("flow.svg").write_text(draw(), encoding="utf-8")
