"""An AWS account in memory: what SageMaker, EC2, the tagging API and the small services answer, and what happens there.

Answers have the fields that this project reads. Refusals are in the services' own words (docs of the actions, and
tests/integration/test_simulated_sagemaker.py). Statuses move on when the run says so; nothing here knows a clock of its
own or draws a number.
"""

# ruff: noqa: N803  parameters are named as AWS names them
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from simulation.dynamo import Dynamo
from simulation.errors import refusal

REGION, NUMBER = "eu-west-1", "123456789012"
LIMIT = 16_384
"""Characters of base64 in one hook (NotebookInstanceLifecycleHook, `Content`)."""
RULES_OF_A_GROUP = 60
TOKEN = "token-of-the-simulation"
"""ngrok's token; it is looked for afterwards wherever it must not be."""
BASTION_GROUP, BASTION_VPC = "sg-0000000000000000b", "vpc-1"
ENDPOINT, ENDPOINT_GROUP, ENDPOINT_VPC = "eice-0000000000000000e", "sg-0000000000000000e", "vpc-1"

MODIFIABLE_STATES = ("Stopped", "Failed")
ARRIVES = {"Pending": "InService", "Stopping": "Stopped", "Updating": "Stopped"}


@dataclass
class Notebook:
    """changed: epoch milliseconds of the last change of status. booted: which script the present run started with.

    retagged: the keys of its tags that changed last.
    """

    name: str
    role: str
    changed: int
    status: str = "InService"
    lifecycle_config: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    retagged: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    booted: str | None = None
    boots: int = 0
    created: int = 0

    @property
    def arn(self) -> str:
        return f"arn:aws:sagemaker:{REGION}:{NUMBER}:notebook-instance/{self.name.lower()}"


@dataclass
class LifecycleConfig:
    """Scripts in base64, as the service keeps them; None: no such hook. by_stack: who wrote the on-start script last."""

    name: str
    changed: int
    on_create: str | None = None
    on_start: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    by_stack: bool = False

    @property
    def arn(self) -> str:
        return f"arn:aws:sagemaker:{REGION}:{NUMBER}:notebook-instance-lifecycle-config/{self.name.lower()}"


@dataclass(frozen=True)
class Rule:
    """A security-group rule. stack: the value of the owner's tag. by_stack: the stack made it, and no person."""

    id: str
    group: str
    egress: bool
    protocol: str
    ports: tuple[int, int]
    peer: str
    stack: str | None = None
    description: str = ""
    by_stack: bool = False

    @property
    def identity(self) -> tuple[object, ...]:
        return self.group, self.egress, self.protocol, self.ports, self.peer


class Watcher:
    """Whom the account tells what is done there, before it takes effect. Each may raise InvariantError."""

    def script(self, lifecycle_config: LifecycleConfig, before: str | None, after: str | None) -> None: ...
    def created(self, lifecycle_config: LifecycleConfig) -> None: ...
    def removed(self, lifecycle_config: LifecycleConfig) -> None: ...
    def starts(self, notebook: Notebook) -> None: ...
    def stops(self, notebook: Notebook) -> None: ...
    def attaches(self, notebook: Notebook, lifecycle_config: str | None) -> None: ...
    def revocations(self, rule: Rule) -> None: ...
    def tags(self, notebook: Notebook, after: Mapping[str, str]) -> None: ...


