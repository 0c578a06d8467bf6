"""Our sweep over the account that the stand-in plays."""

from __future__ import annotations

import json
import resource
import time

from calls import CONTEXT


def main(tell: str, *numbers: str) -> None:
    """tell: `tell` to print, as JSON, what it found, how long it took and how much memory. numbers: ignored."""
    from sweep import handler

    began = time.process_time()
    found = handler.handle({}, CONTEXT)
    if found["requests"]:
        raise SystemExit(f"this is no steady state: {found}")
    if tell == "tell":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found | {"cpu_s": time.process_time() - began, "peak_mib": peak}))
