"""Everything that is left to chance in a run, drawn anew for each step from the seed and the step's number alone.

So leaving one step's mischief out changes nothing about what the other steps would draw, and a failing run can be
shrunk by leaving out steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """wild: which steps may do mischief; the others take the first, the smallest and the likeliest of everything."""

    def __init__(self, seed: int, wild: Callable[[int], bool]) -> None:
        self._seed = seed
        self._wild = wild
        self._random = Random()
        self.step = -1
        self.used: set[int] = set()
        self.quiet = True

    def turn(self, step: int) -> None:
        """From now on the draws of `step`."""
        self.step = step
        self.quiet = not self._wild(step)
        if not self.quiet:
            self._random.seed(self._seed * 1_000_003 + step)

    def odds(self, probability: float) -> bool:
        """True in `probability` of all cases."""
        return self.roll() < probability

    def roll(self) -> float:
        """A number from 0 to 1; 1 in a quiet step, so that nothing rare happens there."""
        if self.quiet:
            return 1.0
        self.used.add(self.step)
        return self._random.random()

    def pick(self, options: Sequence[T]) -> T:
        """One of them; the first in a quiet step."""
        if self.quiet or len(options) == 1:
            return options[0]
        self.used.add(self.step)
        return options[int(self._random.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included; `low` in a quiet step."""
        return low if self.quiet else low + int(self._random.random() * (high - low + 1))
