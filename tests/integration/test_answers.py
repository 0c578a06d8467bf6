"""Every fact that is not confirmed can be played either way, and plain calls tell which answer was given.

A probe makes the calls by which one would find out, and returns the answer's name in the register.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import ssl
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from emulator.answers import ANSWERS
from emulator.place import ACCOUNT
from emulator.process import PYTHON, ROOT_KEYS, Emulator
from notebook.ngrok_cloud import NgrokCloud
from notebook_ssh_client.credentials import AccessKey
from notebook_ssh_client.endpoint import presigned_url
from notebook_ssh_client.ssh_address import Endpoint
from patience import LIMIT_S
from processes import free_port, wait_until

ROLE = f"arn:aws:iam::{ACCOUNT}:role/notebook"


ROOT = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}


def statement(action: str | list[str], resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def allow(action: str | list[str], resource: Any, **more: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [statement(action, resource, **more)]}


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def arn(resource: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [resource, "Arn"]}


def of_group(group: str) -> dict[str, Any]:
    return {"Fn::GetAtt": [group, "GroupId"]}


LAB: dict[str, tuple[str, dict[str, Any]]] = {
    "Events": ("AWS::SQS::Queue", {"MessageRetentionPeriod": 3600}),
    "Fifo": ("AWS::SQS::Queue", {"FifoQueue": True, "ContentBasedDeduplication": True}),
    "Policy": (
        "AWS::SQS::QueuePolicy",
        {
            "Queues": [{"Ref": "Events"}],
            "PolicyDocument": allow("sqs:SendMessage", arn("Events"), Principal={"Service": "events.amazonaws.com"}),
        },
    ),
    "Rule": (
        "AWS::Events::Rule",
        {
            # KMS's Sign counts as an event that reads, which EventBridge leaves out otherwise.
            "State": "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS",
            "EventPattern": {"source": ["aws.tag", "aws.sagemaker", "aws.kms"]},
            "Targets": [{"Id": "queue", "Arn": arn("Events")}],
        },
    ),
    "Key": (
        "AWS::KMS::Key",
        {
            "KeySpec": "ECC_NIST_P256",
            "KeyUsage": "SIGN_VERIFY",
            "KeyPolicy": allow("kms:*", "*", Principal=ROOT),
        },
    ),
    "Role": (
        "AWS::IAM::Role",
        {
            "AssumeRolePolicyDocument": {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": ROOT, "Action": "sts:AssumeRole"}],
            },
            "Policies": [{"PolicyName": "lab", "PolicyDocument": allow("sqs:SendMessage", arn("Events"))}],
        },
    ),
    "EndpointGroup": ("AWS::EC2::SecurityGroup", {"GroupDescription": "endpoint", "VpcId": {"Ref": "Vpc"}}),
    "Group": (
        "AWS::EC2::SecurityGroup",
        {"GroupDescription": "notebook", "VpcId": {"Ref": "Vpc"}, "Tags": [{"Key": "of", "Value": "lab"}]},
    ),
    "Ingress": (
        "AWS::EC2::SecurityGroupIngress",
        {
            "GroupId": of_group("Group"),
            "IpProtocol": "tcp",
            "FromPort": 22,
            "ToPort": 22,
            "SourceSecurityGroupId": of_group("EndpointGroup"),
        },
    ),
    "Log": ("AWS::Logs::LogGroup", {"LogGroupName": "/lab/log", "RetentionInDays": 1}),
    "Endpoint": (
        "AWS::EC2::InstanceConnectEndpoint",
        {"SubnetId": {"Ref": "Subnet"}, "SecurityGroupIds": [of_group("EndpointGroup")]},
    ),
    "Parameter": ("AWS::SSM::Parameter", {"Name": "/lab/below/name", "Type": "String", "Value": "value"}),
}
"""A stack of what the experiments use: types and properties by logical ids."""

OUTPUTS = {
    "Role": arn("Role"),
    "EventsArn": arn("Events"),
    "Group": of_group("Group"),
    **{name: {"Ref": name} for name in ("Events", "Fifo", "Key", "Endpoint")},
}


@dataclass(frozen=True)
class Account:
    """The emulated account, and what the probes share in it: the lab's stack, and a network."""

    emulator: Emulator
    subnet: str
    stack: dict[str, Any]
    """The lab's stack, as DescribeStacks returns it."""
    old_page: str
    """A NextToken of the list of configurations that has expired, if tokens do."""

    @property
    def lab(self) -> dict[str, str]:
        """The outputs of the lab's stack."""
        return {each["OutputKey"]: each["OutputValue"] for each in self.stack["Outputs"]}

    def keys_of(self, role: str) -> dict[str, str]:
        """A session of a role, as environment variables."""
        keys = self.client("sts").assume_role(RoleArn=role, RoleSessionName="lab")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }

    def session(self, *statements: dict[str, Any]) -> dict[str, str]:
        """A session of a new role that may do this, as environment variables."""
        name, trust = unique("role"), {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
        role = self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document(trust))["Role"]
        if statements:
            policy = document(*statements)
            self.client("iam").put_role_policy(RoleName=name, PolicyName="given", PolicyDocument=policy)
        return self.keys_of(role["Arn"])

    def events_until(self, is_last: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
        """The events that the lab's rule delivers, to the first that `is_last`, and what came with it."""
        found: list[dict[str, Any]] = []
        queues, queue = self.client("sqs"), {"QueueUrl": self.lab["Events"]}

        def arrived() -> bool:
            for message in queues.receive_message(**queue, MaxNumberOfMessages=10).get("Messages", []):
                queues.delete_message(**queue, ReceiptHandle=message["ReceiptHandle"])
                found.append(json.loads(message["Body"]))
            return any(is_last(event) for event in found)

        wait_until("the event arrives", arrived)
        return found

    def client(self, service: str) -> Any:
        return self.emulator.client(service)

    @property
    def sagemaker(self) -> Any:
        return self.client("sagemaker")

    def make_configuration(self, script: bytes = b"#!/bin/bash\n") -> str:
        name = unique("Configuration")
        self.sagemaker.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=name, OnStart=hook(script)
        )
        return name

    def make_notebook(self, configuration: str | None = None, **more: Any) -> str:
        name = unique("Notebook")
        more |= {"LifecycleConfigName": configuration} if configuration else {}
        self.sagemaker.create_notebook_instance(
            NotebookInstanceName=name, InstanceType="ml.t3.medium", RoleArn=ROLE, **more
        )
        return name

    def status(self, notebook: str) -> str:
        return str(self.sagemaker.describe_notebook_instance(NotebookInstanceName=notebook)["NotebookInstanceStatus"])

    def wait_for(self, notebook: str, status: str = "InService") -> None:
        wait_until(f"{notebook} is {status}", lambda: self.status(notebook) == status)


