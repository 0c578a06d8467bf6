"""Reads and deletes what a run creates: each kind of resource, by AWS's own words for its states."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from notebook_ssh_verify.account import Account, AwsError, Refusal
from notebook_ssh_verify.journal import Journal
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.ownership import (
    Absent,
    Created,
    Delete,
    Gone,
    Keep,
    Kind,
    Observation,
    Observed,
    Unreadable,
    deletion,
    in_order,
)

LIMIT_S = 1800.0
"""Seconds for one resource to be gone: a stack with an endpoint takes some minutes, a notebook that is starting too."""

POLL_S = 2.0

ABSENT = ("does not exist", "RecordNotFound", "ResourceNotFoundException", "NoSuchBucket")
"""Parts of AWS's codes and messages for what is not there (CloudFormation, SageMaker, DynamoDB, S3)."""

DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
"""Codes of calls that IAM does not allow (S3, most services, EC2)."""


class Left(NamedTuple):
    """Something that was not deleted. why: in a sentence without a full stop; command: deletes it by hand."""

    created: Created
    why: str
    command: str


def observe(account: Account, created: Created) -> Observation:
    """Return what AWS says of a resource. A refusal that is not "it does not exist" says nothing about it."""
    try:
        return _READERS[created.kind](account, created.name)
    except AwsError as error:
        told = f"{error.refusal.code}: {error.refusal.message}"
        return Absent() if any(words in told for words in ABSENT) else Unreadable(told)


def delete_all(account: Account, journal: Journal, say: Callable[[str], None]) -> list[Left]:
    """Delete everything that the journal's run created and still owns; return what is left. The journal ends if nothing is."""
    left: list[Left] = []
    done: set[Created] = set()
    while True:
        # Again from the journal after each: a stack's table is written down right before the stack is deleted.
        waiting = [each for each in in_order(journal.created()) if each not in done]
        if not waiting:
            break
        done.add(waiting[0])
        reason = _delete(account, journal, waiting[0], say)
        if reason:
            left.append(Left(waiting[0], reason, command(waiting[0], account.region)))
    if not left:
        journal.end()
    return left


def delete(lab: Lab, say: Callable[[str], None]) -> str | None:
    """Delete the stack under test; return why it is still there."""
    if lab.journal is None:
        raise RuntimeError("this run creates nothing, and was about to delete a stack")
    return _delete(lab.account, lab.journal, Created(Kind.STACK, lab.run.prefix), say)


def _delete(account: Account, journal: Journal, created: Created, say: Callable[[str], None]) -> str | None:
    """Delete one resource and wait until it is gone; return why it is still there."""
    ends, told, last = time.monotonic() + LIMIT_S, False, ""
    while True:
        match deletion(journal.run, created, observe(account, created)):
            case Gone():
                return None
            case Keep(why):
                return why
            case Delete(observed):
                pass
        if not told:
            say(f"deleting the {created.kind.value} {created.name}")
            told = True
        try:
            last = _DELETERS[created.kind](account, journal, created.name, observed) or last
        except AwsError as error:
            last = f"{error.refusal.code}: {error.refusal.message}"
            if error.refusal.code in DENIED:  # which time does not change
                return last
        if time.monotonic() > ends:
            return f"it is {observed.state or 'still there'}" + (f"; {last}" if last else "")
        time.sleep(POLL_S)


def command(created: Created, region: str) -> str:
    """Return the command that deletes a resource by hand."""
    words = {
        Kind.STACK: "cloudformation delete-stack --stack-name",
        Kind.LAB: "cloudformation delete-stack --stack-name",
        Kind.NOTEBOOK: "sagemaker delete-notebook-instance --notebook-instance-name",
        Kind.LIFECYCLE_CONFIG: (
            "sagemaker delete-notebook-instance-lifecycle-config --notebook-instance-lifecycle-config-name"
        ),
        Kind.TABLE: "dynamodb delete-table --table-name",
    }[created.kind]
    return f"aws {words} {created.name} --region {region}"


# ---- reading -----------------------------------------------------------------------------------


def _read_stack(account: Account, name: str) -> Observation:
    stack = account.call("cloudformation", "describe_stacks", StackName=name)["Stacks"][0]
    if stack["StackStatus"] == "DELETE_COMPLETE":
        return Absent()
    return Observed(_tags(stack.get("Tags", ())), _seconds(stack.get("CreationTime")), stack["StackStatus"])


def _read_notebook(account: Account, name: str) -> Observation:
    notebook = account.call("sagemaker", "describe_notebook_instance", NotebookInstanceName=name)
    tags = account.call("sagemaker", "list_tags", ResourceArn=notebook["NotebookInstanceArn"])["Tags"]
    return Observed(_tags(tags), _seconds(notebook.get("CreationTime")), notebook["NotebookInstanceStatus"])


