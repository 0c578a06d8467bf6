"""SageMaker's notebook part, for tests and for the local run: moto's, made to behave as the service does.

`extend_moto()` adds what moto lacks and corrects what it is lax about:

- UpdateNotebookInstance, UpdateNotebookInstanceLifecycleConfig, ListNotebookInstanceLifecycleConfigs;
- statuses take time (Pending → InService, Stopping → Stopped, Updating → Stopped, Deleting → gone), and
  calls made in the wrong status are refused in the service's own words;
- one value for each tag key, tags on lifecycle configurations, an answer for an ARN that does not exist;
- NetworkInterfaceId, LastModifiedTime, the filters of both lists, and the size limits.

Where nobody could confirm what the service does, the stricter behaviour is played, so that code that
passes here also passes there: an omitted hook is cleared by an update, a configuration in use cannot be deleted.
What docs/facts.md lists can be played either way (`answers.py`).

Works under `moto.mock_aws` and in the emulator alike. Under `mock_aws` a status changes only when the test
says so (`finish_transitions`, `fail`), or as `moto.moto_api.state_manager` is told for `NOTEBOOK_MODEL`.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, cast

import moto.core.errors as moto_errors
import moto.sagemaker.models as models
import moto.sagemaker.responses as responses
from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.models import ec2_backends
from moto.moto_api import state_manager
from moto.moto_api._internal.managed_state_model import ManagedState
from moto.sagemaker.exceptions import SagemakerClientError, ValidationError

from emulator import answers
from emulator.connect_endpoints import add_connect_endpoints
from emulator.rates import Throttle
from emulator.security_groups import describe_rules

NOTEBOOK_MODEL = "sagemaker::notebook_instance"
"""The name under which `state_manager` knows how a notebook's status moves on."""

CONTENT_LIMIT = 16_384
"""The size of one hook (NotebookInstanceLifecycleHook, `Content`): of its base64, or by another answer of its bytes."""

PAGE = 100
"""Most results of one page of either list (MaxResults)."""

TOKEN_S = 2
"""Seconds for which a NextToken of either list is valid."""

GONE = "Deleted"
"""A notebook that Deleting has left; no call answers with it."""

WRITES = (
    "create_notebook_instance",
    "update_notebook_instance",
    "delete_notebook_instance",
    "start_notebook_instance",
    "stop_notebook_instance",
    "create_notebook_instance_lifecycle_config",
    "update_notebook_instance_lifecycle_config",
    "delete_notebook_instance_lifecycle_config",
)
"""The operations limited to one a second for an account and region."""


class ThrottledError(SagemakerClientError):
    """The service's "later"."""

    code = "ThrottlingException"


class InvalidTokenError(SagemakerClientError):
    """Another refusal of a NextToken than a ValidationException."""

    code = "InvalidNextTokenException"


class OtherValidationError(SagemakerClientError):
    """Another refusal of a value than a ValidationException."""

    code = "ValidationError"


# ---- what others may listen to -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatusChanged:
    """A notebook has another status now. `notebook` is as DescribeNotebookInstance answers, plus `Tags`."""

    account: str
    region: str
    notebook: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TagsChanged:
    """Tags were added, changed or removed. `tags` are all that the resource has now."""

    account: str
    region: str
    arn: str
    changed: tuple[str, ...]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """A lifecycle configuration was made or changed. modified: `LastModifiedTime`, in UTC without saying so."""

    account: str
    region: str
    name: str
    arn: str
    modified: datetime


Happening = StatusChanged | TagsChanged | ConfigurationChanged
_listeners: list[Callable[[Happening], None]] = []


def subscribe(listener: Callable[[Happening], None]) -> None:
    """Call `listener` with everything that happens from now on, in the thread that made it happen."""
    _listeners.append(listener)


def unsubscribe(listener: Callable[[Happening], None]) -> None:
    """Stop calling `listener`."""
    _listeners.remove(listener)


def _tell(happening: Happening) -> None:
    for listener in _listeners:
        listener(happening)


# ---- the notebook ------------------------------------------------------------------------------

_TRANSITIONS: list[tuple[str | None, str]] = [
    ("Pending", "InService"),
    ("Stopping", "Stopped"),
    ("Updating", "Stopped"),
    ("Deleting", GONE),
]


