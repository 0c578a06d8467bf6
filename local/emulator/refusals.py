"""What the emulator cannot do is refused, with the service's own error: an answer that holds too much passes for right.

CloudWatch Logs' filter patterns are the part of them that docs/operations.md types ("Filter pattern syntax" in the
service's User Guide): terms and quoted phrases, all of which must be there, and equality in JSON.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from ministack import app
from ministack.core.responses import error_response_json
from ministack.services import cloudwatch_logs
from moto.ec2.exceptions import FilterNotImplementedError

from emulator import answers
from emulator.moto_services import Handler, Query

Refusal = tuple[str, str]
"""An error's code and message."""

UNHEEDED: Mapping[str, tuple[str, str]] = {
    "AmazonSSM.GetParametersByPath ParameterFilters": ("ssm", "InvalidFilterKey"),
    "Logs_20140328.FilterLogEvents logStreamNamePrefix": ("logs", "InvalidParameterException"),
    "ResourceGroupsTaggingAPI_20170126.GetResources ExcludeCompliantResources": (
        "tagging",
        "InvalidParameterException",
    ),
    "SageMaker.ListNotebookInstances DefaultCodeRepositoryContains": ("sagemaker", "ValidationException"),
    "SageMaker.ListNotebookInstances AdditionalCodeRepositoryEquals": ("sagemaker", "ValidationException"),
}
"""Parameters that narrow an answer and are not heeded, each with its service (as ministack calls it) and its error."""

PATTERNS = ("FilterLogEvents", "PutMetricFilter", "PutSubscriptionFilter", "StartLiveTail")
"""The calls of CloudWatch Logs that take a filter pattern."""

PREFIX_LIST_FILTERS = {"owner-id", "prefix-list-id", "prefix-list-name", "tag-key"}
"""What moto heeds of DescribeManagedPrefixLists, besides `tag:…`; of any other name it takes no notice."""


class NotEmulatedError(Exception):
    """What is asked for is outside of what is emulated."""


def refuse_what_is_not_emulated() -> None:
    """From now on no call that this module knows of answers more than it was asked for."""
    cloudwatch_logs._compile_filter_pattern = matcher
    cloudwatch_logs._subscription_pattern_matches = lambda pattern, message: matcher(pattern)(message)
    for service in {service for service, _ in UNHEEDED.values()}:
        app.SERVICE_HANDLERS[service] = _with_check(app.SERVICE_HANDLERS[service])
    app.SERVICE_HANDLERS["ec2"] = _with_known_filters(app.SERVICE_HANDLERS["ec2"])


def _with_check(handle: Handler) -> Handler:
    """The handler `handle` of a service that speaks JSON, which first refuses what it cannot do."""

    async def checked(method: str, path: str, headers: dict[str, str], body: bytes, query: Query) -> Any:
        try:
            asked = json.loads(body or b"{}")
        except ValueError:
            asked = {}
        refused = _refusal(headers.get("x-amz-target", ""), asked if isinstance(asked, dict) else {})
        return error_response_json(*refused, 400) if refused else await handle(method, path, headers, body, query)

    return checked


def _refusal(target: str, asked: Mapping[str, Any]) -> Refusal | None:
    for parameter, value in asked.items():
        if value and (unheeded := UNHEEDED.get(f"{target} {parameter}")):
            return unheeded[1], f"The emulator does not heed {parameter}"
    operation = target.removeprefix("Logs_20140328.")
    try:
        if operation in PATTERNS:
            matcher(asked.get("filterPattern") or asked.get("logEventFilterPattern") or "")
        elif operation == "StartQuery":
            _check_query(asked.get("queryString", ""))
    except NotEmulatedError as refused:
        return "MalformedQueryException" if operation == "StartQuery" else "InvalidParameterException", str(refused)
    return None


# ---- CloudWatch Logs -------------------------------------------------------------------------------

