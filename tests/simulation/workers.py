"""Invocations that take turns: each runs in a thread of its own, and only the one that was handed the baton moves.

An invocation stops at each of its calls to AWS and goes on when the run says so, so every interleaving of calls can be
played, and the same one again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from simulation.errors import Killed


def _closed() -> threading.Lock:
    """A gate that one release opens for one who waits."""
    gate = threading.Lock()
    gate.acquire()
    return gate


class Worker:
    """One invocation. wake: epoch milliseconds before which it does not go on. pending: the call it stands before.

    clock: milliseconds by which its clock is ahead.
    """

    def __init__(self, kind: str, job: Callable[[], Any], deadline: int, messages: list[Any]) -> None:
        self.kind, self.job, self.deadline, self.messages = kind, job, deadline, messages
        self.wake = self.clock = 0
        self.pending: tuple[str, dict[str, Any]] = ("", {})
        self.doomed = False
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.hand: Hand | None = None
        self.seen: dict[str, Any] = {}  # the notebook's record, as it was last read


class Hand:
    """A thread that carries out one worker after the other."""

    def __init__(self, back: threading.Lock) -> None:
        self.go = _closed()
        self._back = back
        self.worker: Worker | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.go.acquire()
            worker = self.worker
            if worker is None:
                return
            try:
                if worker.doomed:
                    raise Killed
                worker.result = worker.job()
            except BaseException as error:  # a simulated death is one, too
                worker.error = error
            worker.done = True
            self._back.release()

    def end(self) -> None:
        self.worker = None
        self.go.release()
        self._thread.join()


class Baton:
    """Hands the turn to one worker at a time, and takes it back."""

    def __init__(self) -> None:
        self._back = _closed()
        self._idle: list[Hand] = []
        self.current: Worker | None = None

    def resume(self, worker: Worker) -> None:
        """Let `worker` go on until its next call, or its end."""
        if worker.hand is None:
            worker.hand = self._idle.pop() if self._idle else Hand(self._back)
            worker.hand.worker = worker
        self.current = worker
        worker.hand.go.release()
        self._back.acquire()
        self.current = None
        if worker.done:
            self._idle.append(worker.hand)

    @property
    def at_work(self) -> Worker:
        """The worker whose turn it is; there must be one."""
        assert self.current is not None
        return self.current

    def wait(self) -> Worker:
        """Called by the worker whose turn it is: give the turn back, and answer when it has it again."""
        worker = self.at_work
        assert worker.hand is not None
        if not worker.doomed:
            self._back.release()
            worker.hand.go.acquire()
        if worker.doomed:
            raise Killed
        return worker

    def end(self) -> None:
        for hand in self._idle:
            hand.end()
        self._idle.clear()
