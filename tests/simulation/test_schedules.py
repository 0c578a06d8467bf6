"""The schedules that a safeguard is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from simulation.schedules import SCHEDULES


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.__name__)
def test_what_goes_wrong_only_in_one_order_does_not(schedule: Callable[[], None]) -> None:
    schedule()