def unique(kind: str) -> str:
    return f"{kind}-{uuid4().hex[:8]}"


def hook(script: bytes) -> list[dict[str, str]]:
    return [{"Content": base64.b64encode(script).decode()}]


def refusal(call: Callable[..., Any], **parameters: Any) -> str:
    """The code with which a call is refused, or "" when it is not."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def named(seen: object, answers: Mapping[Any, str]) -> str:
    """The answer that was seen. Raises KeyError for what is none."""
    return answers[seen]


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    emulator = Emulator()
    try:
        emulator.start()
        ec2 = emulator.client("ec2")
        network = ec2.create_vpc(CidrBlock="127.77.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=network, CidrBlock="127.77.1.0/24")["Subnet"]["SubnetId"]
        stack = make_lab(emulator, network, subnet)
        made = Account(emulator, subnet, stack, "")
        for _ in range(2):
            made.make_configuration()
        page = made.sagemaker.list_notebook_instance_lifecycle_configs(MaxResults=1)["NextToken"]
        yield Account(emulator, subnet, stack, page)
    finally:
        emulator.close()


def make_lab(emulator: Emulator, network: str, subnet: str) -> dict[str, Any]:
    """Create the stack of LAB, and return it as DescribeStacks does."""
    formation = emulator.client("cloudformation")
    formation.create_stack(
        StackName="lab",
        TemplateBody=json.dumps(
            {
                "Parameters": {"Vpc": {"Type": "String"}, "Subnet": {"Type": "String"}},
                "Resources": {name: {"Type": kind, "Properties": given} for name, (kind, given) in LAB.items()},
                "Outputs": {name: {"Value": value} for name, value in OUTPUTS.items()},
            }
        ),
        Parameters=[
            {"ParameterKey": "Vpc", "ParameterValue": network},
            {"ParameterKey": "Subnet", "ParameterValue": subnet},
        ],
        Capabilities=["CAPABILITY_IAM"],
        Tags=[{"Key": "run", "Value": "one"}],
    )

    def described() -> dict[str, Any]:
        return dict(formation.describe_stacks(StackName="lab")["Stacks"][0])

    wait_until("the lab's stack is there", lambda: described()["StackStatus"] != "CREATE_IN_PROGRESS")
    return described()


# ---- SageMaker's API -------------------------------------------------------------------------------


def name_case(account: Account) -> str:
    name = account.make_notebook()
    described = not refusal(account.sagemaker.describe_notebook_instance, NotebookInstanceName=name.lower())
    listed = bool(account.sagemaker.list_notebook_instances(NameContains=name.lower())["NotebookInstances"])
    return {(True, True): "ignored", (False, False): "exact"}[described, listed]


def script_limit(account: Account) -> str:
    """12,289 bytes are 16,388 characters of base64."""
    name, update = account.make_configuration(), account.sagemaker.update_notebook_instance_lifecycle_config
    refused = [
        refusal(update, NotebookInstanceLifecycleConfigName=name, OnStart=hook(b"#" * size))
        for size in (12_288, 12_289, 16_385)
    ]
    return {("", "ValidationException"): "base64", ("", ""): "bytes"}[refused[0], refused[1]] if refused[2] else ""


def empty_hook(account: Account) -> str:
    name, sagemaker = account.make_configuration(), account.sagemaker
    if refusal(
        sagemaker.update_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name, OnStart=[]
    ):
        return "refused"
    left = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
    return "ignored" if left["OnStart"] else "clears"


def time_precision(account: Account) -> str:
    name, sagemaker = account.make_configuration(), account.sagemaker
    described = {"CreationTime": None}
    while not described["CreationTime"] or not described["CreationTime"].microsecond:
        name = account.make_configuration()
        described = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
    (listed,) = sagemaker.list_notebook_instance_lifecycle_configs(NameContains=name)[
        "NotebookInstanceLifecycleConfigs"
    ]
    times = "CreationTime", "LastModifiedTime"
    if all(listed[each] == described[each] for each in times):
        return "milliseconds"
    return "seconds-in-lists" if all(listed[each] == described[each].replace(microsecond=0) for each in times) else ""


def delete_attached(account: Account) -> str:
    name = account.make_configuration()
    account.make_notebook(name)
    refused = refusal(
        account.sagemaker.delete_notebook_instance_lifecycle_config, NotebookInstanceLifecycleConfigName=name
    )
    return "refused" if refused else "deletes"


def expired_page(account: Account) -> str:
    def code() -> str:
        return refusal(account.sagemaker.list_notebook_instance_lifecycle_configs, NextToken=account.old_page)

    if account.emulator.answers()["expired-page"] != "never":
        wait_until("the token expires", lambda: code() != "")
    return {"ValidationException": "validation-exception", "": "never"}.get(code(), "other-code")


def describe_rate(account: Account) -> str:
    name, describe = account.make_notebook(), account.sagemaker.describe_notebook_instance
    codes = {refusal(describe, NotebookInstanceName=name) for _ in range(20)}
    return "throttled" if "ThrottlingException" in codes else "unthrottled"


def platform_refusal(account: Account) -> str:
    with pytest.raises(ClientError) as refused:
        account.make_notebook(PlatformIdentifier="notebook-al9-v9")
    code = refused.value.response["Error"]["Code"]
    return "validation-exception" if code == "ValidationException" else "other-code"


# ---- events ----------------------------------------------------------------------------------------


def tag(account: Account) -> list[dict[str, Any]]:
    """Tag a notebook, and return the events of that, of which CloudTrail's is always there, and last."""
    name = account.make_notebook()
    arn = account.sagemaker.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceArn"]
    account.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "ssh", "Value": "ngrok"}])
    events = account.events_until(
        lambda event: event["detail"].get("eventName") == "AddTags" and arn in json.dumps(event)
    )
    return [event for event in events if arn in json.dumps(event)]


