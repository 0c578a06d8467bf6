"""How long the local run and the tests wait for what must come.

Nothing here measures the machine: what comes is noticed at once, and only what will never come takes this long. So the
limit is one for all, and long enough for a machine that does ten other things.
"""

LIMIT_S = 240.0
"""Seconds."""
