"""SageMaker: notebook instances, their tags and their lifecycle configurations.

Every function can raise RetryableError, and every function that names a resource NotFoundError when SageMaker reports
that it does not exist. Errors without a documented meaning are raised unchanged (`clients.translated_errors`).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from notebook_ssh.adapters.clients import call, client, code_of, message_of
from notebook_ssh.errors import NotFoundError, RetryableError
from notebook_ssh.model.managed_block import SHEBANG
from notebook_ssh.model.record import OWNER_TAG, Network, NotebookState
from notebook_ssh.model.text import excerpt
from notebook_ssh.planning.observation import LifecycleConfig, LifecycleConfigSummary, Notebook, NotebookSummary

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import NotebookInstanceLifecycleHookTypeDef

PAGE = 100
"""Most results of one page (API reference, `MaxResults` of both lists)."""


FAILURE_LENGTH = 300
"""Characters of a notebook's `FailureReason` that are shown. SageMaker returns up to 1,024."""

NAMES_CACHE_S = 60
"""Seconds for which a list of all names is used again, to find a name whose case is not known."""

_names: dict[str, tuple[int, dict[str, str]]] = {}
"""When each list was read (epoch seconds), and its names by their lower case."""


def forget() -> None:
    """Clear the cache."""
    _names.clear()


class ScriptConflictError(RetryableError):
    """The configuration was changed, or another one attached, between reading and writing."""


class ScriptChangedError(ScriptConflictError):
    """The configuration was changed before it was written: nothing was."""


# ---- notebooks ---------------------------------------------------------------------------------


def find_notebook(name: str, now: int) -> Notebook:
    """Return the notebook with a name (case-insensitive, because an ARN has the name in lower case only).

    UNCONFIRMED(name-case) whether DescribeNotebookInstance and `NameContains` are case-sensitive: if both are, the whole list is
    read (`_name_in_its_case`). now: epoch seconds. Raises NotFoundError when there is none.
    """
    try:
        return describe_notebook(name)
    except NotFoundError:
        found = _name_in_its_case(name, now, list_notebooks)
        if found is None:
            raise
        return describe_notebook(found)


def describe_notebook(name: str) -> Notebook:
    """Return the notebook of exactly this name. Raises NotFoundError when there is none."""
    response = call(client("sagemaker").describe_notebook_instance, NotebookInstanceName=name)
    return Notebook(
        name=response["NotebookInstanceName"],
        arn=response["NotebookInstanceArn"],
        role=response["RoleArn"].rpartition("/")[2],
        state=NotebookState(response["NotebookInstanceStatus"]),
        state_since=int(response["LastModifiedTime"].timestamp()),
        lifecycle_config=response.get("NotebookInstanceLifecycleConfigName"),
        network=Network(
            subnet=response.get("SubnetId"),
            security_groups=tuple(response.get("SecurityGroups") or ()),
            interface=response.get("NetworkInterfaceId"),
        ),
        platform=response.get("PlatformIdentifier", ""),
        created_at=int(response["CreationTime"].timestamp()) if "CreationTime" in response else 0,
        failure=excerpt(response.get("FailureReason", ""), FAILURE_LENGTH),
    )


def list_notebooks(**filters: str) -> Iterator[NotebookSummary]:
    """Yield every notebook that matches `filters` (parameters of ListNotebookInstances). One request for each 100."""
    for line in _pages(client("sagemaker").list_notebook_instances, "NotebookInstances", filters):
        yield NotebookSummary(
            name=line["NotebookInstanceName"],
            arn=line["NotebookInstanceArn"],
            state=NotebookState(line["NotebookInstanceStatus"]),
            state_since=int(line["LastModifiedTime"].timestamp()),
            lifecycle_config=line.get("NotebookInstanceLifecycleConfigName"),
        )


def users_of_lifecycle_config(lifecycle_config: str) -> list[NotebookSummary]:
    """Return the notebooks that a configuration is attached to. The service's filter also finds parts of names."""
    lines = list_notebooks(NotebookInstanceLifecycleConfigNameContains=lifecycle_config)
    return [line for line in lines if line.lifecycle_config == lifecycle_config]


