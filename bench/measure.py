"""Measures programs in fresh processes: instructions where the machine can count them, CPU time where it cannot.

Instructions are the same within 1 % on a busy machine; times are medians, with their spread.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

REPEATED = 7
"""Fresh processes for each time that is measured."""


class ProgramFailedError(Exception):
    """A measured program failed; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one fresh process took.

    value: in `unit`, `Mi` (million instructions) or `ms` (CPU time). spread: largest minus smallest, in the same unit.
    """

    value: float
    unit: str
    spread: float = 0.0


@cache
def counter() -> str:
    """How instructions are counted here: `valgrind`, `perf`, or `time` when neither works."""
    if shutil.which("valgrind"):
        return "valgrind"
    if shutil.which("perf"):
        tried = _run(["perf", "stat", "-x", ",", "-e", "instructions:u", "true"], os.environ)
        if re.search(r"^\d+,.*instructions", tried.stderr, re.MULTILINE):
            return "perf"
    print("bench: neither valgrind nor a perf that counts instructions is here: CPU times instead", file=sys.stderr)
    return "time"


def cost(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """What a fresh process of `command` takes from its first instruction to its last."""
    match counter():
        case "valgrind":
            # cachegrind without caches counts what callgrind counts, in half the time.
            tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
            done = _run([*tool, *command], environment)
            found = re.search(r"I +refs: +([\d,]+)", done.stderr)
        case "perf":
            done = _run(["perf", "stat", "-x", ",", "-e", "instructions:u", *command], environment)
            found = re.search(r"^(\d+),.*instructions", done.stderr, re.MULTILINE)
        case _:
            times = [cpu_ms(command, environment) for _ in range(REPEATED)]
            return Cost(statistics.median(times), "ms", max(times) - min(times))
    if done.returncode or not found:
        raise ProgramFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return Cost(int(found[1].replace(",", "")) / 1e6, "Mi")


def per_turn(command: Sequence[str], environment: Mapping[str, str], few: int, many: int) -> Cost:
    """What one more turn of `command` costs, whose last argument is the number of turns. The start cancels out."""
    low = cost([*command, str(few)], environment)
    high = cost([*command, str(many)], environment)
    return Cost((high.value - low.value) / (many - few), high.unit, (high.spread + low.spread) / (many - few))


def output(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """What a fresh process of `command` prints."""
    done = _run(command, environment)
    if done.returncode:
        raise ProgramFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def seconds(act: Callable[[], object], times: int = REPEATED) -> tuple[float, float]:
    """Median and spread of the wall-clock time of `act`."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken), max(taken) - min(taken)


def seconds_in_turn(acts: Sequence[Callable[[], object]], times: int = REPEATED) -> list[float]:
    """Median of the wall-clock time of each act. They take turns, so that an hour's load is in all of them."""
    taken = [[seconds(act, 1)[0] for act in acts] for _ in range(times)]
    return [statistics.median(of_one) for of_one in zip(*taken, strict=True)]


def cpu_ms(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Milliseconds of processor time of a fresh process of `command`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output(command, environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _run(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=600, check=False)
