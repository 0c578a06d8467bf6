"""Facts about SageMaker's API: what it compares, limits and refuses."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from notebook_ssh_verify.account import AwsError, Refusal
from notebook_ssh_verify.event_queue import await_event
from notebook_ssh_verify.experiments.base import Experiment, Need
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.notebooks import attached_config, stopped, undone
from notebook_ssh_verify.ownership import Kind

INVALID = "ValidationException"
"""SageMaker's code for what it does not accept (SageMaker API Reference, "Common errors")."""

SCRIPT_BYTES = 12_288
"""The largest script, as the fact has it."""

SCRIPT = b"#!/bin/bash\n"

READING_S = 60.0
"""Seconds that a run waits at most for a NextToken to expire if it does nothing but read."""

PLATFORM = "notebook-nbssh-v1"
"""A platform that SageMaker does not have; a name has at most 20 characters."""


# ---- name-case -------------------------------------------------------------------------------------


class NameCase(NamedTuple):
    """Whether a notebook is found under its name in other capitals, by either call; None: no notebook to ask for."""

    by_describe: bool | None
    by_list: bool | None


def observe_name_case(lab: Lab) -> NameCase:
    """Ask for a notebook under its name in other capitals: one of the run's, or any that the account has. Raises AwsError."""
    name = next(iter(lab.notebooks), None) or _any_name(lab)
    if name is None or name.swapcase() == name:
        return NameCase(None, None)
    described = lab.account.attempt("sagemaker", "describe_notebook_instance", NotebookInstanceName=name.swapcase())
    if isinstance(described, Refusal) and described.code != INVALID:  # that is how SageMaker says that there is none
        raise AwsError("sagemaker:DescribeNotebookInstance", described)
    listed = lab.account.call("sagemaker", "list_notebook_instances", NameContains=name.swapcase())
    names = [each["NotebookInstanceName"] for each in listed["NotebookInstances"]]
    return NameCase(not isinstance(described, Refusal), name in names)


def decide_name_case(seen: NameCase) -> Decision:
    """Both must ignore capitals."""
    match seen:
        case NameCase(None, _) | NameCase(_, None):
            return Undecided("the account has no notebook whose name has a letter")
        case NameCase(True, True):
            return Holds("both calls find a notebook under its name in other capitals")
        case NameCase(False, False):
            return Refuted("neither call finds a notebook under its name in other capitals")
        case NameCase(by_describe, _):
            finds = ("DescribeNotebookInstance finds", "ListNotebookInstances does not")
            if not by_describe:
                finds = ("ListNotebookInstances finds", "DescribeNotebookInstance does not")
            return Refuted(f"{finds[0]} a notebook under its name in other capitals, and {finds[1]}")


def _any_name(lab: Lab) -> str | None:
    page: dict[str, Any] = lab.account.call("sagemaker", "list_notebook_instances", MaxResults=10)
    names = (each["NotebookInstanceName"] for each in page["NotebookInstances"])
    return next((name for name in names if name.swapcase() != name), None)


# ---- script-limit ----------------------------------------------------------------------------------


class ScriptLimit(NamedTuple):
    """How SageMaker refused a script of SCRIPT_BYTES, and one of a byte more; None: it took it, or was not asked."""

    at_limit: Refusal | None
    above: Refusal | None


def observe_script_limit(lab: Lab) -> ScriptLimit:
    """Create a configuration with the largest script, and update it to one that is a byte larger."""
    with _configuration(lab, "limit", SCRIPT.ljust(SCRIPT_BYTES, b"#")) as (name, refused):
        if refused:
            return ScriptLimit(refused, None)
        above = lab.account.attempt(
            "sagemaker",
            "update_notebook_instance_lifecycle_config",
            NotebookInstanceLifecycleConfigName=name,
            OnStart=_hook(SCRIPT.ljust(SCRIPT_BYTES + 1, b"#")),
        )
    return ScriptLimit(None, above if isinstance(above, Refusal) else None)


def decide_script_limit(seen: ScriptLimit) -> Decision:
    """The limit must lie between the two."""
    at_limit, above = f"{SCRIPT_BYTES:,} bytes", f"{SCRIPT_BYTES + 1:,}"
    match seen:
        case ScriptLimit(None, None):
            return Refuted(f"a script of {above} bytes is accepted, which are 16,388 characters of base64")
        case ScriptLimit(None, Refusal(code=code)) if code == INVALID:
            return Holds(f"a script of {at_limit} is accepted, and one of {above} is refused")
        case ScriptLimit(Refusal(code=code), _) if code == INVALID:
            return Refuted(f"a script of {at_limit} is refused")
        case ScriptLimit(refusal, other):
            return Undecided(f"SageMaker answered {_codes(refusal, other)}, which says nothing of the size")