def verify_detached(notebook: str) -> None:
    """Raise ScriptConflictError when a notebook has a configuration. Called right before one is attached."""
    there = describe_notebook(notebook).lifecycle_config
    if there is not None:
        raise ScriptConflictError(f"{notebook} was given the configuration {there} since it was read")


def attach(notebook: str, lifecycle_config: str) -> None:
    """Attach a configuration. Raises InvalidStateError unless the notebook is stopped or failed."""
    call(
        client("sagemaker").update_notebook_instance,
        NotebookInstanceName=notebook,
        LifecycleConfigName=lifecycle_config,
    )


def detach(notebook: str) -> None:
    """Detach the notebook's configuration. Raises InvalidStateError unless the notebook is stopped or failed."""
    call(client("sagemaker").update_notebook_instance, NotebookInstanceName=notebook, DisassociateLifecycleConfig=True)


def stop(notebook: str) -> None:
    """Stop the notebook, without waiting for it. Raises InvalidStateError unless it is in service."""
    call(client("sagemaker").stop_notebook_instance, NotebookInstanceName=notebook)


def start(notebook: str) -> None:
    """Start the notebook, without waiting for it. Raises InvalidStateError unless it is stopped or failed."""
    call(client("sagemaker").start_notebook_instance, NotebookInstanceName=notebook)


# ---- tags --------------------------------------------------------------------------------------


def read_tags(arn: str) -> dict[str, str]:
    """Return all tags of a notebook or configuration. Raises NotFoundError when it does not exist."""
    tags = _pages(client("sagemaker").list_tags, "Tags", {"ResourceArn": arn})
    return {tag["Key"]: tag["Value"] for tag in tags}


