"""Limits on how many calls go through."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Throttle:
    """At most `limit` calls in any second; more raise what `refuse` makes."""

    def __init__(self, limit: int, refuse: Callable[[], Exception]) -> None:
        self._limit, self._refuse = limit, refuse
        self._calls: deque[float] = deque()

    def take(self) -> None:
        """Count a call, or raise."""
        now = time.monotonic()
        while self._calls and self._calls[0] <= now - 1:
            self._calls.popleft()
        if len(self._calls) >= self._limit:
            raise self._refuse()
        self._calls.append(now)