# ---- empty-hook ------------------------------------------------------------------------------------


class EmptyHook(NamedTuple):
    """refused: how SageMaker refused an empty list. left: scripts that the hook has afterwards. other: of the other hook."""

    refused: Refusal | None
    left: int
    other: int


def observe_empty_hook(lab: Lab) -> EmptyHook:
    """Create a configuration with both hooks, and update it with an empty list for one of them."""
    with _configuration(lab, "hook", SCRIPT, OnCreate=_hook(SCRIPT)) as (name, refused):
        if refused:
            return EmptyHook(refused, 0, 0)
        updated = lab.account.attempt(
            "sagemaker",
            "update_notebook_instance_lifecycle_config",
            NotebookInstanceLifecycleConfigName=name,
            OnStart=[],
            OnCreate=_hook(SCRIPT),
        )
        left = lab.account.call(
            "sagemaker", "describe_notebook_instance_lifecycle_config", NotebookInstanceLifecycleConfigName=name
        )
    refused = updated if isinstance(updated, Refusal) else None
    return EmptyHook(refused, len(left.get("OnStart", [])), len(left.get("OnCreate", [])))


def decide_empty_hook(seen: EmptyHook) -> Decision:
    """The update must be accepted, and leave no script."""
    match seen:
        case EmptyHook(Refusal(code=code)) if code == INVALID:
            return Refuted("an update with an empty list is refused")
        case EmptyHook(Refusal(code=code)):
            return Undecided(f"SageMaker answered {code}, which says nothing of an empty list")
        case EmptyHook(None, 0, 1):
            return Holds("an update with an empty list leaves the configuration without that script")
        case EmptyHook(None, 1):
            return Refuted("an update with an empty list is accepted, and the script is still there")
        case EmptyHook(_, left, other):
            return Undecided(f"the hooks have {left} and {other} scripts after an update that empties the first alone")


# ---- time-precision --------------------------------------------------------------------------------


class Times(NamedTuple):
    """A configuration's time of its last change in milliseconds, as each source has it; in_event: None if none came."""

    in_list: int
    described: int
    in_event: int | None = None


def observe_time_precision(lab: Lab) -> tuple[Times, ...]:
    """Compare the times of up to five configurations; where the run may create, one of them is new and has an event."""
    if not lab.outputs:
        return tuple(_listed_times(lab, None))
    with _configuration(lab, "times", SCRIPT) as (name, refused):
        if refused:
            return tuple(_listed_times(lab, None))
        told = await_event(lab, lambda event: event.detail.get("NotebookInstanceLifecycleConfigName") == name)
        in_event = _milliseconds(told.detail.get("LastModifiedTime")) if told else None
        return (*_listed_times(lab, name, in_event), *_listed_times(lab, None))


def decide_time_precision(seen: tuple[Times, ...]) -> Decision:
    """All must be equal, and some not on a whole second."""
    if not seen:
        return Undecided("the account has no lifecycle configuration")
    for times in seen:
        if times.in_list != times.described:
            return Refuted(f"a list has the time {_clock(times.in_list)} and the description {_clock(times.described)}")
        if times.in_event not in (None, times.described):
            return Refuted(
                f"an event has the time {_clock(times.in_event)} and the description {_clock(times.described)}"
            )
    how_many = "the time of 1 configuration" if len(seen) == 1 else f"the times of {len(seen)} configurations"
    if all(times.described % 1000 == 0 for times in seen):
        if len(seen) == 1:
            return Undecided(f"{how_many} is on a whole second in a list and in its description, which may be chance")
        return Refuted(f"{how_many} are whole seconds in lists and descriptions")
    events = "and in an event" if any(times.in_event for times in seen) else "but no event was seen"
    has = "has" if len(seen) == 1 else "have"
    return Holds(f"{how_many} {has} milliseconds, equal in lists and descriptions, {events}")


def _listed_times(lab: Lab, name: str | None, in_event: int | None = None) -> Iterator[Times]:
    """Of the configuration `name`, or of some that the run has not created: of those only the times are evidence."""
    sagemaker = lab.account.client("sagemaker")
    chosen = {"NameContains": name} if name else {"MaxResults": 5}
    page = sagemaker.list_notebook_instance_lifecycle_configs(**chosen)
    for each in page["NotebookInstanceLifecycleConfigs"]:
        found = each["NotebookInstanceLifecycleConfigName"]
        if name is None and found.startswith(lab.run.prefix):
            continue
        try:
            described = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=found)
        except ClientError as error:
            if error.response["Error"]["Code"] == INVALID:  # it has just been deleted
                continue
            raise
        times = _milliseconds(each["LastModifiedTime"]), _milliseconds(described["LastModifiedTime"])
        lab.account.note("sagemaker:ListNotebookInstanceLifecycleConfigs", f"LastModifiedTime {_clock(times[0])}")
        lab.account.note("sagemaker:DescribeNotebookInstanceLifecycleConfig", f"LastModifiedTime {_clock(times[1])}")
        yield Times(times[0] or 0, times[1] or 0, in_event)


