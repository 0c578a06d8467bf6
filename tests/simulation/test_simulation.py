"""The control plane against faults: 56,000 steps and more, each of them the same on every machine.

docs/reliability.md says what is simulated, and how to run more of it.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from simulation.explore import broken, explore, smallest
from simulation.run import KINDS
from simulation.safeguards import ROOT, SAFEGUARDS, Safeguard

MOMENTS = (
    1,  # the sweep finds what no event reported
    2,  # a read of a notebook fails
    3,  # a read of a configuration fails
    6,  # a tag of another user of a script cannot be read
    314,  # a restart that upgrades the script of others, before its notebook has it
    777176,  # a record that counted as done before its status tags were removed
)
"""Seeds of runs that fail without the safeguard for such a moment (`make broken`), or once did."""


@pytest.mark.parametrize(
    "seed",
    [
        *range(1_000, 5_000, 1_000),
        *(
            pytest.param(seed, marks=pytest.mark.nightly(sibling="test_every_invariant_holds_through_faults_and_calm"))
            for seed in range(5_000, 9_000, 1_000)
        ),
    ],
)
def test_every_invariant_holds_through_faults_and_calm(seed: int) -> None:
    counts = explore(14_000, seed)
    assert counts["steps"] >= 14_000
    # An agent flips twenty times in a row, and few runs have one.
    assert [kind for kind in KINDS if not counts[kind] and kind != "reports that flip"] == []


@pytest.mark.parametrize("seed", MOMENTS)
def test_the_moments_that_safeguards_are_for_hold(seed: int) -> None:
    assert broken(seed) is None


def test_a_failure_shrinks_to_what_causes_it() -> None:
    assert smallest(frozenset(range(200)), lambda steps: {17, 140} <= steps, tries=200) == {17, 140}


def test_a_run_is_the_same_in_every_process() -> None:
    """Whatever order the process gives to sets: Python's own hashes differ from one to the next."""
    program = "from simulation.run import Run; run = Run(4711, 600); run.play(); print('\\n'.join(run.trace))"
    scenarios = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    (scenario,) = scenarios
    assert scenario.count("\n") > 50


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda each: each.name)
def test_what_make_broken_takes_out_is_there(safeguard: Safeguard) -> None:
    for file, text, instead in safeguard.edits:
        source = (ROOT / file).read_text()
        assert source.count(text) == 1
        compile(source.replace(text, instead), file, "exec")