TERM = re.compile(r'\s*(?:(?P<word>\w+)|"(?P<phrase>(?:\\.|[^"\\])+)")(?=\s|$)')
SELECTOR = r'\$((?:\.\w+)+)\s*=\s*"([^"\\*%]*)"'
CONDITION = re.compile(SELECTOR)
JSON = re.compile(rf"\{{\s*{SELECTOR}(?:(?:\s*\|\|\s*{SELECTOR})*|(?:\s*&&\s*{SELECTOR})*)\s*\}}")


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a message matches a filter pattern. Raises NotEmulatedError for a pattern that this cannot judge."""
    pattern = pattern.strip()
    if JSON.fullmatch(pattern):
        conditions = CONDITION.findall(pattern)
        return lambda message: (all if "&&" in pattern else any)(
            _value(message, path) == value for path, value in conditions
        )
    terms, at = [], 0
    while at < len(pattern):
        found = TERM.match(pattern, at)
        if not found:
            raise NotEmulatedError(
                f"The emulator knows no filter pattern {pattern}: only words, phrases in quotes, "
                'and { $.field = "value" } joined by either || or &&'
            )
        terms.append(found["word"] or re.sub(r"\\(.)", r"\1", found["phrase"]))
        at = found.end()
    # UNCONFIRMED(filter-terms) whether the service finds a term within a longer word too.
    before, after = (r"(?<!\w)", r"(?!\w)") if answers.of("filter-terms") == "words" else ("", "")
    wanted = [re.compile(f"{before}{re.escape(term)}{after}") for term in terms]
    return lambda message: all(each.search(message) for each in wanted)


def _value(message: str, path: str) -> Any:
    """What is at `.a.b` in a message of JSON; None when there is nothing."""
    try:
        found = json.loads(message)
    except ValueError:
        return None
    for name in path.split(".")[1:]:
        found = found.get(name) if isinstance(found, dict) else None
    return found


HEEDED_STAGES = re.compile(r"(?i)(fields\s.+|sort\s+@\w+(\s+(asc|desc))?|limit\s+\d+)", re.DOTALL)


def _check_query(query: str) -> None:
    """Raises NotEmulatedError for a query of Logs Insights in which ministack would skip a stage."""
    for stage in cloudwatch_logs._split_insights_pipes(query):
        if not HEEDED_STAGES.fullmatch(stage) and cloudwatch_logs._compile_insights_filter(stage) is None:
            raise NotEmulatedError(f"The emulator cannot run this stage of a query: {stage}")


# ---- EC2 -------------------------------------------------------------------------------------------

GROUPS = ("DescribeSecurityGroups", "DescribeSecurityGroupRules")
"""Of these, moto says that it does not know a filter by a bare KeyError."""


def _with_known_filters(handle: Handler) -> Handler:
    """The EC2 handler `handle`, which refuses filters that it does not know, as EC2 does."""

    async def checked(method: str, path: str, headers: dict[str, str], body: bytes, query: Query) -> Any:
        asked = parse_qs(body.decode())
        action = asked.get("Action", [""])[0]
        names = [values[0] for name, values in asked.items() if re.fullmatch(r"Filter\.\d+\.Name", name)]
        if action == "DescribeManagedPrefixLists":
            unknown = [name for name in names if name not in PREFIX_LIST_FILTERS and not name.startswith("tag:")]
            if unknown:
                return _invalid_filter(unknown[0])
        try:
            return await handle(method, path, headers, body, query)
        except FilterNotImplementedError as problem:
            return _invalid_filter(str(problem))
        except KeyError as problem:
            if action in GROUPS and problem.args[0] in names:
                return _invalid_filter(problem.args[0])
            raise

    return checked


def _invalid_filter(name: str) -> tuple[int, dict[str, str], bytes]:
    """EC2's error for a filter that it does not know (EC2 API Reference, "Error codes")."""
    told = f"<Code>InvalidParameterValue</Code><Message>The filter {escape(name)} is not emulated</Message>"
    request = f"<RequestID>{secrets.token_hex(8)}</RequestID>"
    text = f"<Response><Errors><Error>{told}</Error></Errors>{request}</Response>"
    return 400, {"Content-Type": "text/xml"}, text.encode()
