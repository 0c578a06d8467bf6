"""What each experiment makes of what it saw: all that AWS may answer, also what nobody expects."""

from __future__ import annotations

from typing import Any

import pytest
from notebook_ssh_verify.account import Refusal
from notebook_ssh_verify.experiments import ALL, sagemaker_api as api
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided

INVALID = Refusal("ValidationException", "1 validation error detected", 400)
THROTTLED = Refusal("ThrottlingException", "Rate exceeded", 400)
DENIED = Refusal("AccessDeniedException", "User: … is not authorized to perform: …", 400)
BAD_PLATFORM = Refusal("ValidationException", "Value at 'platformIdentifier' failed to satisfy constraint", 400)
OTHER_PLATFORM = Refusal("ValidationError", "Unknown platform", 400)
EXPIRED = Refusal("InvalidNextTokenException", "The token has expired", 400)

SAGEMAKER: list[tuple[str, Any, type[Decision]]] = [
    ("name-case", api.NameCase(True, True), Holds),
    ("name-case", api.NameCase(False, False), Refuted),
    ("name-case", api.NameCase(True, False), Refuted),
    ("name-case", api.NameCase(False, True), Refuted),
    ("name-case", api.NameCase(None, None), Undecided),
    ("script-limit", api.ScriptLimit(None, INVALID), Holds),
    ("script-limit", api.ScriptLimit(None, None), Refuted),
    ("script-limit", api.ScriptLimit(INVALID, None), Refuted),
    ("script-limit", api.ScriptLimit(None, THROTTLED), Undecided),
    ("script-limit", api.ScriptLimit(DENIED, None), Undecided),
    ("empty-hook", api.EmptyHook(None, 0, 1), Holds),
    ("empty-hook", api.EmptyHook(None, 1, 1), Refuted),
    ("empty-hook", api.EmptyHook(INVALID, 1, 1), Refuted),
    ("empty-hook", api.EmptyHook(THROTTLED, 1, 1), Undecided),
    ("empty-hook", api.EmptyHook(None, 0, 0), Undecided),
    ("time-precision", (api.Times(1_700_000_000_123, 1_700_000_000_123),), Holds),
    ("time-precision", (api.Times(1_700_000_000_123, 1_700_000_000_123, 1_700_000_000_123),), Holds),
    ("time-precision", (api.Times(2000, 2000), api.Times(3001, 3001)), Holds),
    ("time-precision", (api.Times(1_700_000_000_000, 1_700_000_000_123),), Refuted),
    ("time-precision", (api.Times(1_700_000_000_123, 1_700_000_000_123, 1_700_000_000_000),), Refuted),
    ("time-precision", (api.Times(2000, 2000), api.Times(3000, 3000)), Refuted),
    ("time-precision", (api.Times(2000, 2000),), Undecided),
    ("time-precision", (), Undecided),
    ("delete-attached", api.DeleteAttached(INVALID), Holds),
    ("delete-attached", api.DeleteAttached(None), Refuted),
    ("delete-attached", api.DeleteAttached(DENIED), Undecided),
    ("expired-page", api.ExpiredPage(180, INVALID), Holds),
    ("expired-page", api.ExpiredPage(180, EXPIRED), Refuted),
    ("expired-page", api.ExpiredPage(180, None, "ValidationException"), Undecided),
    ("expired-page", api.ExpiredPage(180, THROTTLED), Undecided),
    ("expired-page", None, Undecided),
    ("platform-refusal", api.PlatformRefusal(BAD_PLATFORM), Holds),
    ("platform-refusal", api.PlatformRefusal(OTHER_PLATFORM), Refuted),
    ("platform-refusal", api.PlatformRefusal(None), Refuted),
    ("platform-refusal", api.PlatformRefusal(DENIED), Undecided),
    ("platform-refusal", api.PlatformRefusal(INVALID), Undecided),
]

TABLE = [*SAGEMAKER]


@pytest.mark.parametrize(("fact", "seen", "expected"), TABLE)
def test_what_was_seen_decides(fact: str, seen: Any, expected: type[Decision]) -> None:
    experiment = next(each for each in ALL if each.fact == fact)
    decision = experiment.decide(seen)
    assert isinstance(decision, expected), decision
    (sentence,) = decision
    assert sentence
    assert not sentence.endswith(".")
