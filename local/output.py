"""Standard output as the local run writes to it, for minutes, whatever becomes of it."""

from __future__ import annotations

import _thread
import io
import os
import sys
from typing import TextIO


class _Output(io.TextIOWrapper):
    """Text for a reader who may go away, as `head` does: that is Ctrl-C, and what is written afterwards goes nowhere."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            self._reader_is_gone()
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._reader_is_gone()

    def _reader_is_gone(self) -> None:
        _to_nowhere(self.fileno())
        _thread.interrupt_main()


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def standard_output() -> TextIO:
    """What this process writes to. KeyboardInterrupt comes when its reader is gone; it may be closed from the start."""
    if sys.stdout is None:  # and the next file opened would be taken for it by every child
        _to_nowhere(1)
        return _Output(_buffer(1), "utf-8")
    sys.stdout.flush()
    return _Output(_buffer(sys.stdout.fileno()), sys.stdout.encoding, sys.stdout.errors)


def _buffer(descriptor: int) -> io.BufferedWriter:
    return io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