def _tags_of(resource: Any) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in resource.tags}


_MotoNotebook = models.FakeSagemakerNotebookInstance
_create_as_moto_does = responses.SageMakerResponse.create_notebook_instance


PLATFORMS = ("notebook-al2023-v1", "notebook-al2023-v2")
"""Platforms of new notebooks, the default first. The earlier ones, of Amazon Linux 1 and 2, have ended."""


class Notebook(ManagedState, _MotoNotebook):
    """A notebook instance whose status takes its time and which refuses what the service refuses."""

    # moto counts its models by the second part of the module's name.
    __module__ = "moto.sagemaker.models"

    failure: str | None = None
    interface: str | None = None
    platform = PLATFORMS[0]

    def __init__(self, account_id: str, region_name: str, **given: Any) -> None:
        self.account_id = account_id
        ManagedState.__init__(self, NOTEBOOK_MODEL, _TRANSITIONS)
        _MotoNotebook.__init__(self, account_id=account_id, region_name=region_name, **given)
        self.creation_time = utcnow()  # by the clock of this module, which tests set
        # Seen in events and answers: the ARN is in lower case, the name keeps its capitals.
        head, _, name = self.arn.partition("/")
        self.arn = f"{head}/{name.lower()}"

    def validate_instance_type(self, instance_type: str) -> None:
        """The service's list grows each year; only the shape is checked."""
        if not re.fullmatch(r"ml\.[a-z0-9-]+\.[a-z0-9]+", instance_type):
            raise ValidationError(f"Value '{instance_type}' at 'instanceType' failed to satisfy constraint")

    @property
    def status(self) -> str:
        """SageMaker's word for the instance, moved on if its time has come."""
        before = self._status
        after = str(super().status)
        if after != before:
            self.tell()
        return after

    @status.setter
    def status(self, value: str) -> None:
        self._status = value
        self._tick = 0
        self._time_progressed = datetime.now()  # noqa: DTZ005  moto compares it with its own naive now

    def tell(self) -> None:
        """Note the time of a change of status and tell the listeners."""
        self.last_modified_time = utcnow()
        _tell(StatusChanged(self.account_id, self.region_name, {**self.to_dict(), "Tags": _tags_of(self)}))

    def move(self, to: str, *, only_from: tuple[str, ...]) -> None:
        """Begin the transition `to`, or refuse as the service does."""
        if self.status not in only_from:
            raise ValidationError(
                f"Status ({self.status}) not in ([{', '.join(only_from)}]). "
                f"Unable to transition to ({to}) for Notebook Instance ({self.arn})."
            )
        self.failure = None
        self.enter(to)

    def enter(self, status: str) -> None:
        """Have this status from now on."""
        self.status = status
        self.tell()

    def start(self) -> None:
        """Begin to start. moto calls this also at the end of a creation, when Pending is already said."""
        if "arn" in self.__dict__ and self._status == "Pending":
            return
        self.move("Pending", only_from=("Stopped", "Failed"))

    def stop(self) -> None:
        self.move("Stopping", only_from=("InService",))

    def fail(self, reason: str) -> None:
        """The instance could not start: Failed, with the reason."""
        self.failure = reason
        self.enter("Failed")

    def to_dict(self) -> dict[str, Any]:
        known = _MotoNotebook.to_dict(self)
        known |= {
            "NotebookInstanceStatus": self._status,
            "NetworkInterfaceId": self.interface,
            "FailureReason": self.failure,
            "PlatformIdentifier": self.platform,
        }
        return {key: value for key, value in known.items() if value is not None}


# ---- the backend: what the operations do -------------------------------------------------------


def _notebook(backend: Any, name: str) -> Notebook:
    notebook: Notebook | None = backend.notebook_instances.get(_in_its_case(name, backend.notebook_instances))
    if notebook is not None and notebook.status == GONE:
        _forget(backend, notebook)
        notebook = None
    if notebook is None:
        raise ValidationError("RecordNotFound")
    return notebook


def _in_its_case(name: str, known: Iterable[str]) -> str:
    """The name in `known` that `name` means."""
    if answers.of("name-case") == "exact":
        return name
    return next((each for each in known if each.lower() == name.lower()), name)


