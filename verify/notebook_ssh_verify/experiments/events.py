"""Facts about events: what EventBridge gets of a change of tags, and of a call of a key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from notebook_ssh_verify.event_queue import Event, await_event, is_reached
from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab

PROBE_TAG = "nbssh-verify-probe"
"""The key of the tag that is put on a notebook of the run. No stack has it as its TagKey."""

CALL = "AWS API Call via CloudTrail"

NO_TRAIL = "a trail that logs management events must be on (docs/deploy.md, Where events come from)"


# ---- tag-events ------------------------------------------------------------------------------------


class TagEvent(NamedTuple):
    """came: whether the event came; after so many seconds. reached: whether the run's own event reached the same queue."""

    came: bool
    seconds: float
    reached: bool = True


def observe_tag_events(lab: Lab) -> TagEvent:
    """Put a tag on a notebook of the run, wait for the event, and remove the tag."""
    notebook = lab.notebooks[-1]
    began = time.monotonic()
    tagged = _tag(lab, notebook)

    def is_own(event: Event) -> bool:
        return event.source == "aws.tag" and tagged.arn in event.resources and tagged.value in json.dumps(event.detail)

    event = await_event(lab, is_own)
    seconds = time.monotonic() - began
    _untag(lab, notebook)
    return TagEvent(event is not None, seconds, event is not None or is_reached(lab))


def decide_tag_events(seen: TagEvent) -> Decision:
    """The event must come."""
    match seen:
        case TagEvent(came=True, seconds=seconds):
            return Holds(f"an event of aws.tag came {seconds:.0f} s after AddTags on a notebook")
        case TagEvent(came=False, seconds=seconds, reached=True):
            return Refuted(f"no event of aws.tag came within {seconds:.0f} s after AddTags on a notebook")
        case _:
            return Undecided("no event reaches the run's queue, not even its own")


# ---- cloudtrail-shape ------------------------------------------------------------------------------


class CallShape(NamedTuple):
    """The names in requestParameters of AddTags, sorted, those of a tag after a dot; None: no event came.

    seconds and reached: as in TagEvent.
    """

    names: tuple[str, ...] | None
    seconds: float
    reached: bool = True


LOWER_CAMEL_CASE = ("resourceArn", "tags", "tags.key", "tags.value")
AS_SENT = ("ResourceArn", "Tags", "Tags.Key", "Tags.Value")


def observe_call_shape(lab: Lab) -> CallShape:
    """Put a tag on a notebook of the run, wait for CloudTrail's event of the call, and remove the tag."""
    notebook = lab.notebooks[-1]
    began = time.monotonic()
    tagged = _tag(lab, notebook)

    def is_own(event: Event) -> bool:
        told = json.dumps(event.detail)
        # Without any value, should CloudTrail leave values out; not with that of another call.
        is_other_call = PROBE_TAG in told and tagged.value not in told
        return event.detail.get("eventName") == "AddTags" and tagged.arn in told.lower() and not is_other_call

    event = await_event(lab, is_own)
    seconds = time.monotonic() - began
    _untag(lab, notebook)
    if event is None:
        return CallShape(None, seconds, is_reached(lab))
    return CallShape(tuple(sorted(set(_names(event.detail.get("requestParameters") or {})))), seconds)


def decide_call_shape(seen: CallShape) -> Decision:
    """All names must begin with a small letter."""
    match seen:
        case CallShape(None, seconds, reached):
            if not reached:
                return Undecided("no event reaches the run's queue, not even its own")
            return Undecided(f"no event of CloudTrail came within {seconds:.0f} s after AddTags: {NO_TRAIL}")
        case CallShape(names) if names == LOWER_CAMEL_CASE:
            return Holds(f"CloudTrail's event of AddTags has the parameters {', '.join(names)}")
        case CallShape(names) if names == AS_SENT:
            return Refuted(f"CloudTrail's event of AddTags has the parameters {', '.join(names)}")
        case CallShape(names):
            told = ", ".join(names or ()) or "no parameters"
            return Undecided(f"CloudTrail's event of AddTags has neither spelling: {told}")