def _read_lifecycle_config(account: Account, name: str) -> Observation:
    config = account.call(
        "sagemaker", "describe_notebook_instance_lifecycle_config", NotebookInstanceLifecycleConfigName=name
    )
    tags = account.call("sagemaker", "list_tags", ResourceArn=config["NotebookInstanceLifecycleConfigArn"])["Tags"]
    return Observed(_tags(tags), _seconds(config.get("CreationTime")))


def _read_table(account: Account, name: str) -> Observation:
    table = account.call("dynamodb", "describe_table", TableName=name)["Table"]
    tags = account.call("dynamodb", "list_tags_of_resource", ResourceArn=table["TableArn"])["Tags"]
    return Observed(_tags(tags), _seconds(table.get("CreationDateTime")), table["TableStatus"])


# ---- deleting ----------------------------------------------------------------------------------
# Each does what the state allows, and is called again until the resource is gone. It returns what is worth telling.


def _delete_stack(account: Account, journal: Journal, name: str, observed: Observed) -> str | None:
    if observed.state in ("DELETE_IN_PROGRESS", "CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS"):
        return None
    known = {each.name for each in journal.created()}
    for kind, place in _of_stack(account, name):
        if kind == "AWS::DynamoDB::Table" and place not in known:
            journal.note(Created(Kind.TABLE, place))
        if kind == "AWS::S3::Bucket":
            empty(account, place)
    account.call("cloudformation", "delete_stack", StackName=name)
    return failures(account, name) if observed.state == "DELETE_FAILED" else None


def _of_stack(account: Account, name: str) -> Iterator[tuple[str, str]]:
    """Yield the type and the physical id of each resource that a stack has."""
    more: dict[str, str] = {}
    while True:
        page = account.call("cloudformation", "list_stack_resources", StackName=name, **more)
        for each in page["StackResourceSummaries"]:
            if each.get("PhysicalResourceId") and each["ResourceStatus"] != "DELETE_COMPLETE":
                yield each["ResourceType"], each["PhysicalResourceId"]
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def empty(account: Account, bucket: str) -> None:
    """Delete every object of a bucket that a stack of the run created. Raises AwsError."""
    while True:
        answer = account.attempt("s3", "list_objects_v2", Bucket=bucket)
        if isinstance(answer, Refusal):
            if answer.code in ("NoSuchBucket", "404"):
                return
            raise AwsError("s3:ListObjectsV2", answer)
        for each in answer.get("Contents", ()):
            account.call("s3", "delete_object", Bucket=bucket, Key=each["Key"])
        if not answer.get("IsTruncated"):
            return


def failures(account: Account, stack: str) -> str:
    """Return why a stack's resources failed, the first of them first, in AWS's words."""
    events = account.call("cloudformation", "describe_stack_events", StackName=stack)["StackEvents"]
    told = [
        f"{each['LogicalResourceId']}: {each.get('ResourceStatusReason', '')}"
        for each in reversed(events)
        if each["ResourceStatus"].endswith("_FAILED") and "cancelled" not in each.get("ResourceStatusReason", "")
    ]
    return "; ".join(told[-3:])


def _delete_notebook(account: Account, _: Journal, name: str, observed: Observed) -> str | None:
    match observed.state:
        case "InService":
            account.call("sagemaker", "stop_notebook_instance", NotebookInstanceName=name)
        case "Stopped" | "Failed":
            account.call("sagemaker", "delete_notebook_instance", NotebookInstanceName=name)
        case _:
            pass  # it is on its way to one of them
    return None


def _delete_lifecycle_config(account: Account, _: Journal, name: str, __: Observed) -> str | None:
    account.call("sagemaker", "delete_notebook_instance_lifecycle_config", NotebookInstanceLifecycleConfigName=name)
    return None


def _delete_table(account: Account, _: Journal, name: str, observed: Observed) -> str | None:
    if observed.state == "ACTIVE":
        account.call("dynamodb", "delete_table", TableName=name)
    return None


_READERS: Mapping[Kind, Callable[[Account, str], Observation]] = {
    Kind.STACK: _read_stack,
    Kind.LAB: _read_stack,
    Kind.NOTEBOOK: _read_notebook,
    Kind.LIFECYCLE_CONFIG: _read_lifecycle_config,
    Kind.TABLE: _read_table,
}
_DELETERS: Mapping[Kind, Callable[[Account, Journal, str, Observed], str | None]] = {
    Kind.STACK: _delete_stack,
    Kind.LAB: _delete_stack,
    Kind.NOTEBOOK: _delete_notebook,
    Kind.LIFECYCLE_CONFIG: _delete_lifecycle_config,
    Kind.TABLE: _delete_table,
}


def _tags(tags: Any) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in tags}


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None