def write_tags(arn: str, tags: Mapping[str, str]) -> None:
    """Set these tags, and leave the others unchanged."""
    call(
        client("sagemaker").add_tags,
        ResourceArn=arn,
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def remove_tags(arn: str, *keys: str) -> None:
    """Remove these tags. It is no error when one does not exist."""
    call(client("sagemaker").delete_tags, ResourceArn=arn, TagKeys=list(keys))


# ---- lifecycle configurations ------------------------------------------------------------------


def find_lifecycle_config(name: str, now: int) -> LifecycleConfig:
    """Return the configuration with a name (case-insensitive, see `find_notebook`). Raises NotFoundError."""
    try:
        return describe_lifecycle_config(name)
    except NotFoundError:
        found = _name_in_its_case(name, now, list_lifecycle_configs)
        if found is None:
            raise
        return describe_lifecycle_config(found)


def describe_lifecycle_config(name: str) -> LifecycleConfig:
    """Return the configuration of exactly this name. Raises NotFoundError when there is none."""
    response = call(
        client("sagemaker").describe_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name
    )
    return LifecycleConfig(
        name=response["NotebookInstanceLifecycleConfigName"],
        arn=response["NotebookInstanceLifecycleConfigArn"],
        modified=_milliseconds(response["LastModifiedTime"]),
        on_create=_content(response.get("OnCreate")),
        on_start=_content(response.get("OnStart")),
    )


def list_lifecycle_configs(**filters: str) -> Iterator[LifecycleConfigSummary]:
    """Yield every configuration that matches `filters` (parameters of the list). One request for each 100."""
    operation = client("sagemaker").list_notebook_instance_lifecycle_configs
    for line in _pages(operation, "NotebookInstanceLifecycleConfigs", filters):
        yield LifecycleConfigSummary(
            name=line["NotebookInstanceLifecycleConfigName"],
            arn=line["NotebookInstanceLifecycleConfigArn"],
            modified=_milliseconds(line["LastModifiedTime"]),
        )


def create_lifecycle_config(name: str, on_create: bytes, on_start: bytes, stack: str) -> None:
    """Create a configuration with the stack's tag. One that exists already stays unchanged, whatever SageMaker says."""
    try:
        call(
            client("sagemaker").create_notebook_instance_lifecycle_config,
            NotebookInstanceLifecycleConfigName=name,
            OnCreate=_hook(on_create),
            OnStart=_hook(on_start),
            Tags=[{"Key": OWNER_TAG, "Value": stack}],
        )
    except ClientError as error:
        if code_of(error) == "ValidationException" and "already exists" in message_of(error):
            return
        try:
            describe_lifecycle_config(name)
        except NotFoundError:
            raise error from None


def delete_lifecycle_config(expected: LifecycleConfig) -> None:
    """Delete a configuration. It is no error when it does not exist.

    Raises ScriptConflictError when its scripts differ from `expected`, or when SageMaker refuses. UNCONFIRMED(delete-attached) whether
    an attached configuration can be deleted, and with which error that is refused.
    """
    name = expected.name
    try:
        if _scripts(describe_lifecycle_config(name)) != _scripts(expected):
            raise ScriptConflictError(f"the configuration {name} was changed since it was read")
        call(client("sagemaker").delete_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name)
    except NotFoundError:
        return
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        raise ScriptConflictError(f"the configuration {name} was not deleted: {message_of(error)}") from error


def verify_unchanged(expected: LifecycleConfig) -> None:
    """Raise ScriptChangedError when a configuration's scripts differ from `expected`.

    Called right before a write, because SageMaker has no conditional write.
    """
    if _scripts(describe_lifecycle_config(expected.name)) != _scripts(expected):
        raise ScriptChangedError(f"the configuration {expected.name} was changed since it was read")


def write_script(expected: LifecycleConfig, on_start: bytes | None) -> LifecycleConfig:
    """Replace the on-start script, and return the configuration as read after the write.

    expected: the configuration as `verify_unchanged` found it; its on-create script is written back.
    on_start: None removes the script; if SageMaker does not accept that, a script that does nothing replaces it.

    Raises ScriptConflictError when the configuration differs from what was written: another writer was faster.
    """
    if on_start is None:
        return _clear_script(expected)
    _update(expected, _hook(on_start))
    return _verified(expected, on_start)


def _clear_script(expected: LifecycleConfig) -> LifecycleConfig:
    # UNCONFIRMED(empty-hook) whether an empty list clears the hook, leaves it, or is refused.
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
        raise ScriptConflictError(f"the configuration {expected.name} differs from what was just written")
    return after


def _update(expected: LifecycleConfig, on_start: list[NotebookInstanceLifecycleHookTypeDef]) -> None:
    hooks: dict[str, Any] = {"OnStart": on_start}
    if expected.on_create is not None:
        hooks["OnCreate"] = _hook(expected.on_create)
    call(
        client("sagemaker").update_notebook_instance_lifecycle_config,
        NotebookInstanceLifecycleConfigName=expected.name,
        **hooks,
    )


def _name_in_its_case(
    name: str, now: int, lines: Callable[..., Iterator[NotebookSummary | LifecycleConfigSummary]]
) -> str | None:
    """Return the existing name that differs from `name` in case only, or None.

    The whole list is read once in NAMES_CACHE_S, however many names are asked for that no resource has. A resource that
    was created since is found by its next event, which has the name in its case, or by the sweep.
    """
    read_at, names = _names.get(lines.__name__, (None, {}))
    if read_at is None or not 0 <= now - read_at <= NAMES_CACHE_S:
        for line in lines(NameContains=name):
            if line.name != name and line.name.lower() == name.lower():
                return line.name
        names = {line.name.lower(): line.name for line in lines()}
        _names[lines.__name__] = now, names
    found = names.get(name.lower())
    return None if found == name else found


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _scripts(lifecycle_config: LifecycleConfig) -> tuple[bytes | None, bytes | None]:
    return lifecycle_config.on_create, lifecycle_config.on_start


def _hook(script: bytes) -> list[NotebookInstanceLifecycleHookTypeDef]:
    return [{"Content": base64.b64encode(script).decode()}]


def _content(hooks: Sequence[NotebookInstanceLifecycleHookTypeDef] | None) -> bytes | None:
    return base64.b64decode(hooks[0]["Content"]) if hooks and hooks[0].get("Content") else None


def _pages(operation: Callable[..., Any], field: str, filters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    position: dict[str, Any] = {"MaxResults": PAGE}
    while True:
        try:
            page = call(operation, **filters, **position)
        except ClientError as error:
            # UNCONFIRMED(expired-page) how SageMaker refuses a token that has expired: what was valid for the first page is still.
            if "NextToken" in position and code_of(error) == "ValidationException":
                raise RetryableError(f"the list of {field} expired while it was read") from error
            raise
        yield from page.get(field) or ()
        token = page.get("NextToken")
        if not token:
            return
        position["NextToken"] = token