def _forget(backend: Any, notebook: Notebook) -> None:
    del backend.notebook_instances[notebook.notebook_instance_name]
    if notebook.interface:
        ec2_backends[backend.account_id][backend.region_name].delete_network_interface(notebook.interface)


def _configuration(backend: Any, name: str, verb: str) -> Any:
    try:
        known = backend.notebook_instance_lifecycle_configurations
        return known[_in_its_case(name, known)]
    except KeyError:
        arn = models.FakeSageMakerNotebookInstanceLifecycleConfig.arn_formatter(
            name, backend.account_id, backend.region_name
        )
        raise ValidationError(
            f"Unable to {verb} Notebook Instance Lifecycle Config '{arn}'. "
            "(Details: Notebook Instance Lifecycle Config does not exist.)"
        ) from None


def _create_notebook(backend: Any, **given: Any) -> Notebook:
    name = given["notebook_instance_name"]
    if not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name):
        raise ValidationError(f"Value '{name}' at 'notebookInstanceName' failed to satisfy constraint")
    if any(name.lower() == known.lower() for known in backend.notebook_instances):
        raise ValidationError(f"Cannot create a duplicate Notebook Instance ({name})")
    if given.get("lifecycle_config_name"):
        _configuration(backend, given["lifecycle_config_name"], "find")
    given |= {
        "direct_internet_access": given.get("direct_internet_access") or "Enabled",
        "volume_size_in_gb": given.get("volume_size_in_gb") or 5,
        "root_access": given.get("root_access") or "Enabled",
        "tags": _merged((), given.get("tags") or ()),
    }
    # moto leaves `is_created` abstract and makes such objects all the same.
    notebook: Notebook = cast(Any, Notebook)(account_id=backend.account_id, region_name=backend.region_name, **given)
    if notebook.subnet_id:
        ec2 = ec2_backends[backend.account_id][backend.region_name]
        subnet = ec2.get_subnet(notebook.subnet_id)
        interface = ec2.create_network_interface(
            subnet,
            private_ip_address=subnet.get_available_subnet_ip(cast(Any, notebook)),
            group_ids=notebook.security_group_ids or [],
            description=f"[Do not delete] Network Interface of notebook instance {name}",
        )
        notebook.interface = interface.id
    backend.notebook_instances[name] = notebook
    notebook.tell()
    return notebook


def _call_create_notebook(response: Any) -> ActionResult:
    """moto drops the platform."""
    platform = _platform(response._get_param("PlatformIdentifier") or PLATFORMS[0])
    answer: ActionResult = _create_as_moto_does(response)
    _notebook(response.sagemaker_backend, response._get_param("NotebookInstanceName")).platform = platform
    return answer


def _platform(platform: str) -> str:
    """UNCONFIRMED(platform-refusal): the words of the refusal."""
    if platform not in PLATFORMS:
        refusal = ValidationError if answers.of("platform-refusal") == "validation-exception" else OtherValidationError
        raise refusal(f"The platform identifier {platform} is not supported")
    return platform


def _update_notebook(backend: Any, name: str, changes: Mapping[str, Any]) -> None:
    """`changes` are UpdateNotebookInstance's parameters, as sent."""
    notebook = _notebook(backend, name)
    configuration = changes.get("LifecycleConfigName")
    detach = changes.get("DisassociateLifecycleConfig", False)
    if configuration and detach:
        raise ValidationError("LifecycleConfigName and DisassociateLifecycleConfig cannot both be given.")
    if configuration:
        _configuration(backend, configuration, "find")
    platform = _platform(changes.get("PlatformIdentifier") or notebook.platform)
    if changes.get("InstanceType"):
        notebook.validate_instance_type(changes["InstanceType"])
    notebook.move("Updating", only_from=("Stopped", "Failed"))
    if configuration or detach:
        notebook.lifecycle_config_name = configuration
    notebook.platform = platform
    notebook.instance_type = changes.get("InstanceType") or notebook.instance_type
    notebook.role_arn = changes.get("RoleArn") or notebook.role_arn
    notebook.volume_size_in_gb = changes.get("VolumeSizeInGB") or notebook.volume_size_in_gb


