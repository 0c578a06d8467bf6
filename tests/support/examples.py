"""With how many examples properties are tried, and which: Hypothesis' profiles, of which each run has one.

quick: a fifth of the usual number. test: half of it. Both try the same examples each time, so that what passes
once passes again. nightly: many times that number, others each night; a failure prints how to have it again.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

USUAL = 100


def register_profiles() -> None:
    """Make the profiles known. None of them measures the machine: neither an example nor its making has a deadline."""
    busy: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
    settings.register_profile("quick", max_examples=USUAL // 5, derandomize=True, **busy)
    settings.register_profile("test", max_examples=USUAL // 2, derandomize=True, **busy)
    settings.register_profile("nightly", max_examples=20 * USUAL, print_blob=True, **busy)


def examples(number: int = USUAL, *allowed: HealthCheck) -> settings:
    """The settings of a property that needs another `number` of examples than usual, or that is `allowed` something."""
    profile = settings.get_profile(settings.get_current_profile_name())
    share = profile.max_examples / USUAL
    return settings(
        profile,
        max_examples=max(1, round(number * share)),
        suppress_health_check=[*profile.suppress_health_check, *allowed],
    )
