"""SageMaker: notebook instances, their tags and their lifecycle configurations.

Every answer of the service is one of: a value, `Absent` (it said that the thing does not exist), `Transient`
(it said later, or nothing), or the service's own error, which nobody foresaw and which is raised as it is.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from notebook_ssh.aws.clients import client, code_of, message_of, transient
from notebook_ssh.errors import Absent, Transient
from notebook_ssh.rules.fleet import ConfigurationLine, NotebookLine
from notebook_ssh.rules.notebook import Configuration, Notebook
from notebook_ssh.rules.record import OWNER_TAG, Network, NotebookState
from notebook_ssh.rules.script import SHEBANG

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import NotebookInstanceLifecycleHookTypeDef

PAGE = 100
"""Most results of one page (MaxResults of both lists)."""


class WrongStatus(Transient):
    """The notebook is in a status that does not allow the call. The next change of its status is the time to try again."""


class ChangedMeanwhile(Transient):
    """Somebody else wrote the configuration, or attached one, between our reading and our writing."""


def _ask(call: Callable[..., Any], **given: Any) -> Any:
    """One request, with the service's error told apart by its code, and by its words where the code says too little."""
    try:
        return call(**given)
    except ClientError as error:
        raise _meaning(error) from error
    except BotoCoreError as error:
        raise (transient(error) or error) from error


def _meaning(error: ClientError) -> Exception:
    later = transient(error)
    if later:
        return later
    code, message = code_of(error), message_of(error)
    if code == "ResourceNotFound":
        return Absent(message)
    # ValidationException is SageMaker's one code for all of these; seen in its answers.
    if code == "ValidationException":
        if "RecordNotFound" in message or "does not exist" in message:
            return Absent(message)
        if "Unable to transition" in message:
            return WrongStatus(message)
    return error


# ---- notebooks ---------------------------------------------------------------------------------


def find_notebook(name: str) -> Notebook:
    """The notebook `name`, whatever its capitals: an ARN gives the name in lower case only. Absent when there is none.

    UNCONFIRMED whether DescribeNotebookInstance minds capitals, and whether `NameContains` does: if both do, the
    whole list is read, one request for each 100.
    """
    try:
        return describe_notebook(name)
    except Absent:
        for line in itertools.chain(list_notebooks(NameContains=name), list_notebooks()):
            if line.name != name and line.name.lower() == name.lower():
                return describe_notebook(line.name)
        raise


def describe_notebook(name: str) -> Notebook:
    """The notebook of exactly this name. One request. Absent when there is none."""
    answer = _ask(client("sagemaker").describe_notebook_instance, NotebookInstanceName=name)
    return Notebook(
        name=answer["NotebookInstanceName"],
        arn=answer["NotebookInstanceArn"],
        role=answer["RoleArn"].rpartition("/")[2],
        state=NotebookState(answer["NotebookInstanceStatus"]),
        state_since=int(answer["LastModifiedTime"].timestamp()),
        configuration=answer.get("NotebookInstanceLifecycleConfigName"),
        network=Network(
            subnet=answer.get("SubnetId"),
            security_groups=tuple(answer.get("SecurityGroups") or ()),
            interface=answer.get("NetworkInterfaceId"),
        ),
    )


def list_notebooks(**filters: str) -> Iterator[NotebookLine]:
    """Every notebook that passes `filters` (parameters of ListNotebookInstances). One request for each 100."""
    for line in _pages(client("sagemaker").list_notebook_instances, "NotebookInstances", filters):
        yield NotebookLine(
            name=line["NotebookInstanceName"],
            arn=line["NotebookInstanceArn"],
            state=NotebookState(line["NotebookInstanceStatus"]),
            state_since=int(line["LastModifiedTime"].timestamp()),
            configuration=line.get("NotebookInstanceLifecycleConfigName"),
        )


def users_of(configuration: str) -> list[NotebookLine]:
    """The notebooks that `configuration` is attached to. The service's filter finds parts of names; only equal ones count."""
    lines = list_notebooks(NotebookInstanceLifecycleConfigNameContains=configuration)
    return [line for line in lines if line.configuration == configuration]


def look_before_attaching(notebook: str) -> None:
    """The last look at a notebook that had no configuration: ChangedMeanwhile when it has one by now."""
    there = describe_notebook(notebook).configuration
    if there is not None:
        raise ChangedMeanwhile(f"{notebook} was given the configuration {there} since it was looked at")


def attach(notebook: str, configuration: str) -> None:
    """Attach `configuration`, right after the last look. WrongStatus unless the notebook is at rest."""
    _ask(client("sagemaker").update_notebook_instance, NotebookInstanceName=notebook, LifecycleConfigName=configuration)


def detach(notebook: str) -> None:
    """Leave the notebook without configuration. WrongStatus unless it is at rest."""
    _ask(client("sagemaker").update_notebook_instance, NotebookInstanceName=notebook, DisassociateLifecycleConfig=True)


def stop(notebook: str) -> None:
    """Begin to stop the notebook. WrongStatus unless it is in service."""
    _ask(client("sagemaker").stop_notebook_instance, NotebookInstanceName=notebook)


def start(notebook: str) -> None:
    """Begin to start the notebook. WrongStatus unless it is at rest."""
    _ask(client("sagemaker").start_notebook_instance, NotebookInstanceName=notebook)


# ---- tags --------------------------------------------------------------------------------------