def _delete_notebook(backend: Any, notebook_instance_name: str) -> None:
    _notebook(backend, notebook_instance_name).move("Deleting", only_from=("Stopped", "Failed"))


def _notebooks(backend: Any) -> list[Notebook]:
    for notebook in list(backend.notebook_instances.values()):
        if notebook.status == GONE:
            _forget(backend, notebook)
    return list(backend.notebook_instances.values())


def _hook(name: str, given: Any) -> list[dict[str, str]]:
    """The hook `name` as sent, checked against the limits of the API."""
    scripts = given or []
    if len(scripts) > 1:
        raise ValidationError(f"Value at '{name}' failed to satisfy constraint: Member must have length at most 1")
    for script in scripts:
        content = script.get("Content", "")
        try:
            script_bytes = base64.b64decode(content, validate=True)
        except binascii.Error:
            raise ValidationError(f"Value at '{name}.1.member.content' is not base64") from None
        size = len(content if answers.of("script-limit") == "base64" else script_bytes)
        if not 1 <= size <= CONTENT_LIMIT:
            raise ValidationError(
                f"Value at '{name}.1.member.content' failed to satisfy constraint: "
                f"Member must have length between 1 and {CONTENT_LIMIT}"
            )
    return list(scripts)


def _create_configuration(backend: Any, name: str, on_create: Any, on_start: Any, tags: Any) -> Any:
    on_create, on_start = _hook("onCreate", on_create), _hook("onStart", on_start)
    if name in backend.notebook_instance_lifecycle_configurations:
        raise ValidationError(
            f"Unable to create Notebook Instance Lifecycle Config {name}. "
            "(Details: Notebook Instance Lifecycle Config already exists.)"
        )
    configuration = cast(Any, models.FakeSageMakerNotebookInstanceLifecycleConfig)(
        account_id=backend.account_id,
        region_name=backend.region_name,
        notebook_instance_lifecycle_config_name=name,
        on_create=on_create,
        on_start=on_start,
    )
    configuration.tags = _merged((), tags or ())  # moto drops them
    backend.notebook_instance_lifecycle_configurations[name] = configuration
    _tell_of(configuration, backend)
    return configuration


def _tell_of(configuration: Any, backend: Any) -> None:
    name, modified = configuration.notebook_instance_lifecycle_config_name, configuration.last_modified_time
    _tell(ConfigurationChanged(backend.account_id, backend.region_name, name, configuration.arn, modified))


def _update_configuration(backend: Any, name: str, on_create: Any, on_start: Any) -> None:
    configuration = _configuration(backend, name, "update")
    configuration.on_create, configuration.on_start = (
        _updated_hook("onCreate", on_create, configuration.on_create),
        _updated_hook("onStart", on_start, configuration.on_start),
    )
    configuration.last_modified_time = utcnow()
    _tell_of(configuration, backend)


def _updated_hook(name: str, given: Any, before: list[dict[str, str]]) -> list[dict[str, str]]:
    """What an update makes of the hook `name`; an empty list is not the same as none."""
    if given == []:
        match answers.of("empty-hook"):
            case "refused":
                raise ValidationError(f"Value '[]' at '{name}' failed to satisfy constraint: at least 1 member")
            case "ignored":
                return before
    return _hook(name, given)


def _delete_configuration(backend: Any, notebook_instance_lifecycle_config_name: str) -> None:
    name = _configuration(
        backend, notebook_instance_lifecycle_config_name, "delete"
    ).notebook_instance_lifecycle_config_name
    users = [each.notebook_instance_name for each in _notebooks(backend) if each.lifecycle_config_name == name]
    if users and answers.of("delete-attached") == "refused":
        raise ValidationError(
            f"Unable to delete Notebook Instance Lifecycle Config '{name}'. "
            f"(Details: Notebook Instance Lifecycle Config is in use by {', '.join(users)}.)"
        )
    del backend.notebook_instance_lifecycle_configurations[name]


# ---- tags --------------------------------------------------------------------------------------