def _names(parameters: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The names in a request's parameters, two levels deep."""
    for name, value in parameters.items():
        yield f"{before}{name}"
        for part in value if isinstance(value, list) and not before else ():
            if isinstance(part, dict):
                yield from _names(part, f"{name}.")


# ---- key-in-trail ----------------------------------------------------------------------------------


class KeyCall(NamedTuple):
    """named: whether CloudTrail's event of Sign names the key in `resources`; None: no event came. code: its errorCode.

    has_key: whether the stack has a signing key. seconds and reached: as in TagEvent.
    """

    has_key: bool
    named: bool | None = None
    code: str = ""
    seconds: float = 0
    reached: bool = True


def observe_key_call(lab: Lab) -> KeyCall:
    """Let a role of the run ask for a signature as a dry run, which the key's policy denies it, and wait for the event."""
    key = _signing_key(lab)
    if key is None:
        return KeyCall(has_key=False)
    name = lab.run.name("key")
    signer = lab.account.as_role(lab.outputs["KeyRole"], name)
    began = time.monotonic()
    signer.attempt(
        "kms",
        "sign",
        KeyId=key,
        Message=b"nbssh-verify",
        MessageType="RAW",
        SigningAlgorithm="ECDSA_SHA_256",
        DryRun=True,
    )

    def is_own(event: Event) -> bool:
        caller = str((event.detail.get("userIdentity") or {}).get("arn", ""))
        return event.kind == CALL and event.detail.get("eventName") == "Sign" and caller.endswith(f"/{name}")

    event = await_event(lab, is_own)
    seconds = time.monotonic() - began
    if event is None:
        return KeyCall(True, None, "", seconds, is_reached(lab))
    named = [str(each.get("ARN", "")) for each in event.detail.get("resources") or () if isinstance(each, dict)]
    return KeyCall(True, key in named, str(event.detail.get("errorCode", "")), seconds)


def decide_key_call(seen: KeyCall) -> Decision:
    """The event must name the key. One of the watched calls stands for all: the others would change the key."""
    call = f"a Sign that ended with {seen.code}" if seen.code else "a Sign"
    match seen:
        case KeyCall(has_key=False):
            return Undecided("the stack has no signing key (Certificates=false)")
        case KeyCall(named=None, reached=False):
            return Undecided("no event reaches the run's queue, not even its own")
        case KeyCall(named=None, seconds=seconds):
            return Undecided(f"no event of CloudTrail came within {seconds:.0f} s after Sign: {NO_TRAIL}")
        case KeyCall(named=True):
            return Holds(f"CloudTrail's event of {call} names the key in resources; no other watched call was made")
        case _:
            return Refuted(f"CloudTrail's event of {call} does not name the key in resources")


def _signing_key(lab: Lab) -> str | None:
    """The ARN of the stack's first key."""
    pages = lab.account.client("cloudformation").get_paginator("list_stack_resources")
    for page in pages.paginate(StackName=lab.stack_name):
        for resource in page["StackResourceSummaries"]:
            if resource["ResourceType"] == "AWS::KMS::Key":
                described = lab.account.call("kms", "describe_key", KeyId=resource["PhysicalResourceId"])
                return str(described["KeyMetadata"]["Arn"])
    return None


# ---- tags ------------------------------------------------------------------------------------------


class _Tagged(NamedTuple):
    arn: str
    value: str


def _tag(lab: Lab, notebook: str) -> _Tagged:
    """Put the tag, with a new value, on a notebook of the run. Raises AwsError."""
    tagged = _Tagged(str(lab.describe_notebook(notebook)["NotebookInstanceArn"]), uuid4().hex[:8])
    tags = [{"Key": PROBE_TAG, "Value": tagged.value}]
    lab.account.call("sagemaker", "add_tags", ResourceArn=tagged.arn, Tags=tags)
    return tagged


def _untag(lab: Lab, notebook: str) -> None:
    arn = str(lab.describe_notebook(notebook)["NotebookInstanceArn"])
    lab.account.attempt("sagemaker", "delete_tags", ResourceArn=arn, TagKeys=[PROBE_TAG])


EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "tag-events",
        "put a tag on the second notebook, and wait for an event of aws.tag",
        frozenset({Need.LAB, Need.NOTEBOOK}),
        observe_tag_events,
        decide_tag_events,
    ),
    Experiment(
        "cloudtrail-shape",
        "put a tag on the second notebook, and wait for CloudTrail's event of the call",
        frozenset({Need.LAB, Need.NOTEBOOK}),
        observe_call_shape,
        decide_call_shape,
    ),
    Experiment(
        "key-in-trail",
        "ask for a signature by the stack's key as a dry run, which is denied, and wait for CloudTrail's event",
        frozenset({Need.LAB, Need.STACK}),
        observe_key_call,
        decide_key_call,
    ),
)