def _milliseconds(moment: object) -> int | None:
    """A time as the SDK has it, or as an event has it: milliseconds, or seconds with a fraction."""
    match moment:
        case datetime():
            return round(moment.timestamp() * 1000)
        case int() | float() if moment > 1e11:
            return round(moment)
        case int() | float():
            return round(moment * 1000)
    return None


def _clock(milliseconds: int | None) -> str:
    return f"{(milliseconds or 0) / 1000:.3f}"


# ---- delete-attached -------------------------------------------------------------------------------


class DeleteAttached(NamedTuple):
    """How SageMaker refused to delete a configuration that is attached; None: it deleted it."""

    refused: Refusal | None


def observe_delete_attached(lab: Lab) -> DeleteAttached:
    """Attach a configuration to the last notebook, which is stopped for it, and delete that. The notebook ends as it was."""
    notebook = lab.notebooks[-1]
    with _configuration(lab, "attached", SCRIPT) as (name, refused):
        if refused:
            return DeleteAttached(refused)
        with stopped(lab, notebook), attached_config(lab, notebook, name):
            deleted = lab.account.attempt(
                "sagemaker", "delete_notebook_instance_lifecycle_config", NotebookInstanceLifecycleConfigName=name
            )
    return DeleteAttached(deleted if isinstance(deleted, Refusal) else None)


def decide_delete_attached(seen: DeleteAttached) -> Decision:
    """The deletion must be refused."""
    match seen:
        case DeleteAttached(None):
            return Refuted("a configuration that is attached to a notebook is deleted")
        case DeleteAttached(Refusal(code=code)) if code == INVALID:
            return Holds("SageMaker refuses to delete a configuration that is attached to a notebook")
        case DeleteAttached(refusal):
            return Undecided(f"SageMaker answered {_codes(refusal)}, which says nothing of configurations in use")


# ---- expired-page ----------------------------------------------------------------------------------


class ExpiredPage(NamedTuple):
    """How SageMaker refused a NextToken after `seconds`; None: it took it. made_up: its code for a token that is none."""

    seconds: float
    refused: Refusal | None
    made_up: str = ""


def observe_expired_page(lab: Lab) -> ExpiredPage | None:
    """Keep a NextToken of a list for a while, and then ask for the next page. None: the account has no second page."""
    for method in ("list_notebook_instance_lifecycle_configs", "list_notebook_instances"):
        token = getattr(lab.account.client("sagemaker"), method)(MaxResults=1).get("NextToken")
        if token is None:
            continue
        began = time.monotonic()
        made_up = _ask_for_page(lab, method, "bmJzc2gtdmVyaWZ5", "that is made up")
        time.sleep(lab.event_limit_s if lab.outputs else min(READING_S, lab.event_limit_s))
        seconds = time.monotonic() - began
        refused = _ask_for_page(lab, method, token, f"that is {seconds:.0f} s old")
        return ExpiredPage(seconds, refused, made_up.code if made_up else "no error")
    return None


def _ask_for_page(lab: Lab, method: str, token: str, what: str) -> Refusal | None:
    """How SageMaker refuses a NextToken. What it lists is no evidence: the names are others'."""
    call = f"sagemaker:{method} with a NextToken {what}"
    try:
        getattr(lab.account.client("sagemaker"), method)(MaxResults=1, NextToken=token)
    except ClientError as error:
        refusal = Refusal(error.response["Error"]["Code"], error.response["Error"]["Message"], 400)
        lab.account.note(call, f"{refusal.code}: {refusal.message}")
        return refusal
    lab.account.note(call, "a page")
    return None


def decide_expired_page(seen: ExpiredPage | None) -> Decision:
    """The token must be refused by then, as invalid."""
    match seen:
        case None:
            return Undecided(
                "the account has neither two notebooks nor two lifecycle configurations, so no second page"
            )
        case ExpiredPage(seconds, None, made_up):
            return Undecided(
                f"a NextToken is still accepted after {seconds:.0f} s, and one that SageMaker never gave gets {made_up}"
            )
        case ExpiredPage(seconds, Refusal(code=code)) if code == INVALID:
            return Holds(f"a NextToken that is {seconds:.0f} s old is refused as a {INVALID}")
        case ExpiredPage(seconds, Refusal(code, message)) if "token" in f"{code} {message}".lower():
            return Refuted(f"a NextToken that is {seconds:.0f} s old is refused as {code}")
        case ExpiredPage(_, refusal):
            return Undecided(f"SageMaker answered {_codes(refusal)}, which says nothing of the NextToken")