def _merged(tags: Iterable[Mapping[str, str]], more: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """`tags` with `more` over them, one value for each key."""
    values = {tag["Key"]: tag["Value"] for tag in (*tags, *more)}
    if len(values) > 50:
        raise ValidationError("The number of tags exceeds the limit of 50 for a resource.")
    for key, value in values.items():
        if not re.fullmatch(r"[\w\s+\-=._:/@]{1,128}", key) or not re.fullmatch(r"[\w\s+\-=._:/@]{0,256}", value):
            raise ValidationError(
                f"Tag '{key}' failed to satisfy constraint: letters, digits, spaces and + - = . _ : / @"
            )
    return [{"Key": key, "Value": value} for key, value in values.items()]


def _tagged(backend: Any, arn: str) -> Any:
    kind = arn.split(":")[-1].partition("/")[0]
    if kind == "notebook-instance":
        found: Iterable[Any] = _notebooks(backend)
    elif kind == "notebook-instance-lifecycle-config":
        found = backend.notebook_instance_lifecycle_configurations.values()
    else:
        return _moto_resource_of(backend, arn)
    for resource in found:
        if resource.arn.lower() == arn.lower():
            return resource
    raise ValidationError(f"RecordNotFound: {arn}")


_moto_resource_of = models.SageMakerModelBackend._get_resource_from_arn


def _add_tags(backend: Any, arn: str, tags: list[dict[str, str]]) -> list[dict[str, str]]:
    resource = _tagged(backend, arn)
    before = _tags_of(resource)
    resource.tags = _merged(resource.tags, tags)
    _tell_tags(backend, resource, before)
    return list(resource.tags)


def _delete_tags(backend: Any, arn: str, tag_keys: list[str]) -> None:
    resource = _tagged(backend, arn)
    before = _tags_of(resource)
    resource.tags = [tag for tag in resource.tags if tag["Key"] not in tag_keys]
    _tell_tags(backend, resource, before)


def _tell_tags(backend: Any, resource: Any, before: Mapping[str, str]) -> None:
    now = _tags_of(resource)
    changed = tuple(sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)))
    if changed:
        _tell(TagsChanged(backend.account_id, backend.region_name, resource.arn, changed, now))


# ---- the two lists -----------------------------------------------------------------------------