def read_tags(arn: str) -> dict[str, str]:
    """All tags of a notebook or configuration; at most 50, which is one page. Absent when it does not exist."""
    tags = _pages(client("sagemaker").list_tags, "Tags", {"ResourceArn": arn})
    return {tag["Key"]: tag["Value"] for tag in tags}


def write_tags(arn: str, tags: Mapping[str, str]) -> None:
    """Set these tags, and leave the others."""
    _ask(
        client("sagemaker").add_tags,
        ResourceArn=arn,
        Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
    )


def take_tags_away(arn: str, *keys: str) -> None:
    """Remove these tags; one that isn't there is fine."""
    _ask(client("sagemaker").delete_tags, ResourceArn=arn, TagKeys=list(keys))


# ---- lifecycle configurations ------------------------------------------------------------------


def find_configuration(name: str) -> Configuration:
    """The configuration `name`, whatever its capitals (see `find_notebook`). Absent when there is none."""
    try:
        return describe_configuration(name)
    except Absent:
        for line in itertools.chain(list_configurations(NameContains=name), list_configurations()):
            if line.name != name and line.name.lower() == name.lower():
                return describe_configuration(line.name)
        raise


def describe_configuration(name: str) -> Configuration:
    """The configuration of exactly this name. One request. Absent when there is none."""
    answer = _ask(
        client("sagemaker").describe_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name
    )
    return Configuration(
        name=answer["NotebookInstanceLifecycleConfigName"],
        arn=answer["NotebookInstanceLifecycleConfigArn"],
        modified=_milliseconds(answer["LastModifiedTime"]),
        on_create=_script(answer.get("OnCreate")),
        on_start=_script(answer.get("OnStart")),
    )


def list_configurations(**filters: str) -> Iterator[ConfigurationLine]:
    """Every configuration that passes `filters`. One request for each 100."""
    call = client("sagemaker").list_notebook_instance_lifecycle_configs
    for line in _pages(call, "NotebookInstanceLifecycleConfigs", filters):
        yield ConfigurationLine(
            name=line["NotebookInstanceLifecycleConfigName"],
            arn=line["NotebookInstanceLifecycleConfigArn"],
            modified=_milliseconds(line["LastModifiedTime"]),
        )


def create_configuration(name: str, on_create: bytes, on_start: bytes, stack: str) -> None:
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


def delete_configuration(seen: Configuration) -> None:
    """Delete a configuration that still is as `seen`; one that isn't there is fine.

    ChangedMeanwhile when somebody wrote into it, or when the service does not let it go. UNCONFIRMED whether one that
    is attached can be deleted, and how that is refused.
    """
    name = seen.name
    try:
        if _scripts(describe_configuration(name)) != _scripts(seen):
            raise ChangedMeanwhile(f"the configuration {name} was changed since it was read")
        _ask(client("sagemaker").delete_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name)
    except Absent:
        return
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
        raise ChangedMeanwhile(f"the configuration {name} was not deleted: {message_of(error)}") from error


def look_before_writing(seen: Configuration) -> None:
    """The last look at a configuration, since the service has no conditional write: ChangedMeanwhile unless it is as `seen`."""
    if _scripts(describe_configuration(seen.name)) != _scripts(seen):
        raise ChangedMeanwhile(f"the configuration {seen.name} was changed since it was read")


def write_script(seen: Configuration, on_start: bytes | None) -> Configuration:
    """Replace the on-start script, right after the last look; the other hook goes back as it was seen.

    Another look comes after it. Raises ChangedMeanwhile, with somebody else's script in place, when that differs.
    Answers the configuration as it is then. None for `on_start` means that there shall be no script; should the
    service not take that, a script that does nothing is left instead.
    """
    if on_start is None:
        return _clear_script(seen)
    _update(seen, _hook(on_start))
    return _verified(seen, on_start)


def _clear_script(seen: Configuration) -> Configuration:
    # UNCONFIRMED whether an empty list clears the hook, leaves it, or is refused.
    try:
        _update(seen, [])
    except ClientError as error:
        if code_of(error) != "ValidationException":
            raise
    after = describe_configuration(seen.name)
    if after.on_start is None:
        return after
    if _scripts(after) != _scripts(seen):
        raise ChangedMeanwhile(f"the configuration {seen.name} was changed while it was written")
    _update(seen, _hook(SHEBANG))
    return _verified(seen, SHEBANG)


def _verified(seen: Configuration, on_start: bytes) -> Configuration:
    after = describe_configuration(seen.name)
    if _scripts(after) != (seen.on_create, on_start):
        raise ChangedMeanwhile(f"the configuration {seen.name} is not as it was just written")
    return after


def _update(seen: Configuration, on_start: list[NotebookInstanceLifecycleHookTypeDef]) -> None:
    hooks: dict[str, Any] = {"OnStart": on_start}
    if seen.on_create is not None:
        hooks["OnCreate"] = _hook(seen.on_create)
    _ask(
        client("sagemaker").update_notebook_instance_lifecycle_config,
        NotebookInstanceLifecycleConfigName=seen.name,
        **hooks,
    )


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _scripts(configuration: Configuration) -> tuple[bytes | None, bytes | None]:
    return configuration.on_create, configuration.on_start


def _hook(script: bytes) -> list[NotebookInstanceLifecycleHookTypeDef]:
    return [{"Content": base64.b64encode(script).decode()}]


def _script(hooks: list[Mapping[str, str]] | None) -> bytes | None:
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
