"""SageMaker: notebook instances, their tags and their lifecycle configurations.

Every answer of the service is one of: a value, `NotFoundError` (it said that the thing does not exist), `RetryableError`
(it said later, or nothing), or the service's own error, which nobody foresaw and which is raised as it is.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.adapters.clients import client, code_of, message_of, retryable
from notebook_ssh.errors import NotFoundError, RetryableError
from notebook_ssh.model.managed_block import SHEBANG
from notebook_ssh.model.record import OWNER_TAG, Network, NotebookState
from notebook_ssh.planning.observation import LifecycleConfig, LifecycleConfigSummary, Notebook, NotebookSummary

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import NotebookInstanceLifecycleHookTypeDef

PAGE = 100
"""Most results of one page (MaxResults of both lists)."""


class InvalidStateError(RetryableError):
    """The notebook is in a status that does not allow the call. The next change of its status is the time to try again."""


class ScriptConflictError(RetryableError):
    """Somebody else wrote the configuration, or attached one, between our reading and our writing."""


def _ask(call: Callable[..., Any], **given: Any) -> Any:
    """One request, with the service's error told apart by its code, and by its words where the code says too little."""
    try:
        return call(**given)
    except ClientError as error:
        raise _meaning(error) from error
    except BotoCoreError as error:
        raise (retryable(error) or error) from error


def _meaning(error: ClientError) -> Exception:
    later = retryable(error)
    if later:
        return later
    code, message = code_of(error), message_of(error)
    if code == "ResourceNotFound":
        return NotFoundError(message)
    # ValidationException is SageMaker's one code for all of these; seen in its answers.
    if code == "ValidationException":
        if "RecordNotFound" in message or "does not exist" in message:
            return NotFoundError(message)
        if "Unable to transition" in message:
            return InvalidStateError(message)
    return error


# ---- notebooks ---------------------------------------------------------------------------------


def find_notebook(name: str) -> Notebook:
    """The notebook `name`, whatever its capitals: an ARN gives the name in lower case only. NotFoundError when there is none.

    UNCONFIRMED whether DescribeNotebookInstance minds capitals, and whether `NameContains` does: if both do, the
    whole list is read, one request for each 100.
    """
    try:
        return describe_notebook(name)
    except NotFoundError:
        for line in itertools.chain(list_notebooks(NameContains=name), list_notebooks()):
            if line.name != name and line.name.lower() == name.lower():
                return describe_notebook(line.name)
        raise


def describe_notebook(name: str) -> Notebook:
    """The notebook of exactly this name. One request. NotFoundError when there is none."""
    answer = _ask(client("sagemaker").describe_notebook_instance, NotebookInstanceName=name)
    return Notebook(
        name=answer["NotebookInstanceName"],
        arn=answer["NotebookInstanceArn"],
        role=answer["RoleArn"].rpartition("/")[2],
        state=NotebookState(answer["NotebookInstanceStatus"]),
        state_since=int(answer["LastModifiedTime"].timestamp()),
        lifecycle_config=answer.get("NotebookInstanceLifecycleConfigName"),
        network=Network(
            subnet=answer.get("SubnetId"),
            security_groups=tuple(answer.get("SecurityGroups") or ()),
            interface=answer.get("NetworkInterfaceId"),
        ),
    )


def list_notebooks(**filters: str) -> Iterator[NotebookSummary]:
    """Every notebook that passes `filters` (parameters of ListNotebookInstances). One request for each 100."""
    for line in _pages(client("sagemaker").list_notebook_instances, "NotebookInstances", filters):
        yield NotebookSummary(
            name=line["NotebookInstanceName"],
            arn=line["NotebookInstanceArn"],
            state=NotebookState(line["NotebookInstanceStatus"]),
            state_since=int(line["LastModifiedTime"].timestamp()),
            lifecycle_config=line.get("NotebookInstanceLifecycleConfigName"),
        )