def _plain(moment: datetime) -> datetime:
    """A time as moto keeps it: UTC, without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _chosen(resources: Iterable[Any], name: Callable[[Any], str], asked: Mapping[str, Any]) -> Iterator[Any]:
    """The `resources` that pass the filters in `asked` (parameters of either list, as sent)."""
    no_start, no_end = datetime(1970, 1, 1), datetime(9999, 1, 1)  # noqa: DTZ001  see `_plain`
    for resource in resources:
        configuration = getattr(resource, "lifecycle_config_name", None) or ""
        if (
            _contains(name(resource), asked.get("NameContains") or "")
            and (asked.get("NotebookInstanceLifecycleConfigNameContains") or "") in configuration
            and asked.get("StatusEquals") in (None, getattr(resource, "status", None))
            and _plain(asked.get("LastModifiedTimeAfter") or no_start) < resource.last_modified_time
            and resource.last_modified_time < _plain(asked.get("LastModifiedTimeBefore") or no_end)
            and _plain(asked.get("CreationTimeAfter") or no_start) < resource.creation_time
            and resource.creation_time < _plain(asked.get("CreationTimeBefore") or no_end)
        ):
            yield resource


def _contains(name: str, part: str) -> bool:
    return part.lower() in name.lower() if answers.of("name-case") == "ignored" else part in name


def _in_list(moment: datetime) -> datetime:
    """A time as the lists have it."""
    return moment.replace(microsecond=0) if answers.of("time-precision") == "seconds-in-lists" else moment


def _sorted(resources: Iterable[Any], name: Callable[[Any], str], asked: Mapping[str, Any]) -> list[Any]:
    order: dict[str, Callable[[Any], Any]] = {
        "Name": name,
        "CreationTime": lambda resource: resource.creation_time,
        "LastModifiedTime": lambda resource: resource.last_modified_time,
        "Status": lambda resource: resource.status,
    }
    return sorted(resources, key=order[asked.get("SortBy") or "Name"], reverse=asked.get("SortOrder") == "Descending")


def _page(resources: list[Any], asked: Mapping[str, Any]) -> tuple[list[Any], str | None]:
    """One page of `resources`, and the token of the next."""
    size = asked.get("MaxResults") or 10  # the documented default of both lists
    if not 1 <= size <= PAGE:
        raise ValidationError(f"Value '{size}' at 'maxResults' failed to satisfy constraint: at most {PAGE}")
    start = _position(asked["NextToken"]) if asked.get("NextToken") else 0
    end = start + size
    token = base64.b64encode(f"{end} {time.monotonic()}".encode()).decode()
    return resources[start:end], token if end < len(resources) else None


def _position(token: str) -> int:
    """Where the page begins that a token names, while the token is valid."""
    try:
        start, made_at = base64.b64decode(token, validate=True).split()
        position, age = int(start), time.monotonic() - float(made_at)
    except ValueError:
        raise ValidationError(f"Invalid NextToken: {token}") from None
    expires = answers.of("expired-page")
    if expires != "never" and age > TOKEN_S:
        refusal = ValidationError if expires == "validation-exception" else InvalidTokenError
        raise refusal("The NextToken has expired")
    return position


# ---- the operations as they are called ---------------------------------------------------------


def _list_notebook_instances(response: Any) -> ActionResult:
    def name(notebook: Notebook) -> str:
        return notebook.notebook_instance_name

    asked = response._get_params()
    found = _sorted(_chosen(_notebooks(response.sagemaker_backend), name, asked), name, asked)
    page, token = _page(found, asked)
    summaries = [
        {
            **each.to_dict(),
            "NotebookInstanceLifecycleConfigName": each.lifecycle_config_name,
            "CreationTime": _in_list(each.creation_time),
            "LastModifiedTime": _in_list(each.last_modified_time),
        }
        for each in page
    ]
    return ActionResult({"NotebookInstances": summaries, "NextToken": token})


def _list_configurations(response: Any) -> ActionResult:
    def name(configuration: Any) -> str:
        return str(configuration.notebook_instance_lifecycle_config_name)

    asked = response._get_params()
    known = response.sagemaker_backend.notebook_instance_lifecycle_configurations.values()
    page, token = _page(_sorted(_chosen(known, name, asked), name, asked), asked)
    summaries = [
        {
            "NotebookInstanceLifecycleConfigName": name(each),
            "NotebookInstanceLifecycleConfigArn": each.arn,
            "CreationTime": _in_list(each.creation_time),
            "LastModifiedTime": _in_list(each.last_modified_time),
        }
        for each in page
    ]
    return ActionResult({"NotebookInstanceLifecycleConfigs": summaries, "NextToken": token})


def _call_update_notebook(response: Any) -> ActionResult:
    asked = response._get_params()
    _update_notebook(response.sagemaker_backend, asked["NotebookInstanceName"], asked)
    return EmptyResult()


def _call_create_configuration(response: Any) -> ActionResult:
    asked = response._get_params()
    configuration = _create_configuration(
        response.sagemaker_backend,
        asked["NotebookInstanceLifecycleConfigName"],
        asked.get("OnCreate"),
        asked.get("OnStart"),
        asked.get("Tags"),
    )
    return ActionResult({"NotebookInstanceLifecycleConfigArn": configuration.arn})


def _call_describe_configuration(response: Any) -> ActionResult:
    name = response._get_params()["NotebookInstanceLifecycleConfigName"]
    configuration = _configuration(response.sagemaker_backend, name, "describe")
    return ActionResult(
        {
            "NotebookInstanceLifecycleConfigName": configuration.notebook_instance_lifecycle_config_name,
            "NotebookInstanceLifecycleConfigArn": configuration.arn,
            "OnCreate": configuration.on_create,
            "OnStart": configuration.on_start,
            "CreationTime": configuration.creation_time,
            "LastModifiedTime": configuration.last_modified_time,
        }
    )


def _call_update_configuration(response: Any) -> ActionResult:
    asked = response._get_params()
    _update_configuration(
        response.sagemaker_backend,
        asked["NotebookInstanceLifecycleConfigName"],
        asked.get("OnCreate"),
        asked.get("OnStart"),
    )
    return EmptyResult()


# ---- throttling, off unless asked for ----------------------------------------------------------


@dataclass(slots=True)
class _Pace:
    """At most one write each `seconds`; 0 lets everything through."""

    seconds: float = 0
    clock: Callable[[], float] = time.monotonic
    next_free: float = 0

    def take(self) -> None:
        now = self.clock()
        if now < self.next_free:
            raise ThrottledError("Rate exceeded")
        self.next_free = now + self.seconds


_pace = _Pace()


def throttle_writes(seconds: float = 1, clock: Callable[[], float] = time.monotonic) -> None:
    """Refuse a write that comes less than `seconds` after the last accepted one; 0 turns it off again."""
    _pace.seconds, _pace.clock, _pace.next_free = seconds, clock, 0


def _paced(operation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def call(response: Any) -> Any:
        if _pace.seconds:
            _pace.take()
        return operation(response)

    return call


READS = ("describe_notebook_instance", "list_tags")
READS_A_SECOND = 2
"""How many calls of each of READS go through while they are throttled."""


def _throttled(operation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    throttle = Throttle(READS_A_SECOND, lambda: ThrottledError("Rate exceeded"))

    def call(response: Any) -> Any:
        if answers.of("describe-rate") == "throttled":
            throttle.take()
        return operation(response)

    return call


# ---- for tests and for the emulator ------------------------------------------------------------


def notebooks(account: str, region: str) -> list[Notebook]:
    """Every notebook that exists."""
    return _notebooks(models.sagemaker_backends[account][region])


def configuration(account: str, region: str, name: str) -> Any:
    """The lifecycle configuration `name`; `on_start` and `on_create` are lists of `{"Content": base64}`."""
    return _configuration(models.sagemaker_backends[account][region], name, "find")


def resources(account: str, region: str) -> list[Any]:
    """Every notebook and every lifecycle configuration; each has an `arn` and `tags`."""
    backend = models.sagemaker_backends[account][region]
    return [*_notebooks(backend), *backend.notebook_instance_lifecycle_configurations.values()]


def finish_transitions(account: str = "123456789012", region: str = "us-east-1") -> None:
    """Move every notebook on to the status it is heading for (Pending → InService, …)."""
    backend = models.sagemaker_backends[account][region]
    for notebook in _notebooks(backend):
        notebook.advance()
    _notebooks(backend)


def fail(name: str, reason: str, account: str = "123456789012", region: str = "us-east-1") -> None:
    """Make the start of the notebook `name` fail with `reason`."""
    _notebook(models.sagemaker_backends[account][region], name).fail(reason)


@cache
def extend_moto() -> None:
    """Put all of the above into moto. Calling it again changes nothing."""
    describe_rules()
    add_connect_endpoints()
    models.FakeSagemakerNotebookInstance = Notebook  # type: ignore[misc, assignment]
    state_manager.register_default_transition(NOTEBOOK_MODEL, {"progression": "manual", "times": 1})
    backend: Any = models.SageMakerModelBackend
    backend.create_notebook_instance = _create_notebook
    backend.get_notebook_instance = _notebook
    backend.delete_notebook_instance = _delete_notebook
    backend.delete_notebook_instance_lifecycle_config = _delete_configuration
    backend._get_resource_from_arn = _tagged
    backend.add_tags = _add_tags
    backend.delete_tags = _delete_tags
    response: Any = responses.SageMakerResponse
    response.list_notebook_instances = _list_notebook_instances
    response.list_notebook_instance_lifecycle_configs = _list_configurations
    response.create_notebook_instance = _call_create_notebook
    response.update_notebook_instance = _call_update_notebook
    response.create_notebook_instance_lifecycle_config = _call_create_configuration
    response.describe_notebook_instance_lifecycle_config = _call_describe_configuration
    response.update_notebook_instance_lifecycle_config = _call_update_configuration
    # The first is true of every service; of codes that no model names, moto would warn.
    moto_errors.COMMON_ERROR_CODES.extend((ThrottledError.code, InvalidTokenError.code, OtherValidationError.code))
    for operation in READS:
        setattr(response, operation, _throttled(getattr(response, operation)))
    for operation in WRITES:
        setattr(response, operation, _paced(getattr(response, operation)))
