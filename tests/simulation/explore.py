"""Many runs, one after the other; the first that violates an invariant is shrunk and printed.

python -m simulation.explore --steps 1000000 --seed 1     runs with seeds 1, 2, … until so many steps are done
python -m simulation.explore --replay 4711                one run, with everything that happens in it
python -m simulation.explore --replay 4711 --only 12,80   the same, with the faults of these steps alone
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections import Counter
from collections.abc import Callable

from simulation.run import KINDS, Run

LENGTH = 1_000
"""Steps with faults of one run; calm and going home come on top."""


def broken(seed: int, only: frozenset[int] | None = None, length: int = LENGTH) -> str | None:
    """What the run breaks, or None."""
    try:
        Run(seed, length, only).play()
    except AssertionError as failure:
        return str(failure)
    return None


def shrunk(seed: int, length: int = LENGTH, tries: int = 400) -> frozenset[int]:
    """A small set of steps whose faults alone violate an invariant in the run of `seed`: halves first, then less.

    Any broken invariant counts: a smaller one that is found on the way is as good.
    """
    whole = Run(seed, length)
    with contextlib.suppress(AssertionError):
        whole.play()
    return smallest(frozenset(whole.chance.used), lambda steps: broken(seed, steps, length) is not None, tries)


def smallest(steps: frozenset[int], fails: Callable[[frozenset[int]], bool], tries: int) -> frozenset[int]:
    """`steps` without what can be left out while it still `fails` (Zeller's ddmin, at most `tries` attempts)."""
    config_record, parts = sorted(steps), 2
    while len(config_record) > 1 and tries > 0:
        size = max(1, len(config_record) // parts)
        for start in range(0, len(config_record), size):
            rest = config_record[:start] + config_record[start + size :]
            tries -= 1
            if fails(frozenset(rest)):
                config_record, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(config_record), parts * 2)
    return frozenset(config_record)


def explore(steps: int, seed: int) -> Counter[str]:
    """Runs from `seed` on until `steps` steps are done; what was done, counted. AssertionError at the first failure."""
    counts: Counter[str] = Counter()
    while counts["steps"] < steps:
        run = Run(seed, LENGTH)
        run.play()
        counts += run.counts + run.invariants.checked
        counts += Counter({f"our writes: {what}": number for what, number in run.invariants.writes.items()})
        counts["runs"] += 1
        seed += 1
    return counts


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="simulation.explore")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=int, metavar="SEED")
    parser.add_argument("--only", default="", metavar="STEP,STEP,…")
    given = parser.parse_args()
    if given.replay is not None:
        return _replay(given.replay, frozenset(map(int, given.only.split(","))) if given.only else None)
    began = time.monotonic()
    try:
        counts = explore(given.steps, given.seed)
    except AssertionError as failure:
        seed = int(str(failure).split()[1].rstrip(","))
        only = ",".join(map(str, sorted(shrunk(seed))))
        print(f"{failure}\nShrunk; see it again with: make simulate REPLAY={seed} ONLY={only}")
        return _replay(seed, frozenset(map(int, only.split(","))))
    took = time.monotonic() - began
    for what, number in sorted(counts.items()):
        print(f"{number:>12,}  {what}")
    rare = [kind for kind in KINDS if counts[kind] * 1_000 < counts["steps"]]
    if rare:
        print(f"Less than once in a thousand steps: {', '.join(rare)}")
    print(
        f"Every invariant held: {counts['steps']:,} steps in {took:.0f} s, seeds {given.seed} to {given.seed + counts['runs'] - 1}."
    )
    return 0


def _replay(seed: int, only: frozenset[int] | None) -> int:
    run = Run(seed, LENGTH, only)
    try:
        run.play()
    except AssertionError as failure:
        print("\n".join(run.trace), failure, sep="\n")
        return 1
    print("\n".join(run.trace), "Every invariant held.", sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