# ---- platform-refusal ------------------------------------------------------------------------------


class PlatformRefusal(NamedTuple):
    """How SageMaker refused an unknown platform; None: it took it."""

    refused: Refusal | None


def observe_platform_refusal(lab: Lab) -> PlatformRefusal:
    """Create a notebook on a platform that is none. If SageMaker takes it, the end of the run deletes the notebook."""
    name = lab.run.name("platform")
    lab.creating(Kind.NOTEBOOK, name)
    made = lab.account.attempt(
        "sagemaker",
        "create_notebook_instance",
        NotebookInstanceName=name,
        InstanceType="ml.t3.medium",
        RoleArn=lab.outputs["NotebookRole"],
        PlatformIdentifier=PLATFORM,
        Tags=lab.tags,
    )
    return PlatformRefusal(made if isinstance(made, Refusal) else None)


def decide_platform_refusal(seen: PlatformRefusal) -> Decision:
    """It must be refused as invalid, because of the platform."""
    match seen:
        case PlatformRefusal(None):
            return Refuted(f"SageMaker creates a notebook on the platform {PLATFORM}")
        case PlatformRefusal(Refusal(code, message)) if "platform" in message.lower():
            if code == INVALID:
                return Holds(f"SageMaker refuses an unknown platform as a {INVALID}")
            return Refuted(f"SageMaker refuses an unknown platform as {code}")
        case PlatformRefusal(refusal):
            return Undecided(f"SageMaker answered {_codes(refusal)}, which says nothing of the platform")


# ---- configurations of an experiment ---------------------------------------------------------------


@contextmanager
def _configuration(lab: Lab, what: str, on_start: bytes, **more: Any) -> Iterator[tuple[str, Refusal | None]]:
    """A configuration of the run while inside: its name, and how SageMaker refused it if it did."""
    name = lab.run.name(what)
    lab.creating(Kind.LIFECYCLE_CONFIG, name)
    made = lab.account.attempt(
        "sagemaker",
        "create_notebook_instance_lifecycle_config",
        NotebookInstanceLifecycleConfigName=name,
        OnStart=_hook(on_start),
        Tags=lab.tags,
        **more,
    )
    if isinstance(made, Refusal):
        yield name, made
        return
    delete = partial(
        lab.account.attempt,
        "sagemaker",
        "delete_notebook_instance_lifecycle_config",
        NotebookInstanceLifecycleConfigName=name,
    )
    with undone(delete):
        yield name, None


def _hook(script: bytes) -> list[dict[str, str]]:
    return [{"Content": base64.b64encode(script).decode()}]


def _codes(*refusals: Refusal | None) -> str:
    return " and ".join(refusal.code if refusal else "no error" for refusal in refusals)


_READS: frozenset[Need] = frozenset()

EXPERIMENTS: tuple[Experiment[Any], ...] = (
    Experiment(
        "name-case",
        "describe and list a notebook under its name in other capitals",
        _READS,
        observe_name_case,
        decide_name_case,
    ),
    Experiment(
        "script-limit",
        f"create a lifecycle configuration with a script of {SCRIPT_BYTES:,} bytes, and update it to one more",
        frozenset({Need.LAB}),
        observe_script_limit,
        decide_script_limit,
    ),
    Experiment(
        "empty-hook",
        "create a lifecycle configuration with a script, and update it with an empty list",
        frozenset({Need.LAB}),
        observe_empty_hook,
        decide_empty_hook,
    ),
    Experiment(
        "time-precision",
        "compare the times of lifecycle configurations in a list, in descriptions and in an event",
        _READS,
        observe_time_precision,
        decide_time_precision,
    ),
    Experiment(
        "delete-attached",
        "stop the second notebook, attach a lifecycle configuration to it, and delete that",
        frozenset({Need.LAB, Need.NOTEBOOK}),
        observe_delete_attached,
        decide_delete_attached,
    ),
    Experiment(
        "expired-page",
        "keep a NextToken of a list for a while, and ask for the next page",
        _READS,
        observe_expired_page,
        decide_expired_page,
    ),
    Experiment(
        "platform-refusal",
        "create a notebook on a platform that does not exist",
        frozenset({Need.LAB}),
        observe_platform_refusal,
        decide_platform_refusal,
    ),
)
