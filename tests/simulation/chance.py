"""Everything that is left to chance in a run, drawn for each step from the seed and the step's number alone.

So leaving one step's faults out changes nothing about what the other steps would draw, and a failing run can be
shrunk by leaving out steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """calm: whether nothing is left to chance now: the first, the smallest and the likeliest of everything.

    may: which steps may inject faults. The others draw the same numbers, and inject none.
    """

    def __init__(self, seed: int, may: Callable[[int], bool]) -> None:
        self._seed = seed
        self._may = may
        self._random = Random()
        self.step = -1
        self.used: set[int] = set()  # the steps in which a fault was drawn
        self.calm = False

    def turn(self, step: int) -> None:
        """From now on the draws of `step`."""
        self.step = step
        if not self.calm:
            self._random.seed(self._seed * 1_000_003 + step)

    def fault(self, probability: float = 1.0) -> bool:
        """True in `probability` of all cases, and never in a step that may do none."""
        if self.roll() >= probability:
            return False
        self.used.add(self.step)
        return self._may(self.step)

    def odds(self, probability: float) -> bool:
        """True in `probability` of all cases."""
        return self.roll() < probability

    def roll(self) -> float:
        """A number from 0 to 1; 1 when it is calm, so that nothing rare happens then."""
        return 1.0 if self.calm else self._random.random()

    def pick(self, options: Sequence[T]) -> T:
        """One of them; the first when it is calm."""
        if self.calm or len(options) == 1:
            return options[0]
        return options[int(self._random.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        """A whole number, both ends included; `low` when it is calm."""
        return low if self.calm else low + int(self._random.random() * (high - low + 1))
