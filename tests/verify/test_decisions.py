"""What each experiment makes of what it saw: all that AWS may answer, also what nobody expects."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from notebook_ssh_verify.account import Refusal
from notebook_ssh_verify.experiments import ALL, events, maintenance, permissions, rates, sagemaker_api as api
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.signed import Response

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


def at(minute: int, *host_keys: str, status: str = "connected") -> maintenance.Reported:
    return maintenance.Reported(f"2026-11-30T12:{minute:02}:00Z", host_keys, status)


SINCE = datetime(2026, 11, 30, 11, 59, tzinfo=UTC)
LONG_AFTER = datetime(2026, 12, 1, tzinfo=UTC)


def maintained(
    before: maintenance.Reported | None, after: maintenance.Reported | None, since: datetime = SINCE
) -> maintenance.Maintained:
    return maintenance.Maintained("PendingMaintenance", "InService", before, after, 180, since)


MAINTENANCE: list[tuple[str, Any, type[Decision]]] = [
    ("maintenance-states", None, Undecided),
    ("maintenance-states", maintained(None, None), Undecided),
    ("maintenance-states", maintained(at(1, "key"), None), Undecided),
    ("maintenance-states", maintained(at(1, "key"), at(2, "key")), Holds),
    ("maintenance-states", maintained(at(1, "key", "other"), at(2, "other", "key")), Holds),
    ("maintenance-states", maintained(at(1, "key"), at(2, "new")), Refuted),
    ("maintenance-states", maintained(at(1, "key"), at(2)), Undecided),
    ("maintenance-states", maintained(at(1, "key"), at(1, "key")), Undecided),
    ("maintenance-states", maintained(at(1, "key"), at(1, "key", status="stale")), Refuted),
    ("maintenance-states", maintained(at(1, "key"), at(1, "key", status="stale"), LONG_AFTER), Undecided),
]

ENOUGH = rates.Figures(25, 0, 0, 5.0)

RATES: list[tuple[str, Any, type[Decision]]] = [
    ("describe-rate", None, Undecided),
    ("describe-rate", rates.ReadRates(ENOUGH, ENOUGH), Holds),
    ("describe-rate", rates.ReadRates(rates.Figures(24, 1, 0, 5.0), ENOUGH), Refuted),
    ("describe-rate", rates.ReadRates(ENOUGH, rates.Figures(5, 20, 0, 5.0)), Refuted),
    ("describe-rate", rates.ReadRates(ENOUGH, rates.Figures(0, 0, 25, 5.0)), Undecided),
    ("describe-rate", rates.ReadRates(rates.Figures(25, 0, 0, 9.0), ENOUGH), Undecided),
    ("fifo-rate", rates.Figures(700, 0, 0, 2.0), Holds),
    ("fifo-rate", rates.Figures(590, 300, 0, 2.0), Holds),
    ("fifo-rate", rates.Figures(100, 300, 0, 2.0), Refuted),
    ("fifo-rate", rates.Figures(400, 0, 0, 2.0), Undecided),
    ("fifo-rate", rates.Figures(0, 0, 500, 2.0), Undecided),
]

EVENTS: list[tuple[str, Any, type[Decision]]] = [
    ("tag-events", events.TagEvent(True, 2), Holds),
    ("tag-events", events.TagEvent(False, 180, reached=True), Refuted),
    ("tag-events", events.TagEvent(False, 180, reached=False), Undecided),
    ("cloudtrail-shape", events.CallShape(("resourceArn", "tags", "tags.key", "tags.value"), 90), Holds),
    ("cloudtrail-shape", events.CallShape(("ResourceArn", "Tags", "Tags.Key", "Tags.Value"), 90), Refuted),
    ("cloudtrail-shape", events.CallShape(("resourceArn", "tags", "tags.Key", "tags.Value"), 90), Undecided),
    ("cloudtrail-shape", events.CallShape((), 90), Undecided),
    ("cloudtrail-shape", events.CallShape(None, 180), Undecided),
    ("cloudtrail-shape", events.CallShape(None, 180, reached=False), Undecided),
    ("key-in-trail", events.KeyCall(has_key=False), Undecided),
    ("key-in-trail", events.KeyCall(True, True, "AccessDenied", 90), Holds),
    ("key-in-trail", events.KeyCall(True, False, "AccessDenied", 90), Refuted),
    ("key-in-trail", events.KeyCall(True, None, "", 180), Undecided),
    ("key-in-trail", events.KeyCall(True, None, "", 180, reached=False), Undecided),
]

PASS_ROLE = Refusal("AccessDeniedException", "User: … is not authorized to perform: iam:PassRole on …", 400)
NO_INTERFACE = Refusal("ValidationException", "… is not authorized to perform: ec2:CreateNetworkInterface", 400)
NO_START = Refusal("AccessDeniedException", "… is not authorized to perform: sagemaker:StartNotebookInstance …", 400)
WRONG_STATUS = Refusal("ValidationException", "Status (Stopping) not in ([Stopped, Failed])", 400)
DENIED_PATH = Response(
    403, '{"Message": "User: … is not authorized to perform: execute-api:Invoke with an explicit deny"}'
)
BAD_SIGNATURE = Response(403, '{"message": "The request signature we calculated does not match the signature …"}')
OTHER_SPELLING = Response(409, '{"error": "other-spelling"}')

PERMISSIONS: list[tuple[str, Any, type[Decision]]] = [
    ("start-permissions", permissions.StartByRole(PASS_ROLE, in_vpc=False), Holds),
    ("start-permissions", permissions.StartByRole(NO_INTERFACE, in_vpc=True), Holds),
    ("start-permissions", permissions.StartByRole(NO_START, in_vpc=True), Undecided),
    ("start-permissions", permissions.StartByRole(WRONG_STATUS, in_vpc=True), Undecided),
    ("start-permissions", permissions.StartByRole(None, True, "InService"), Refuted),
    ("start-permissions", permissions.StartByRole(None, False, "InService"), Undecided),
    ("start-permissions", permissions.StartByRole(None, True, "Failed", "not authorized to perform ec2:…"), Holds),
    ("start-permissions", permissions.StartByRole(None, True, "Failed", "no capacity"), Undecided),
    ("start-permissions", permissions.StartByRole(None, True, "Failed"), Undecided),
    ("parameters-by-path", permissions.ParametersByPath(None, DENIED), Holds),
    ("parameters-by-path", permissions.ParametersByPath(DENIED, None), Refuted),
    ("parameters-by-path", permissions.ParametersByPath(None, None), Undecided),
    ("parameters-by-path", permissions.ParametersByPath(DENIED, DENIED), Undecided),
    ("parameters-by-path", permissions.ParametersByPath(None, THROTTLED), Undecided),
    ("path-as-sent", permissions.EscapedPath(DENIED_PATH, OTHER_SPELLING), Holds),
    ("path-as-sent", permissions.EscapedPath(DENIED_PATH, Response(404, '{"error": "unknown-notebook"}')), Holds),
    ("path-as-sent", permissions.EscapedPath(DENIED_PATH, DENIED_PATH), Refuted),
    ("path-as-sent", permissions.EscapedPath(DENIED_PATH, BAD_SIGNATURE), Undecided),
    ("path-as-sent", permissions.EscapedPath(Response(200, "{}"), OTHER_SPELLING), Undecided),
    ("path-as-sent", permissions.EscapedPath(DENIED_PATH, Response(500, "")), Undecided),
    ("path-as-sent", permissions.EscapedPath(DENIED_PATH, Response(400, '{"message": "Bad Request"}')), Undecided),
    ("filter-terms", permissions.FilterTerms(1, 0), Holds),
    ("filter-terms", permissions.FilterTerms(1, 1), Refuted),
    ("filter-terms", permissions.FilterTerms(0, 0), Undecided),
]

TABLE = [*SAGEMAKER, *MAINTENANCE, *RATES, *EVENTS, *PERMISSIONS]


@pytest.mark.parametrize(("fact", "seen", "expected"), TABLE)
def test_what_was_seen_decides(fact: str, seen: Any, expected: type[Decision]) -> None:
    experiment = next(each for each in ALL if each.fact == fact)
    decision = experiment.decide(seen)
    assert isinstance(decision, expected), decision
    (sentence,) = decision
    assert sentence
    assert not sentence.endswith(".")
