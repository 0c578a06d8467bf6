"""The benchmark: every target with its figure, and whether it is met. `make bench`, docs/performance.md.

    run.py [--json FILE] [GROUP ...]

Exit status 1 when a target is not met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
os.environ["POWERTOOLS_LOG_LEVEL"] = "CRITICAL"  # the handlers that are counted in this process say nothing
sys.path[:0] = [str(PROJECT / part) for part in ("layers/core", "functions", "packaging", "local", "client", "tests")]

from artifacts import prepared  # noqa: E402
from targets import ALL, Figure, method  # noqa: E402


def main() -> int:
    """The command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Measure every target of docs/performance.md.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(ALL)}; all when none is named")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    asked = parser.parse_args()
    unknown = set(asked.groups) - set(ALL)
    if unknown:
        parser.error(f"there is no group {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, prepared(Path(folder)) as artifacts:
        exact = "" if artifacts.exact else ", which is not the runtime's version"
        print(f"Python {artifacts.version}{exact}; {method()}; {platform.machine()}, {os.cpu_count()} cores")
        for group in asked.groups or ALL:
            print(f"\n{group}", flush=True)
            for figure in ALL[group](artifacts):
                figures.append(figure)
                print(_line(figure), flush=True)
    not_met = [figure for figure in figures if figure.met is False]
    with_target = sum(figure.met is not None for figure in figures)
    print(f"\n{with_target - len(not_met)} of {with_target} targets met")
    if asked.json:
        run = {"python": artifacts.version, "method": method(), "machine": platform.machine()}
        rows = [asdict(figure) | {"met": figure.met} for figure in figures]
        asked.json.write_text(
            json.dumps(run | {"figures": rows}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return 1 if not_met else 0


def _line(figure: Figure) -> str:
    verdict = {None: "    ", True: "ok  ", False: "MISS"}[figure.met]
    target = "" if figure.target is None else f"≤ {_number(figure.target)}"
    return f"  {verdict} {figure.what:<68} {_number(figure.value):>9} {figure.unit:<8} {target:<8} {figure.details}".rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