def tag_events(account: Account) -> str:
    return "emitted" if "aws.tag" in {event["source"] for event in tag(account)} else "absent"


def cloudtrail_shape(account: Account) -> str:
    names = set(tag(account)[-1]["detail"]["requestParameters"])
    return {("resourceArn", "tags"): "lower-camel-case", ("ResourceArn", "Tags"): "as-sent"}[*sorted(names)]


def key_in_trail(account: Account) -> str:
    """By calls that write and that read, and by one that IAM refuses."""
    keys, key = account.client("kms"), account.lab["Key"]
    nobody = account.emulator.client("kms", account.session())
    message = {"KeyId": key, "Message": b"message", "SigningAlgorithm": "ECDSA_SHA_256"}
    keys.put_key_policy(KeyId=key, Policy=json.dumps(LAB["Key"][1]["KeyPolicy"]))
    keys.sign(**message)
    assert refusal(nobody.sign, **message) == "AccessDeniedException"
    events = account.events_until(lambda event: event["detail"].get("errorCode") == "AccessDenied")
    calls = [event["detail"] for event in events if event["source"] == "aws.kms"]
    assert [(call["eventName"], call["readOnly"]) for call in calls] == [
        ("PutKeyPolicy", False),
        ("Sign", True),
        ("Sign", True),
    ]
    arns = {each["ARN"] for call in calls for each in call.get("resources", [])}
    return named(tuple(arns), {(f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{key}",): "named", (): "absent"})


# ---- IAM, and other services -----------------------------------------------------------------------

START = [
    "ec2:CreateNetworkInterface",
    "ec2:AttachNetworkInterface",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:Describe*",
]


def start_permissions(account: Account) -> str:
    """A notebook that runs is refused for its status alone, once the caller may start it."""
    name = account.make_notebook(SubnetId=account.subnet, SecurityGroupIds=[account.lab["Group"]])
    account.wait_for(name)
    start, pass_role = statement("sagemaker:StartNotebookInstance"), statement("iam:PassRole", ROLE)
    codes = tuple(
        refusal(account.emulator.client("sagemaker", keys).start_notebook_instance, NotebookInstanceName=name)
        for keys in (
            account.session(start),
            account.session(start, pass_role),
            account.session(start, pass_role, statement(START)),
        )
    )
    denied, status = "AccessDeniedException", "ValidationException"
    return named(codes, {(status, status, status): "start-only", (denied, denied, status): "all"})


def parameters_by_path(account: Account) -> str:
    path = f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/lab/below"
    codes = tuple(
        refusal(account.emulator.client("ssm", keys).get_parameters_by_path, Path="/lab/below")
        for keys in (account.session(statement("ssm:GetParametersByPath", each)) for each in (path, f"{path}/*"))
    )
    return named(codes, {("", "AccessDeniedException"): "path", ("AccessDeniedException", ""): "below"})


def fifo_rate(account: Account) -> str:
    send, queue = account.client("sqs").send_message, account.lab["Fifo"]
    codes = {refusal(send, QueueUrl=queue, MessageBody=str(n), MessageGroupId="group") for n in range(100)}
    return {frozenset({""}): "unthrottled", frozenset({"", "RequestThrottled"}): "throttled"}[frozenset(codes)]


def filter_terms(account: Account) -> str:
    logs, place = account.client("logs"), {"logGroupName": "/lab/log", "logStreamName": unique("stream")}
    logs.create_log_stream(**place)
    logs.put_log_events(**place, logEvents=[{"timestamp": int(time.time() * 1000), "message": "WARNINGS of one"}])
    found = logs.filter_log_events(logGroupName="/lab/log", filterPattern="WARNING")["events"]
    return "substrings" if found else "words"


def path_as_sent(account: Account) -> str:
    """Ask for a path that a policy allows, with one character of it escaped."""
    api = make_api(account)
    keys = account.session(statement("execute-api:Invoke", f"arn:aws:execute-api:*:*:{api}/v1/GET/notebooks/my-name"))
    statuses = tuple(get(account, f"/_aws/execute-api/{api}/v1/notebooks/{name}", keys) for name in NAMES)
    return named(statuses, {(200, 403, 403): "as-sent", (200, 200, 403): "decoded"})


NAMES = ("my-name", "my%2Dname", "other")
"""As the policy has it, with an escape, and one that is not allowed."""


def make_api(account: Account) -> str:
    """An API whose every path answers 200 to those whom IAM lets ask."""
    service = account.client("apigateway")
    api = str(service.create_rest_api(name=unique("api"))["id"])
    (root,) = service.get_resources(restApiId=api)["items"]
    made = service.create_resource(restApiId=api, parentId=root["id"], pathPart="{path+}")
    method = {"restApiId": api, "resourceId": made["id"], "httpMethod": "GET"}
    service.put_method(**method, authorizationType="AWS_IAM")
    service.put_integration(**method, type="MOCK", requestTemplates={"application/json": '{"statusCode": 200}'})
    service.put_method_response(**method, statusCode="200")
    service.put_integration_response(**method, statusCode="200")
    service.create_deployment(restApiId=api, stageName="v1")
    return api


def get(account: Account, path: str, keys: dict[str, str]) -> int:
    """The status of a signed request for `path`, which is sent as it is."""
    request = AWSRequest("GET", f"{account.emulator.endpoint}{path}")
    credentials = Credentials(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys["AWS_SESSION_TOKEN"])
    signer: Any = SigV4Auth(credentials, "execute-api", "us-east-1")
    signer.add_auth(request)
    connection = http.client.HTTPConnection("127.0.0.1", account.emulator.port, timeout=60)
    try:
        connection.request("GET", path, headers=dict(request.headers))
        return connection.getresponse().status
    finally:
        connection.close()


# ---- a notebook, and ngrok -------------------------------------------------------------------------


def printed(account: Account, script: str) -> list[str]:
    """The lines that an on-start script prints, by CloudWatch Logs."""
    name = account.make_notebook(account.make_configuration(f"#!/bin/bash\n{script}\n".encode()))
    account.wait_for(name)
    return log_of(account, name)


def log_of(account: Account, notebook: str) -> list[str]:
    place = {"logGroupName": "/aws/sagemaker/NotebookInstances", "logStreamName": f"{notebook}/LifecycleConfigOnStart"}
    events = account.client("logs").get_log_events(**place, startFromHead=True)["events"]
    return [event["message"] for event in events]


def maintenance_states(account: Account) -> str:
    """What the events say of a notebook until it is stopped, and how often it has booted."""
    name = account.make_notebook(account.make_configuration(b"#!/bin/bash\necho booted\n"))

    def statuses_until(last: str) -> list[str]:
        def is_last(event: dict[str, Any]) -> bool:
            return _status_in(event, name) == last

        return [status for event in account.events_until(is_last) if (status := _status_in(event, name))]

    usual, maintained = ["Pending", "InService"], ["PendingMaintenance", "InMaintenance", "InService"]
    first = "InService" if account.emulator.answers()["maintenance-states"] == "none" else "InMaintenance"
    statuses = statuses_until(first)
    account.wait_for(name)
    account.sagemaker.stop_notebook_instance(NotebookInstanceName=name)
    statuses += statuses_until("Stopped")
    boots = len(log_of(account, name))
    if statuses == [*usual, "Stopping", "Stopped"]:
        return named(boots, {1: "none"})
    assert statuses == [*usual, *maintained, "Stopping", "Stopped"]
    return named(boots, {1: "stays", 2: "ends"})


def _status_in(event: dict[str, Any], notebook: str) -> str:
    """The status of a notebook in an event of it."""
    detail = event["detail"]
    return str(detail["NotebookInstanceStatus"]) if detail.get("NotebookInstanceName") == notebook else ""


def sshd_runs(account: Account) -> str:
    lines = printed(
        account,
        """systemctl is-active sshd
        systemctl is-enabled sshd 2>/dev/null || true
        [ ! -x $NOTEBOOK_SSH_ROOT/usr/sbin/sshd ] || echo installed
        exec 3<>/dev/tcp/127.0.0.1/$NOTEBOOK_SSH_PORT && head -c 3 <&3
        exit 0""",
    )
    found = tuple(line for line in lines if "refused" not in line)
    return named(
        found,
        {
            ("active", "enabled", "installed", "SSH"): "active",
            ("inactive", "masked", "installed"): "masked",
            ("inactive",): "absent",
        },
    )


def systemd_on_start(account: Account) -> str:
    """Start a unit, and stop it."""
    lines = printed(
        account,
        """printf '[Service]\\nExecStart=/bin/sleep 60\\n' >$NOTEBOOK_SSH_ROOT/etc/systemd/system/lab.service
        systemctl daemon-reload
        systemctl start lab 2>&1
        systemctl is-active lab
        systemctl stop lab
        systemctl is-active lab
        exit 0""",
    )
    refused = "Failed to start lab.service: Connection timed out"
    return named(tuple(lines), {("active", "inactive"): "starts", (refused, "inactive", "inactive"): "fails"})


def imds_role(account: Account) -> str:
    """Which role is listed, and whose its credentials are."""
    listed, *document = printed(
        account,
        """URL=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest
        HEADER="X-aws-ec2-metadata-token: $(curl -sS --request PUT $URL/api/token)"
        ROLE=$(curl -sS -H "$HEADER" $URL/meta-data/iam/security-credentials/)
        echo $ROLE
        curl -sS -H "$HEADER" $URL/meta-data/iam/security-credentials/$ROLE""",
    )
    given = json.loads("".join(document))
    keys = {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["Token"],
    }
    owner = account.emulator.client("sts", keys).get_caller_identity()["Arn"].split("/")[1]
    other = "BaseNotebookInstanceEc2InstanceRole"
    return named(
        (listed, owner),
        {
            ("notebook", "notebook"): "execution-role",
            (other, "notebook"): "other-name",
            (other, other): "other-credentials",
        },
    )


def selinux_port(account: Account) -> str:
    """Let an sshd listen on another port than the instance's."""
    port = free_port()
    mode, *rest = printed(
        account,
        f"""getenforce
        cd $NOTEBOOK_SSH_ROOT/tmp
        printf 'Port {port}\\nListenAddress 127.0.0.1\\nHostKey ../etc/ssh/ssh_host_ed25519_key\\n' >config
        sed -i "s|\\.\\.|$NOTEBOOK_SSH_ROOT|" config
        sshd -t -f config || echo invalid
        sshd -D -e -f $PWD/config 2>log &
        until grep -qE 'listening|fatal' log; do sleep 0.1; done
        cat log
        kill $! 2>/dev/null || true""",
    )
    last = rest[-1].strip()
    return named(
        (mode, last),
        {
            ("Permissive", f"Server listening on 127.0.0.1 port {port}."): "allowed",
            ("Enforcing", "fatal: Cannot bind any address."): "refused",
        },
    )


@contextmanager
def ngrok(account: Account) -> Iterator[NgrokCloud]:
    """ngrok's cloud as the local run has it."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "answers.json").symlink_to(account.emulator.answers_file)
        cloud = NgrokCloud(Path(folder), str(PYTHON))
        try:
            yield cloud
        finally:
            cloud.close()


def ngrok_redirect(account: Account) -> str:
    with ngrok(account) as cloud, urllib.request.urlopen(cloud.download) as response:
        assert hashlib.sha256(response.read()).hexdigest() == cloud.sha256
        return named(response.url == cloud.download, {True: "direct", False: "redirects"})


def ngrok_merge(account: Account) -> str:
    """Where the agent's local API is, which the first of two files says."""
    wanted = f"127.0.0.1:{free_port()}"
    with ngrok(account) as cloud, urllib.request.urlopen(cloud.download) as response:
        with tarfile.open(fileobj=io.BytesIO(response.read())) as archive:
            archive.extract("ngrok", cloud.home, filter="data")
        texts = {"one": f"web_addr: {wanted}", "two": f"authtoken: {cloud.token}"}
        for name, text in texts.items():
            (cloud.home / name).write_text(f"version: 3\nagent:\n  {text}\n")
        files = f"{cloud.home}/one,{cloud.home}/two"
        command = [str(cloud.home / "ngrok"), "start", "--none", "--config", files, "--log=stdout", "--log-format=json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as agent:
            first = json.loads(agent.stdout.readline()) if agent.stdout else {}
            agent.kill()
    return named(first["addr"] == wanted, {True: "merges", False: "replaces"})


# ---- an endpoint -----------------------------------------------------------------------------------

NOTHING = "127.77.1.250"
"""An address in the VPC at which there is nothing."""


@contextmanager
def tunnel(account: Account, address: str, port: int = 22, keys: Mapping[str, str] = ROOT_KEYS) -> Iterator[Any]:
    """A tunnel through the lab's endpoint. Raises InvalidStatus when it is refused."""
    (endpoint,) = account.client("ec2").describe_instance_connect_endpoints(
        InstanceConnectEndpointIds=[account.lab["Endpoint"]]
    )["InstanceConnectEndpoints"]
    key = AccessKey(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN"))
    place = Endpoint(account.lab["Endpoint"], endpoint["DnsName"], "us-east-1", "lab")
    trusted = ssl.create_default_context(cafile=str(account.emulator.authorities))
    url = presigned_url(place, address, port, key)
    with connect(url, ssl=trusted, proxy=None, open_timeout=LIMIT_S, ping_interval=None) as opened:
        yield opened


def outcome(account: Account, *asked: Any) -> str:
    """What comes first through a tunnel, what it is closed with, or how it is refused."""
    try:
        with tunnel(account, *asked) as opened:
            return str(opened.recv(), "ascii")[:3]
    except ConnectionClosed as ended:
        return str(ended.rcvd and ended.rcvd.reason)
    except InvalidStatus as refused:
        return f"{refused.response.status_code} {json.loads(refused.response.body or b'{}')['ErrorCode']}"


def reachable(account: Account) -> str:
    """The address of a notebook whose group admits the endpoint's."""
    name = account.make_notebook(SubnetId=account.subnet, SecurityGroupIds=[account.lab["Group"]])
    account.wait_for(name)
    interface = account.sagemaker.describe_notebook_instance(NotebookInstanceName=name)["NetworkInterfaceId"]
    found = account.client("ec2").describe_network_interfaces(NetworkInterfaceIds=[interface])
    return str(found["NetworkInterfaces"][0]["PrivateIpAddress"])


def endpoint_refusals(account: Account) -> str:
    """Of another port, of a caller without the right, and of an address at which there is nothing."""
    seen = (
        outcome(account, NOTHING, 2222),
        outcome(account, NOTHING, 22, account.session()),
        outcome(account, NOTHING, 3389),
    )
    return named(
        seen,
        {
            ("400 InvalidParameter", "403 AccessDeniedException", "Unable to connect to target"): "as-known",
            ("422 InvalidRequestException", "401 NotAuthorizedException", "The target did not answer"): "other",
        },
    )


def endpoint_pings(account: Account) -> str:
    """That no Pong comes, is known when what was sent later has come: here, sshd's answer to a client that is none."""
    with tunnel(account, reachable(account)) as opened:
        opened.recv()
        pong = opened.ping()
        opened.send(b"no client\r\n")
        with suppress(ConnectionClosed):
            while True:
                opened.recv()
        return "pong" if pong.is_set() else "silent"


def eice_interface(account: Account) -> str:
    seen = outcome(account, reachable(account))
    return named(seen, {"SSH": "reaches", "400 InvalidParameter": "refused"})


PROBES: dict[str, Callable[[Account], str]] = {
    "cloudtrail-shape": cloudtrail_shape,
    "delete-attached": delete_attached,
    "describe-rate": describe_rate,
    "eice-interface": eice_interface,
    "empty-hook": empty_hook,
    "endpoint-pings": endpoint_pings,
    "endpoint-refusals": endpoint_refusals,
    "expired-page": expired_page,
    "fifo-rate": fifo_rate,
    "filter-terms": filter_terms,
    "imds-role": imds_role,
    "key-in-trail": key_in_trail,
    "maintenance-states": maintenance_states,
    "name-case": name_case,
    "ngrok-merge": ngrok_merge,
    "ngrok-redirect": ngrok_redirect,
    "parameters-by-path": parameters_by_path,
    "path-as-sent": path_as_sent,
    "platform-refusal": platform_refusal,
    "script-limit": script_limit,
    "selinux-port": selinux_port,
    "sshd-runs": sshd_runs,
    "start-permissions": start_permissions,
    "systemd-on-start": systemd_on_start,
    "tag-events": tag_events,
    "time-precision": time_precision,
}
"""How one finds out which answer to a fact is given."""


def test_every_fact_has_a_probe() -> None:
    assert PROBES.keys() == ANSWERS.keys()


@pytest.mark.parametrize(("fact", "answer"), [(fact, answer) for fact in PROBES for answer in ANSWERS[fact]])
def test_each_answer_is_what_calls_find(account: Account, fact: str, answer: str) -> None:
    with account.emulator.answering({fact: answer}):
        assert PROBES[fact](account) == answer


# ---- the register ----------------------------------------------------------------------------------


def test_answers_are_read_changed_and_shared_with_other_programs(account: Account) -> None:
    emulator = account.emulator
    assert emulator.answers() == {fact: answers[0] for fact, answers in ANSWERS.items()}
    with emulator.answering({"name-case": "ignored"}):
        assert emulator.answers()["name-case"] == "ignored"
        assert '"name-case": "ignored"' in emulator.answers_file.read_text()
    assert emulator.answers()["name-case"] == "exact"


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"no-fact": "exact"}, "no-fact"), ({"name-case": "perhaps"}, "perhaps"), ({"name-case": ["exact"]}, "exact")],
)
def test_what_the_register_does_not_have_is_refused_and_changes_nothing(
    account: Account, changes: dict[str, Any], named: str
) -> None:
    before = account.emulator.answers()
    with pytest.raises(ValueError, match=named), account.emulator.answering({"empty-hook": "refused", **changes}):
        pass
    assert account.emulator.answers() == before


# ---- what experiments on a notebook read -----------------------------------------------------------


def test_what_an_on_start_script_prints_is_in_cloudwatch_logs(account: Account) -> None:
    name = account.make_notebook(account.make_configuration(b"#!/bin/bash\necho first\necho >&2\necho second >&2\n"))
    account.wait_for(name)
    assert log_of(account, name) == ["first", "second"]


def test_what_a_failed_start_printed_is_there_too_and_the_next_one_goes_on(account: Account) -> None:
    name = account.make_notebook(account.make_configuration(b"#!/bin/bash\necho before\nexit 1\n"))
    for start in (1, 2):
        account.wait_for(name, "Failed")
        assert log_of(account, name) == ["before"] * start
        account.sagemaker.start_notebook_instance(NotebookInstanceName=name)


# ---- what experiments create -----------------------------------------------------------------------


def test_a_stack_can_have_what_experiments_use_and_says_whose_it_is(account: Account) -> None:
    assert account.stack["StackStatus"] == "CREATE_COMPLETE"
    assert account.stack["Tags"] == [{"Key": "run", "Value": "one"}]
    assert abs((datetime.now(UTC) - account.stack["CreationTime"]).total_seconds()) < 3600
    assert account.stack["StackId"].startswith(f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/lab/")


def test_groups_of_a_stack_are_those_that_ec2_knows_with_their_rules(account: Account) -> None:
    (group,) = account.client("ec2").describe_security_groups(GroupIds=[account.lab["Group"]])["SecurityGroups"]
    (rule,) = group["IpPermissions"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 22, 22)
    assert len(rule["UserIdGroupPairs"]) == 1
    assert {"Key": "of", "Value": "lab"} in group["Tags"]


def test_a_session_of_a_stacks_role_may_do_what_its_policy_allows(account: Account) -> None:
    queues, queue = account.emulator.client("sqs", account.keys_of(account.lab["Role"])), account.lab["Events"]
    assert refusal(queues.send_message, QueueUrl=queue, MessageBody="{}") == ""
    assert refusal(queues.purge_queue, QueueUrl=queue) == "AccessDenied"


def test_a_stack_is_deleted_with_what_it_made(account: Account) -> None:
    formation, logs = account.client("cloudformation"), account.client("logs")
    group = {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/lab/short"}}
    made = formation.create_stack(StackName="short", TemplateBody=json.dumps({"Resources": {"Log": group}}))["StackId"]

    def status() -> str:
        return str(formation.describe_stacks(StackName=made)["Stacks"][0]["StackStatus"])

    wait_until("the stack is there", lambda: status() == "CREATE_COMPLETE")
    assert len(logs.describe_log_groups(logGroupNamePrefix="/lab/short")["logGroups"]) == 1
    formation.delete_stack(StackName=made)
    wait_until("the stack is deleted", lambda: status() == "DELETE_COMPLETE")
    assert refusal(formation.describe_stacks, StackName="short") == "ValidationError"
    assert logs.describe_log_groups(logGroupNamePrefix="/lab/short")["logGroups"] == []


def test_a_bucket_has_tags_and_a_date_and_is_deleted_when_it_is_empty(account: Account) -> None:
    storage, name = account.client("s3"), "lab-bucket"
    storage.create_bucket(Bucket=name)
    storage.put_bucket_tagging(Bucket=name, Tagging={"TagSet": [{"Key": "run", "Value": "one"}]})
    assert storage.get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "run", "Value": "one"}]
    (listed,) = [each for each in storage.list_buckets()["Buckets"] if each["Name"] == name]
    assert abs((datetime.now(UTC) - listed["CreationDate"]).total_seconds()) < 3600
    storage.put_object(Bucket=name, Key="object", Body=b"content")
    assert refusal(storage.delete_bucket, Bucket=name) == "BucketNotEmpty"
    storage.delete_object(Bucket=name, Key="object")
    storage.delete_bucket(Bucket=name)
    assert refusal(storage.get_bucket_tagging, Bucket=name) == "NoSuchBucket"


def test_a_configuration_lists_the_tags_that_it_was_created_with(account: Account) -> None:
    tags = [{"Key": "run", "Value": "one"}]
    made = account.sagemaker.create_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName=unique("tagged"), OnStart=hook(b"#!/bin/sh\n"), Tags=tags
    )
    listed = account.sagemaker.list_tags(ResourceArn=made["NotebookInstanceLifecycleConfigArn"])
    assert listed["Tags"] == tags