def users_of_lifecycle_config(lifecycle_config: str) -> list[NotebookSummary]:
    """The notebooks that `configuration` is attached to. The service's filter finds parts of names; only equal ones count."""
    lines = list_notebooks(NotebookInstanceLifecycleConfigNameContains=lifecycle_config)
    return [line for line in lines if line.lifecycle_config == lifecycle_config]


def verify_detached(notebook: str) -> None:
    """The last look at a notebook that had no configuration: ScriptConflictError when it has one by now."""
    there = describe_notebook(notebook).lifecycle_config
    if there is not None:
        raise ScriptConflictError(f"{notebook} was given the configuration {there} since it was looked at")


def attach(notebook: str, lifecycle_config: str) -> None:
    """Attach `configuration`, right after the last look. InvalidStateError unless the notebook is at rest."""
    _ask(
        client("sagemaker").update_notebook_instance,
        NotebookInstanceName=notebook,
        LifecycleConfigName=lifecycle_config,
    )


def detach(notebook: str) -> None:
    """Leave the notebook without configuration. InvalidStateError unless it is at rest."""
    _ask(client("sagemaker").update_notebook_instance, NotebookInstanceName=notebook, DisassociateLifecycleConfig=True)


def stop(notebook: str) -> None:
    """Begin to stop the notebook. InvalidStateError unless it is in service."""
    _ask(client("sagemaker").stop_notebook_instance, NotebookInstanceName=notebook)


def start(notebook: str) -> None:
    """Begin to start the notebook. InvalidStateError unless it is at rest."""
    _ask(client("sagemaker").start_notebook_instance, NotebookInstanceName=notebook)


# ---- tags --------------------------------------------------------------------------------------


def read_tags(arn: str) -> dict[str, str]:
    """All tags of a notebook or configuration; at most 50, which is one page. NotFoundError when it does not exist."""
    tags = _pages(client("sagemaker").list_tags, "Tags", {"ResourceArn": arn})
    return {tag["Key"]: tag["Value"] for tag in tags}