@dataclass
class Account:
    """clock: epoch milliseconds. tell: what happened, to which resource. person: whether a person is at work, or we.

    stale: reads that make no invariant of freshness answer from `old`. page: items of one page. refused: entries of a
    batch that are not carried out. gone: names of deleted notebooks, in lower case.
    """

    clock: Callable[[], int]
    tell: Callable[[str, Any], None]
    watcher: Watcher = field(default_factory=Watcher)
    person: bool = True
    stale: bool = False
    stale_reads: int = 0
    page: int = 100
    refused: int = 0
    gone: set[str] = field(default_factory=set)
    notebooks: dict[str, Notebook] = field(default_factory=dict)
    lifecycle_configs: dict[str, LifecycleConfig] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    endpoints: dict[str, tuple[str, str]] = field(default_factory=dict)  # group and VPC by id
    indexed: dict[str, dict[str, str]] = field(default_factory=dict)
    table: Dynamo = field(default_factory=Dynamo)
    queued: list[tuple[str, str, int]] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    revoked: dict[str, int] = field(default_factory=dict)  # what was withdrawn, and when (epoch milliseconds)
    status_change: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    made: int = 0
    old: tuple[int, list[dict[str, Any]], list[Rule]] = (0, [], [])

    # ---- SageMaker: notebooks

    def describe_notebook_instance(self, *, NotebookInstanceName: str) -> dict[str, Any]:
        return (
            self._line(self._notebook(NotebookInstanceName))
            | {"SecurityGroups": [], "x": 0}
            | self._more(self.notebooks[NotebookInstanceName])
        )

    def list_notebook_instances(self, **filters: Any) -> dict[str, Any]:
        if self.stale and self.clock() - self.old[0] <= 2_000:
            lines = self.old[1]
            self.stale_reads += lines != [self._line(each) for _, each in sorted(self.notebooks.items())]
        else:
            lines = [self._line(each) for _, each in sorted(self.notebooks.items())]
            self.old = (self.clock(), lines, list(self.rules.values()))
        part, used = filters.get("NameContains", ""), filters.get("NotebookInstanceLifecycleConfigNameContains", "")
        found = [
            line
            for line in lines
            if part.lower() in line["NotebookInstanceName"].lower()
            and used in (line.get("NotebookInstanceLifecycleConfigName") or "")
            and (not used or "NotebookInstanceLifecycleConfigName" in line)
        ]
        return self._paged("NotebookInstances", "NotebookInstanceName", found, filters)

    def update_notebook_instance(
        self,
        *,
        NotebookInstanceName: str,
        LifecycleConfigName: str | None = None,
        DisassociateLifecycleConfig: bool = False,
    ) -> dict[str, Any]:
        notebook = self._notebook(NotebookInstanceName)
        if LifecycleConfigName:
            self._lifecycle_config(LifecycleConfigName)
        self._may_move(notebook, "Updating", MODIFIABLE_STATES)
        self.watcher.attaches(notebook, LifecycleConfigName)
        notebook.lifecycle_config = LifecycleConfigName
        self._move(notebook, "Updating")
        return {}

    def start_notebook_instance(self, *, NotebookInstanceName: str) -> dict[str, Any]:
        notebook = self._notebook(NotebookInstanceName)
        self._may_move(notebook, "Pending", MODIFIABLE_STATES)
        self.watcher.starts(notebook)
        script = self.lifecycle_configs[notebook.lifecycle_config].on_start if notebook.lifecycle_config else None
        notebook.booted = script
        notebook.boots += 1
        self._move(notebook, "Pending")
        return {}

    def stop_notebook_instance(self, *, NotebookInstanceName: str) -> dict[str, Any]:
        notebook = self._notebook(NotebookInstanceName)
        self._may_move(notebook, "Stopping", ("InService",))
        self.watcher.stops(notebook)
        self._move(notebook, "Stopping")
        return {}

    # ---- SageMaker: tags

    def list_tags(self, *, ResourceArn: str, **_: Any) -> dict[str, Any]:
        return {"Tags": _as_list(self._tagged(ResourceArn).tags)}

    def add_tags(self, *, ResourceArn: str, Tags: list[dict[str, str]]) -> dict[str, Any]:
        self._set_tags(ResourceArn, lambda tags: tags | {tag["Key"]: tag["Value"] for tag in Tags})
        return {}

    def delete_tags(self, *, ResourceArn: str, TagKeys: list[str]) -> dict[str, Any]:
        self._set_tags(ResourceArn, lambda tags: {key: tags[key] for key in tags if key not in TagKeys})
        return {}

    # ---- SageMaker: lifecycle configurations

    def describe_notebook_instance_lifecycle_config(
        self, *, NotebookInstanceLifecycleConfigName: str
    ) -> dict[str, Any]:
        found = self._lifecycle_config(NotebookInstanceLifecycleConfigName)
        hooks = {"OnCreate": found.on_create, "OnStart": found.on_start}
        return _configuration_line(found) | {
            hook: [{"Content": script}] for hook, script in hooks.items() if script is not None
        }

    def list_notebook_instance_lifecycle_configs(self, **filters: Any) -> dict[str, Any]:
        part = filters.get("NameContains", "").lower()
        lines = [
            _configuration_line(each) for name, each in sorted(self.lifecycle_configs.items()) if part in name.lower()
        ]
        return self._paged("NotebookInstanceLifecycleConfigs", "NotebookInstanceLifecycleConfigName", lines, filters)

    def create_notebook_instance_lifecycle_config(
        self, *, NotebookInstanceLifecycleConfigName: str, Tags: Iterable[Mapping[str, str]] = (), **hooks: Any
    ) -> dict[str, Any]:
        name = NotebookInstanceLifecycleConfigName
        if name in self.lifecycle_configs:
            raise refusal("ValidationException", "Notebook Instance Lifecycle Config already exists.")
        made = LifecycleConfig(name, self.clock(), _script_plan(hooks, "OnCreate"), _script_plan(hooks, "OnStart"))
        made.tags = {tag["Key"]: tag["Value"] for tag in Tags}
        made.by_stack = not self.person
        self.watcher.created(made)
        self.lifecycle_configs[name] = made
        self.tell("lifecycle_config", made)
        return {}

    def update_notebook_instance_lifecycle_config(
        self, *, NotebookInstanceLifecycleConfigName: str, **hooks: Any
    ) -> dict[str, Any]:
        """A hook that is not given is cleared: the strictest thing that the service might do (UNCONFIRMED(empty-hook))."""
        found = self._lifecycle_config(NotebookInstanceLifecycleConfigName)
        on_create, on_start = _script_plan(hooks, "OnCreate"), _script_plan(hooks, "OnStart")
        self.watcher.script(found, found.on_start, on_start)
        found.on_create, found.on_start = on_create, on_start
        found.changed, found.by_stack = self.clock(), not self.person
        self.tell("lifecycle_config", found)
        return {}

    def delete_notebook_instance_lifecycle_config(self, *, NotebookInstanceLifecycleConfigName: str) -> dict[str, Any]:
        found = self._lifecycle_config(NotebookInstanceLifecycleConfigName)
        if any(each.lifecycle_config == found.name for each in self.notebooks.values()):
            raise refusal("ValidationException", "Notebook Instance Lifecycle Config is in use.")
        self.watcher.removed(found)
        del self.lifecycle_configs[found.name]
        self.tell("lifecycle_config", found)
        return {}

    # ---- the tagging API

    def get_resources(self, *, TagFilters: list[dict[str, str]], PaginationToken: str, **_: Any) -> dict[str, Any]:
        (key,) = (each["Key"] for each in TagFilters)
        arns = [arn for arn, tags in sorted(self.indexed.items()) if key in tags and arn > PaginationToken]
        chosen = arns[: self.page]
        return {
            "ResourceTagMappingList": [{"ResourceARN": arn, "Tags": _as_list(self.indexed[arn])} for arn in chosen],
            "PaginationToken": chosen[-1] if len(arns) > len(chosen) else "",
        }

    # ---- EC2

    def describe_security_groups(
        self, *, Filters: Iterable[Mapping[str, Any]] = (), GroupIds: Iterable[str] = (), **_: Any
    ) -> dict[str, Any]:
        asked = [value for each in Filters for value in each["Values"]]
        for group in GroupIds:
            if group not in self.groups:
                raise refusal("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
            asked.append(group)
        return {
            "SecurityGroups": [{"GroupId": each, "VpcId": self.groups[each]} for each in asked if each in self.groups]
        }

    def describe_security_group_rules(self, *, Filters: Iterable[Mapping[str, Any]], **_: Any) -> dict[str, Any]:
        stale = self.stale and self.clock() - self.old[0] <= 2_000
        rules = self.old[2] if stale else list(self.rules.values())
        self.stale_reads += rules != list(self.rules.values())
        for each in Filters:
            wanted = set(each["Values"])
            read = _RULE_FILTERS[each["Name"]]
            rules = [rule for rule in rules if read(rule) in wanted]
        return {"SecurityGroupRules": [_rule_line(rule) for rule in rules]}

    def describe_network_interfaces(self, *, Filters: Iterable[Mapping[str, Any]], **_: Any) -> dict[str, Any]:
        wanted = {value for each in Filters for value in each["Values"]}
        return {
            "NetworkInterfaces": [
                {"NetworkInterfaceId": line, "PrivateIpAddress": f"10.0.0.{number + 10}"}
                for number, each in enumerate(self.notebooks.values())
                if (line := _interface(each)) in wanted
            ]
        }

    def describe_instance_connect_endpoints(self, *, InstanceConnectEndpointIds: Iterable[str]) -> dict[str, Any]:
        found = []
        for each in InstanceConnectEndpointIds:
            if each not in self.endpoints:
                raise refusal("InvalidInstanceConnectEndpointId.NotFound", f"The ID '{each}' does not exist")
            group, vpc = self.endpoints[each]
            found.append(
                {
                    "InstanceConnectEndpointId": each,
                    "State": "create-complete",
                    "VpcId": vpc,
                    "SecurityGroupIds": [group],
                    "DnsName": f"{each}.example.com",
                    "PreserveClientIp": False,
                }
            )
        return {"InstanceConnectEndpoints": found}

    def authorize_security_group_ingress(self, **given: Any) -> dict[str, Any]:
        return self._authorize(given, egress=False)

    def authorize_security_group_egress(self, **given: Any) -> dict[str, Any]:
        return self._authorize(given, egress=True)

    def revoke_security_group_ingress(self, *, GroupId: str, SecurityGroupRuleIds: list[str]) -> dict[str, Any]:
        return self._revoke(GroupId, SecurityGroupRuleIds)

    def revoke_security_group_egress(self, *, GroupId: str, SecurityGroupRuleIds: list[str]) -> dict[str, Any]:
        return self._revoke(GroupId, SecurityGroupRuleIds)

    # ---- queues, events, secrets

    def send_message(self, *, QueueUrl: str, MessageBody: str, **_: Any) -> dict[str, Any]:
        self.queued.append((QueueUrl, MessageBody, 0))
        return {}

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        sent = Entries[: max(0, len(Entries) - self.refused)]
        self.queued += [(QueueUrl, entry["MessageBody"], entry["DelaySeconds"]) for entry in sent]
        return {"Successful": [], "Failed": [{"Code": "InternalError"} for _ in Entries[len(sent) :]]}

    def put_events(self, *, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        if self.refused:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"} for _ in Entries]}
        self.status_change += [entry["Detail"] for entry in Entries]
        return {"FailedEntryCount": 0, "Entries": [{} for _ in Entries]}

    def publish(self, *, TopicArn: str, Message: str) -> dict[str, Any]:
        self.mails.append(Message)
        return {}

    def get_secret_value(self, *, SecretId: str) -> dict[str, Any]:
        return {"SecretString": TOKEN, "VersionId": "1"}

    def get_parameters_by_path(self, *, Path: str, **_: Any) -> dict[str, Any]:
        kept = [(name, value, 0) for name, value in self.keys.items()] if not Path.endswith("/revoked") else []
        top = Path.removesuffix("/revoked")
        kept += [(f"revoked/{number}", text, at) for number, (text, at) in enumerate(self.revoked.items())]
        found = [
            {"Name": f"{top}/{name}", "Value": value, "LastModifiedDate": datetime.fromtimestamp(at // 1000, UTC)}
            for name, value, at in kept
        ]
        return {"Parameters": found}

    def sign(self, **_: Any) -> dict[str, Any]:
        return {"Signature": bytes.fromhex("3006020101020101")}

    # ---- what only people do, and what happens by itself

    def create_notebook(self, notebook: Notebook) -> None:
        notebook.created = self.clock()
        self.notebooks[notebook.name] = notebook
        self.tell("status", notebook)
        notebook.retagged = tuple(notebook.tags)
        self.tell("tags", notebook)

    def delete_notebook(self, name: str) -> None:
        self._may_move(self._notebook(name), "Deleting", MODIFIABLE_STATES)
        self._move(self.notebooks[name], "Deleting")

    def arrive(self, notebook: Notebook) -> None:
        """What is on its way is there."""
        if notebook.status == "Deleting":
            self.notebooks.pop(notebook.name, None)
            self.gone.add(notebook.name.lower())
        elif notebook.status in ARRIVES:
            self._move(notebook, ARRIVES[notebook.status])

    def index(self, notebook: Notebook) -> None:
        """The tagging API hears of a notebook's tags, sooner or later."""
        self.indexed[notebook.arn] = dict(notebook.tags)

    def write_rule(self, group: str, peer: str, *, egress: bool = False, stack: str | None = None) -> None:
        protocol, ports = ("-1", (-1, -1)) if peer == "0.0.0.0/0" and egress else ("tcp", (22, 22))
        self._add_rule(group, egress, protocol, ports, peer, stack, "")

    def tag_rule(self, rule: Rule, stack: str) -> None:
        """A person with `ec2:CreateTags` alone puts the owner's tag on a rule."""
        self.rules[rule.id] = replace(rule, stack=stack)

    # ---- how it is done

    def _line(self, notebook: Notebook) -> dict[str, Any]:
        line = {
            "NotebookInstanceName": notebook.name,
            "NotebookInstanceArn": notebook.arn,
            "NotebookInstanceStatus": notebook.status,
            "LastModifiedTime": _moment(notebook.changed),
            "CreationTime": _moment(notebook.created),
        }
        return line | (
            {"NotebookInstanceLifecycleConfigName": notebook.lifecycle_config} if notebook.lifecycle_config else {}
        )

    def _more(self, notebook: Notebook) -> dict[str, Any]:
        more: dict[str, Any] = {"RoleArn": f"arn:aws:iam::{NUMBER}:role/{notebook.role}"}
        if notebook.groups:
            more |= {
                "SubnetId": "subnet-1",
                "SecurityGroups": list(notebook.groups),
                "NetworkInterfaceId": _interface(notebook),
            }
        return more

    def _paged(self, field: str, name: str, lines: list[dict[str, Any]], given: Mapping[str, Any]) -> dict[str, Any]:
        after = given.get("NextToken", "")
        rest = [line for line in lines if line[name] > after]
        chosen = rest[: self.page]
        return {field: chosen} | ({"NextToken": chosen[-1][name]} if len(rest) > len(chosen) else {})

    def _notebook(self, name: str) -> Notebook:
        if name not in self.notebooks:
            raise refusal("ValidationException", "RecordNotFound")
        return self.notebooks[name]

    def _lifecycle_config(self, name: str) -> LifecycleConfig:
        if name not in self.lifecycle_configs:
            raise refusal("ValidationException", f"Notebook Instance Lifecycle Config {name} does not exist.")
        return self.lifecycle_configs[name]

    def _tagged(self, arn: str) -> Notebook | LifecycleConfig:
        resources: tuple[Notebook | LifecycleConfig, ...] = (*self.notebooks.values(), *self.lifecycle_configs.values())
        for each in resources:
            if each.arn == arn.lower():
                return each
        raise refusal("ValidationException", f"RecordNotFound: {arn}")

    def _set_tags(self, arn: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        found = self._tagged(arn)
        after = change(found.tags)
        if after != found.tags and isinstance(found, Notebook):
            self.watcher.tags(found, after)
            found.retagged = tuple(key for key in found.tags | after if found.tags.get(key) != after.get(key))
            found.tags = after
            self.tell("tags", found)
        found.tags = after

    def _may_move(self, notebook: Notebook, to: str, only_from: tuple[str, ...]) -> None:
        if notebook.status not in only_from:
            raise refusal(
                "ValidationException",
                f"Status ({notebook.status}) not in ([{', '.join(only_from)}]). Unable to transition to ({to}) "
                f"for Notebook Instance ({notebook.arn})",
            )

    def _move(self, notebook: Notebook, to: str) -> None:
        notebook.status, notebook.changed = to, self.clock()
        self.tell("status", notebook)

    def _authorize(self, given: Mapping[str, Any], *, egress: bool) -> dict[str, Any]:
        (permission,) = given["IpPermissions"]
        (stack,) = (tag["Value"] for spec in given["TagSpecifications"] for tag in spec["Tags"])
        ports = (permission["FromPort"], permission["ToPort"])
        peer, description = _peer(permission)
        self._add_rule(given["GroupId"], egress, permission["IpProtocol"], ports, peer, stack, description)
        return {}

    def _add_rule(
        self,
        group: str,
        egress: bool,
        protocol: str,
        ports: tuple[int, int],
        peer: str,
        stack: str | None,
        description: str,
    ) -> None:
        for each in (group, peer):
            if each.startswith("sg-") and each not in self.groups:
                raise refusal("InvalidGroup.NotFound", f"The security group '{each}' does not exist")
        made = f"sgr-{self.made:017x}"
        rule = Rule(made, group, egress, protocol, ports, peer, stack, description, by_stack=not self.person)
        here = [each for each in self.rules.values() if each.group == group]
        if any(each.identity == rule.identity for each in here):
            raise refusal("InvalidPermission.Duplicate", "the specified rule already exists")
        if len([each for each in here if each.egress is egress]) >= RULES_OF_A_GROUP:
            raise refusal("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules has been reached.")
        self.made += 1
        self.rules[rule.id] = rule

    def _revoke(self, group: str, ids: Iterable[str]) -> dict[str, Any]:
        for each in ids:
            if each not in self.rules or self.rules[each].group != group:
                raise refusal("InvalidSecurityGroupRuleId.NotFound", f"The security group rule '{each}' does not exist")
            self.watcher.revocations(self.rules[each])
            del self.rules[each]
        return {}


def _interface(notebook: Notebook) -> str:
    return f"eni-{notebook.name.lower()}"


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _configuration_line(lifecycle_config: LifecycleConfig) -> dict[str, Any]:
    return {
        "NotebookInstanceLifecycleConfigName": lifecycle_config.name,
        "NotebookInstanceLifecycleConfigArn": lifecycle_config.arn,
        "LastModifiedTime": _moment(lifecycle_config.changed),
    }


def _script_plan(hooks: Mapping[str, Any], hook: str) -> str | None:
    given = hooks.get(hook) or []
    if not given:
        return None
    content: str = given[0]["Content"]
    if not 1 <= len(content) <= LIMIT:
        raise refusal("ValidationException", f"{hook}.1.member.content: Member must have length between 1 and {LIMIT}")
    return content


def _peer(permission: Mapping[str, Any]) -> tuple[str, str]:
    """The other end, and the description."""
    fields = (("UserIdGroupPairs", "GroupId"), ("PrefixListIds", "PrefixListId"), ("IpRanges", "CidrIp"))
    kind, name = next((kind, name) for kind, name in fields if kind in permission)
    return str(permission[kind][0][name]), str(permission[kind][0].get("Description", ""))


_RULE_FILTERS: dict[str, Callable[[Rule], str | None]] = {
    "group-id": lambda rule: rule.group,
    "tag:notebook-ssh:stack": lambda rule: rule.stack,
    "security-group-rule-id": lambda rule: rule.id,
}


def _rule_line(rule: Rule) -> dict[str, Any]:
    peer = {"ReferencedGroupInfo": {"GroupId": rule.peer}} if rule.peer.startswith("sg-") else {"CidrIpv4": rule.peer}
    return {
        "SecurityGroupRuleId": rule.id,
        "GroupId": rule.group,
        "IsEgress": rule.egress,
        "IpProtocol": rule.protocol,
        "FromPort": rule.ports[0],
        "ToPort": rule.ports[1],
        "Tags": [{"Key": "notebook-ssh:stack", "Value": rule.stack}] if rule.stack else [],
        "Description": rule.description,
    } | peer


def pages(operation: Callable[..., Any], given: Mapping[str, Any]) -> Iterator[Any]:
    """What a paginator of botocore's yields; one page is all there is."""
    yield operation(**{key: value for key, value in given.items() if key != "PaginationConfig"})