def write_tags(arn: str, tags: Mapping[str, str]) -> None:
    """Set these tags, and leave the others."""
    _ask(
        client("sagemaker").add_tags,
        ResourceArn=arn,
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def remove_tags(arn: str, *keys: str) -> None:
    """Remove these tags; one that isn't there is fine."""
    _ask(client("sagemaker").delete_tags, ResourceArn=arn, TagKeys=list(keys))


# ---- lifecycle configurations ------------------------------------------------------------------


def find_lifecycle_config(name: str) -> LifecycleConfig:
    """The configuration `name`, whatever its capitals (see `find_notebook`). NotFoundError when there is none."""
    try:
        return describe_lifecycle_config(name)
    except NotFoundError:
        for line in itertools.chain(list_lifecycle_configs(NameContains=name), list_lifecycle_configs()):
            if line.name != name and line.name.lower() == name.lower():
                return describe_lifecycle_config(line.name)
        raise


def describe_lifecycle_config(name: str) -> LifecycleConfig:
    """The configuration of exactly this name. One request. NotFoundError when there is none."""
    answer = _ask(
        client("sagemaker").describe_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name
    )
    return LifecycleConfig(
        name=answer["NotebookInstanceLifecycleConfigName"],
        arn=answer["NotebookInstanceLifecycleConfigArn"],
        modified=_milliseconds(answer["LastModifiedTime"]),
        on_create=_script_plan(answer.get("OnCreate")),
        on_start=_script_plan(answer.get("OnStart")),
    )


def list_lifecycle_configs(**filters: str) -> Iterator[LifecycleConfigSummary]:
    """Every configuration that passes `filters`. One request for each 100."""
    call = client("sagemaker").list_notebook_instance_lifecycle_configs
    for line in _pages(call, "NotebookInstanceLifecycleConfigs", filters):
        yield LifecycleConfigSummary(
            name=line["NotebookInstanceLifecycleConfigName"],
            arn=line["NotebookInstanceLifecycleConfigArn"],
            modified=_milliseconds(line["LastModifiedTime"]),
        )


def create_lifecycle_config(name: str, on_create: bytes, on_start: bytes, stack: str) -> None:
    """Make a configuration that carries `stack` in its tag. One that is there already stays as it is."""
    try:
        _ask(
            client("sagemaker").create_notebook_instance_lifecycle_config,
            NotebookInstanceLifecycleConfigName=name,
            OnCreate=_hook(on_create),
            OnStart=_hook(on_start),
            Tags=[{"Key": OWNER_TAG, "Value": stack}],
        )
    except ClientError as error:
        if code_of(error) != "ValidationException" or "already exists" not in message_of(error):
            raise


def delete_lifecycle_config(expected: LifecycleConfig) -> None:
    """Delete a configuration that still is as `seen`; one that isn't there is fine.

    ScriptConflictError when somebody wrote into it, or when the service does not let it go. UNCONFIRMED whether one that
    is attached can be deleted, and how that is refused.
    """
    name = expected.name
    try:
        if _scripts(describe_lifecycle_config(name)) != _scripts(expected):
            raise ScriptConflictError(f"the configuration {name} was changed since it was read")
        _ask(client("sagemaker").delete_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name)
    except NotFoundError:
        return
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        raise ScriptConflictError(f"the configuration {name} was not deleted: {message_of(error)}") from error


def verify_unchanged(expected: LifecycleConfig) -> None:
    """The last look at a configuration, since the service has no conditional write: ScriptConflictError unless it is as `seen`."""
    if _scripts(describe_lifecycle_config(expected.name)) != _scripts(expected):
        raise ScriptConflictError(f"the configuration {expected.name} was changed since it was read")


def write_script(expected: LifecycleConfig, on_start: bytes | None) -> LifecycleConfig:
    """Replace the on-start script, right after the last look; the other hook goes back as it was seen.

    Another look comes after it. Raises ScriptConflictError, with somebody else's script in place, when that differs.
    Answers the configuration as it is then. None for `on_start` means that there shall be no script; should the
    service not take that, a script that does nothing is left instead.
    """
    if on_start is None:
        return _clear_script(expected)
    _update(expected, _hook(on_start))
    return _verified(expected, on_start)


def _clear_script(expected: LifecycleConfig) -> LifecycleConfig:
    # UNCONFIRMED whether an empty list clears the hook, leaves it, or is refused.
    try:
        _update(expected, [])
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
    after = describe_lifecycle_config(expected.name)
    if after.on_start is None:
        return after
    if _scripts(after) != _scripts(expected):
        raise ScriptConflictError(f"the configuration {expected.name} was changed while it was written")
    _update(expected, _hook(SHEBANG))
    return _verified(expected, SHEBANG)


def _verified(expected: LifecycleConfig, on_start: bytes) -> LifecycleConfig:
    after = describe_lifecycle_config(expected.name)
    if _scripts(after) != (expected.on_create, on_start):
        raise ScriptConflictError(f"the configuration {expected.name} is not as it was just written")
    return after


def _update(expected: LifecycleConfig, on_start: list[NotebookInstanceLifecycleHookTypeDef]) -> None:
    hooks: dict[str, Any] = {"OnStart": on_start}
    if expected.on_create is not None:
        hooks["OnCreate"] = _hook(expected.on_create)
    _ask(
        client("sagemaker").update_notebook_instance_lifecycle_config,
        NotebookInstanceLifecycleConfigName=expected.name,
        **hooks,
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _scripts(lifecycle_config: LifecycleConfig) -> tuple[bytes | None, bytes | None]:
    return lifecycle_config.on_create, lifecycle_config.on_start


def _hook(script: bytes) -> list[NotebookInstanceLifecycleHookTypeDef]:
    return [{"Content": base64.b64encode(script).decode()}]


def _script_plan(hooks: list[Mapping[str, str]] | None) -> bytes | None:
    return base64.b64decode(hooks[0]["Content"]) if hooks and hooks[0].get("Content") else None


def _pages(call: Callable[..., Any], field: str, given: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    more: dict[str, Any] = {"MaxResults": PAGE}
    while True:
        page = _ask(call, **given, **more)
        yield from page.get(field) or ()
        token = page.get("NextToken")
        if not token:
            return
        more["NextToken"] = token
