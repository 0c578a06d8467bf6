"""What the documents say to type works: typed into bash, with AWS's and SAM's own command lines, and its effect is checked.

Then it is typed into dash and zsh, which must run the same programs with the same arguments. They get the answers that
bash got: a stack can be deleted once.

The account is the one that `make aws` opens. Two scenarios at the same time, each in an account of its own: from nothing to
the stack's end by `sam`, and the life of a stack that is there. What is not typed here is listed in docs/operations.md
with the reason, and nothing else may be missing.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from support.tape import Tape

import processes
from emulator.process import ACCOUNT, PROJECT, PYTHON, REGION
from emulator.stack import deploy
from environment import OWNERS_SCRIPT
from patience import LIMIT_S as LIMIT

SHELLS = [["bash", "-euo", "pipefail"], ["dash", "-eu"], ["zsh", "-feuo", "pipefail"]]

DOCUMENTS = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("client/*.md"), *PROJECT.glob("docs/*.md")])
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)

BY_SAM = [
    ("deploy.md", ". .build/aws.sh"),
    ("deploy.md", "NGROK_TOKEN"),
    ("deploy.md", "Key=ssh-restart,Value=now"),
    ("deploy.md", "ssh my-notebook ssh-status"),
    ("deploy.md", "output PutToken\n"),
    ("operations.md", "Paused=true"),
    ("operations.md", "Paused=false"),
    ("operations.md", "DryRun=true"),
    ("operations.md", "api /plan"),
    ("operations.md", "logs '\"dry run\"'"),
    ("operations.md", "DryRun=false"),
    ("operations.md", "read -r COPY"),
    ("operations.md", "ON_CREATE="),
    ("README.md", "REGION:ACCOUNT"),
    ("deploy.md", "--tags Key=ssh,Value=ngrok \\"),
    ("operations.md", "sam delete"),
    ("operations.md", "delete-table"),
]
"""The blocks that are typed from nothing to the stack's end, each by its document and words that are in no other block of it."""

DEPLOYED_AGAIN = [("operations.md", f"{name}={value}") for name in ("Paused", "DryRun") for value in ("true", "false")]
"""Those of them that set a parameter with `sam deploy`: typed at night alone."""

DAY_BY_DAY = [
    ("README.md", '"$API_URL/notebooks/my-notebook/ssh"'),
    ("api.md", "get() {"),
    ("api.md", "get /ssh-config"),
    ("connect.md", "get() {"),
    ("block.md", "sed "),
    ("bastion.md", "describe-security-group-rules"),
    ("keys.md", "KEYS_PATH"),
    ("operations.md", "resource() {"),
    ("operations.md", "api /notebooks\n"),
    ("operations.md", "api /notebooks/my-notebook/doctor"),
    ("operations.md", "send-message"),
    ("operations.md", '--function-name "$(resource Sweep)" /dev/stdout\n```'),
    ("operations.md", "tail -20"),
    ("operations.md", "read -r ID"),
    ("operations.md", "start-message-move-task"),
    ("operations.md", "purge-queue"),
    ("operations.md", 'bash -c "$(output PutToken)"'),
    ("operations.md", "file://tokens.json"),
    ("operations.md", '/"status":"stale"/p'),
    ("operations.md", "list-event-source-mappings"),
    ("operations.md", "update-event-source-mapping"),
    ("operations.md", "put-parameter"),
    ("operations.md", "delete-parameter"),
    ("operations.md", "put-rule"),
]
"""The blocks that are typed while a stack is there."""


def blocks(document: Path) -> list[str]:
    """The fenced shell commands of a document, each with its closing fence, so that words can name its end."""
    return [found[1] + "```" for found in SHELL.finditer(document.read_text("utf-8"))]


def block(document: str, words: str) -> str:
    (path,) = (each for each in DOCUMENTS if each.name == document and each.parent.name != "client")
    (found,) = (each for each in blocks(path) if words in each)
    return found.removesuffix("```")


def commands(text: str) -> list[str]:
    """The commands of a block, one an entry: lines that go on are joined, comments and blank lines are no commands."""
    lines = text.removesuffix("```").replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def listed() -> list[str]:
    """What docs/operations.md lists as not typed here: how each of these commands begins."""
    section = (PROJECT / "docs/operations.md").read_text("utf-8").partition("## What was run")[2]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return [command for row in rows for command in re.findall(r"`([^`]+)`", row)]


def test_every_command_of_the_documents_is_typed_or_listed_with_a_reason() -> None:
    typed = {block(document, words) for document, words in BY_SAM + DAY_BY_DAY}
    assert len(typed) == len(BY_SAM) + len(DAY_BY_DAY)
    known = {command for text in typed for command in commands(text)}
    documented = [command for document in DOCUMENTS for text in blocks(document) for command in commands(text)]
    left = [command for command in documented if command not in known]
    excused = listed()
    assert [command for command in left if not command.startswith(tuple(excused))] == []
    assert [begin for begin in excused if not any(command.startswith(begin) for command in left)] == []


class Terminal:
    """A person's second terminal next to `make aws`. folder: where files are; effects are read from AWS with `client`.

    typed: the blocks that were typed in it. deploys_with_sam: whether each deployment is, or the first alone.
    """

    deploys_with_sam = True

    def __init__(self, environment: Path, folder: Path) -> None:
        self.environment, self.folder = environment, folder
        # Until the next deployment, the same question about the stack has the same answer.
        self.tape = Tape(folder.parent / "tape", "aws bash curl date make sam ssh", "aws cloudformation describe-stack")
        self.read_in = folder.parent / "read-in.sh"
        first = f'PATH={shlex.quote(str(self.tape.programs))}:"$PATH"'
        self.read_in.write_text(f". {shlex.quote(str(environment))}\n{first}\n")
        printed = subprocess.run(
            ["bash", "-c", f". {shlex.quote(str(environment))}; env -0"], capture_output=True, text=True, check=True
        )
        self.variables = dict(line.partition("=")[::2] for line in printed.stdout.split("\0"))
        self.typed: list[tuple[str, str]] = []

    def type(self, document: str, words: str, answer: str = "", before: str = "", at: Path | None = None) -> str:
        """Type a block, with the functions that docs/operations.md defines at its top; what it printed.

        answer: what is typed when a command asks. before: commands that set what the block takes for granted.
        at: the folder to be in; in any other than the project's, `~` is the terminal's own.
        """
        self.typed.append((document, words))
        text = block(document, words)
        for written, meant in {
            ".build/aws.sh": shlex.quote(str(self.read_in)),
            "REGION:ACCOUNT": f"{REGION}:{ACCOUNT}",
        }.items():
            text = text.replace(written, meant)
        lines = [
            f". {shlex.quote(str(self.read_in))}",
            block("operations.md", "resource() {"),
            before,
            text,
        ]
        first = ""
        (self.tape.forget if "sam " in text else self.tape.erase)()
        for number, shell in enumerate(SHELLS):
            done = subprocess.run(
                [*shell, "-c", "\n".join(lines)],
                cwd=at or self.folder,
                input=answer,
                env=os.environ | ({} if at else {"HOME": str(self.folder)}) | self.tape.environment(plays=number > 0),
                capture_output=True,
                text=True,
                timeout=5 * LIMIT,
                check=False,
            )
            output = f"{document}, in {shell[0]}:\n{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
            assert done.returncode == 0, output
            assert "never run" not in done.stderr, output
            if number:
                assert done.stdout == first, output
                assert self.tape.rewind() == [], output
            first = done.stdout
        return first

    def set(self, parameter: str, value: str) -> None:
        """Type the block that sets a parameter with `sam`; by day CloudFormation is asked to, in a fifth of the time."""
        if self.deploys_with_sam:
            self.type("operations.md", f"{parameter}={value}", at=PROJECT)
        else:
            self._update_stack(parameter, value)
        # An invocation that began before ends with the settings on which it began, as in Lambda.
        until("the reconciler is idle", self.is_idle)

    def _update_stack(self, parameter: str, value: str) -> None:
        formation = self.client("cloudformation")
        (stack,) = formation.describe_stacks(StackName="notebook-ssh")["Stacks"]
        others = [each["ParameterKey"] for each in stack["Parameters"] if each["ParameterKey"] != parameter]
        formation.update_stack(
            StackName="notebook-ssh",
            UsePreviousTemplate=True,
            Parameters=[
                {"ParameterKey": parameter, "ParameterValue": value},
                *({"ParameterKey": each, "UsePreviousValue": True} for each in others),
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        until(f"{parameter} is {value}", self.is_deployed)

    def is_deployed(self) -> bool:
        """Whether the stack is up to date, and nothing of it under way."""
        (stack,) = self.client("cloudformation").describe_stacks(StackName="notebook-ssh")["Stacks"]
        assert "ROLLBACK" not in stack["StackStatus"], stack
        return str(stack["StackStatus"]) == "UPDATE_COMPLETE"

    def is_idle(self) -> bool:
        """Whether no invocation of the notebook reconciler has a message."""
        count = "ApproximateNumberOfMessagesNotVisible"
        queue = self.resource("NotebookQueue")
        answer = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=[count])
        return str(answer["Attributes"][count]) == "0"

    @property
    def endpoint(self) -> str:
        """The base address of the account's services."""
        return self.variables["AWS_ENDPOINT_URL"]

    def client(self, service: str) -> Any:
        """A client of `service` with the admin's session, to check effects with."""
        return botocore.session.Session().create_client(
            service,
            region_name=self.variables["AWS_REGION"],
            endpoint_url=self.endpoint,
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=self.variables["AWS_SESSION_TOKEN"],
        )

    def outputs(self) -> dict[str, str]:
        (stack,) = self.client("cloudformation").describe_stacks(StackName="notebook-ssh")["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def resource(self, name: str) -> str:
        """The name that CloudFormation gave the resource `name`."""
        described = self.client("cloudformation").describe_stack_resource(
            StackName="notebook-ssh", LogicalResourceId=name
        )
        return str(described["StackResourceDetail"]["PhysicalResourceId"])

    def script(self) -> bytes:
        """The on-start script of the notebook's configuration, as it is now."""
        described = self.client("sagemaker").describe_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName="gpu-setup"
        )
        return base64.b64decode(described["OnStart"][0]["Content"])

    def record(self) -> dict[str, Any]:
        """The notebook's record in the table, as DynamoDB writes it; empty while there is none."""
        table = self.client("dynamodb")
        items = table.scan(TableName=self.outputs()["TableName"])["Items"]
        return next((item for item in items if item.get("sk", {}).get("S") == "my-notebook"), {})

    def logged(self, function: str, words: str) -> list[str]:
        """The lines of a function's log with these words, one after the other."""
        group = f"/aws/lambda/notebook-ssh-{function}"
        found = self.client("logs").filter_log_events(logGroupName=group, filterPattern=f'"{words}"')
        return [event["message"] for event in found["events"]]

    def phase(self) -> str:
        """The phase in the agent's last report."""
        return str(self.record().get("report", {}).get("M", {}).get("phase", {}).get("S", ""))

    def clear_the_observed_hash(self) -> None:
        """Clear the observed hash of the record: a reconcile that finds no change would leave no trace."""
        self.client("dynamodb").update_item(
            TableName=self.outputs()["TableName"],
            Key={"pk": {"S": "notebook"}, "sk": {"S": "my-notebook"}},
            UpdateExpression="SET #hash = :nothing",
            ExpressionAttributeNames={"#hash": "hash"},
            ExpressionAttributeValues={":nothing": {"S": ""}},
        )

    def was_reconciled(self) -> bool:
        """Whether the notebook was reconciled since then."""
        return bool(self.record()["hash"]["S"])

    def logs(self, function: str, words: str) -> bool:
        """Whether a line with `words` is in the function's log."""
        found = self.client("logs").filter_log_events(
            logGroupName=f"/aws/lambda/notebook-ssh-{function}", filterPattern=f'"{words}"'
        )
        return bool(found["events"])

    def letters(self, output: str) -> int:
        """How many messages lie in the queue that an output names."""
        attributes = self.client("sqs").get_queue_attributes(
            QueueUrl=self.outputs()[output], AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    def keys_on_the_notebook(self) -> str:
        """What sshd on the notebook admits."""
        disk = Path(self.variables["LAPTOP"]).parent / "notebooks/my-notebook/disk"
        return (disk / "home/ec2-user/.ssh/authorized_keys").read_text()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """The account of `make aws`, with its notebook running, and a terminal that has read its file in."""
    environment, folder = tmp_path / "aws.sh", tmp_path / "folder"
    folder.mkdir()
    account = processes.start(
        "make aws",
        [str(PYTHON), "local/account.py", "--environment", str(environment)],
        lambda: environment.exists() and "PATH=" in environment.read_text(),
        log=tmp_path / "account.log",
        limit=LIMIT,
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": "local:layers/core"},
    )
    try:
        yield Terminal(environment, folder)
    finally:
        processes.dismiss(account, patience=60)


@pytest.mark.takes_minutes
def test_the_documents_from_nothing_to_the_end_of_the_stack(terminal: Terminal) -> None:
    """But for the parameters that are set again: the same `sam deploy` with another of them has deployed the stack."""
    terminal.deploys_with_sam = False
    assert types_all_by_sam(terminal) == sorted(block for block in BY_SAM if block not in DEPLOYED_AGAIN)


@pytest.mark.takes_minutes
@pytest.mark.nightly(sibling="test_the_documents_from_nothing_to_the_end_of_the_stack")
def test_each_deployment_of_the_documents_is_by_sam(terminal: Terminal) -> None:
    assert types_all_by_sam(terminal) == sorted(BY_SAM)


@pytest.mark.takes_minutes
def test_the_documents_while_a_stack_is_there(terminal: Terminal) -> None:
    has_a_connected_notebook(terminal)
    uses_the_api(terminal)
    operates(terminal)
    assert sorted(terminal.typed) == sorted(DAY_BY_DAY)


def types_all_by_sam(terminal: Terminal) -> list[tuple[str, str]]:
    deploys_and_connects(terminal)
    stops_everything(terminal)
    plans_and_puts_back(terminal)
    uninstalls(terminal)
    return sorted(terminal.typed)


def until(what: str, reached: Callable[[], bool]) -> None:
    processes.wait_until(what, reached, LIMIT)


def deploys_and_connects(terminal: Terminal) -> None:
    """docs/deploy.md, "Try it first", as it stands there."""
    terminal.type("deploy.md", ". .build/aws.sh", at=PROJECT)
    terminal.type("deploy.md", "NGROK_TOKEN")
    secret = terminal.client("secretsmanager").get_secret_value(SecretId=terminal.outputs()["SecretArn"])
    assert secret["SecretString"] == terminal.variables["NGROK_TOKEN"]
    # Its first start may take longer than it takes to ask the doctor, who would know of no such notebook.
    terminal.client("lambda").invoke(FunctionName=terminal.resource("ReconcileNotebook"), Payload=b'{"Records": []}')
    assert "tag            ssh=ngrok" in terminal.type("deploy.md", "Key=ssh-restart,Value=now")
    until("the tunnel's address is known", lambda: terminal.phase() == "connected")
    known = terminal.type("deploy.md", "ssh my-notebook ssh-status").splitlines()
    assert re.search(r"^ssh -p \d+ ec2-user@", known[0])
    assert known == [known[0], known[0]]
    assert "put-secret-value" in terminal.type("deploy.md", "output PutToken\n")


def has_a_connected_notebook(terminal: Terminal) -> None:
    """What the first pages of the documents lead to, without `sam`."""
    deploy(terminal, "notebook-ssh", NgrokDownload=terminal.variables["NGROK_DOWNLOAD"], SyncSeconds="5")
    terminal.client("secretsmanager").put_secret_value(
        SecretId=terminal.outputs()["SecretArn"], SecretString=terminal.variables["NGROK_TOKEN"]
    )
    sagemaker = terminal.client("sagemaker")
    arn = sagemaker.describe_notebook_instance(NotebookInstanceName="my-notebook")["NotebookInstanceArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "ssh", "Value": "ngrok"}, {"Key": "ssh-restart", "Value": "now"}])
    until("the tunnel's address is known", lambda: terminal.phase() == "connected")
    set_up = f". {shlex.quote(str(terminal.environment))}; notebook-ssh setup"
    subprocess.run(["bash", "-euc", set_up], check=True, capture_output=True, timeout=LIMIT)


def uses_the_api(terminal: Terminal) -> None:
    api = "export API=$(output ApiUrl) API_URL=$(output ApiUrl)\nmkdir -p ~/.ssh"
    for document, words in (("README.md", '"$API_URL/notebooks/my-notebook/ssh"'), ("api.md", "get() {")):
        assert terminal.type(document, words, before=api).startswith("ssh -p ")
    get = f"{api}\n{block('api.md', 'get() {').rpartition('get /')[0]}"
    terminal.type("api.md", "get /ssh-config", before=get)
    terminal.type("connect.md", "get() {", before=api)
    assert "Host my-notebook" in (terminal.folder / ".ssh/notebooks").read_text()
    assert "my-notebook ssh-ed25519 " in (terminal.folder / ".ssh/notebook-ssh.known_hosts").read_text()
    (listed,) = json.loads(terminal.type("operations.md", "api /notebooks\n"))
    assert (listed["name"], listed["status"]) == ("my-notebook", "connected")
    assert "ok      tunnel" in terminal.type("operations.md", "api /notebooks/my-notebook/doctor")
    (terminal.folder / "with-block.sh").write_bytes(
        terminal.script().replace(b"stack=notebook-ssh ", b"stack=team-ssh ")
    )
    terminal.type("block.md", "sed ")
    assert (terminal.folder / "without-block.sh").read_bytes() == OWNERS_SCRIPT


def operates(terminal: Terminal) -> None:
    """docs/operations.md, what is done while the stack runs; its first block is at the top of every other."""
    terminal.type("operations.md", "resource() {")
    until("nothing is to be done", lambda: terminal.letters("NotebookDeadLetterQueue") == 0)
    terminal.clear_the_observed_hash()
    message_id = json.loads(terminal.type("operations.md", "send-message"))["MessageId"]
    until("the notebook was reconciled", terminal.was_reconciled)
    until("it is in the log", lambda: terminal.logs("reconcile-notebook", message_id))
    followed = terminal.type("operations.md", "read -r ID", answer=message_id + "\n")
    # The first line is of whatever came last, by now perhaps a report.
    lines = followed.splitlines()[1:]
    assert all(message_id in line for line in lines), followed
    assert any('"message":"reconciled"' in line for line in lines), followed
    terminal.type("operations.md", "tail -20")
    silent = 'said=$(api /notebooks | sed s/connected/stale/)\napi() { printf "%s" "$said"; }'
    assert '"name":"my-notebook"' in terminal.type("operations.md", '/"status":"stale"/p', before=silent)
    terminal.client("lambda").update_event_source_mapping(
        UUID=terminal.resource("ReconcileNotebookSignals"), Enabled=False
    )
    assert "Disabled" in terminal.type("operations.md", "list-event-source-mappings")
    assert "Enabl" in terminal.type("operations.md", "update-event-source-mapping")
    assert '"notebooks": 1' in terminal.type("operations.md", '--function-name "$(resource Sweep)" /dev/stdout\n```')

    message = json.dumps({"request": {"notebook": "my-notebook"}, "reason": "tried before"})
    sqs, outputs = terminal.client("sqs"), terminal.outputs()
    for name in ("NotebookDeadLetterQueue", "RuleDeadLetterQueue", "EventDeadLetterQueue"):
        fifo = {"MessageGroupId": "all", "MessageDeduplicationId": "1"} if "Rule" in name else {}
        sqs.send_message(QueueUrl=outputs[name], MessageBody=message, **fifo)
    terminal.clear_the_observed_hash()
    terminal.type("operations.md", "start-message-move-task")
    assert terminal.letters("NotebookDeadLetterQueue") == terminal.letters("RuleDeadLetterQueue") == 0
    until("the dead letter was answered", terminal.was_reconciled)
    terminal.type("operations.md", "purge-queue")
    until("they are thrown away", lambda: terminal.letters("EventDeadLetterQueue") == 0)

    terminal.type("operations.md", 'bash -c "$(output PutToken)"', answer="another token\n")
    secrets = terminal.client("secretsmanager")
    assert secrets.get_secret_value(SecretId=outputs["SecretArn"])["SecretString"] == "another token"
    tokens = json.dumps({"tokens": [{"roles": "*", "token": terminal.variables["NGROK_TOKEN"]}]})
    (terminal.folder / "tokens.json").write_text(tokens)
    terminal.type("operations.md", "file://tokens.json")
    assert secrets.get_secret_value(SecretId=outputs["SecretArn"])["SecretString"] == tokens

    new_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(terminal.folder / "mario")]
    subprocess.run(new_key, check=True)
    key = (terminal.folder / "mario.pub").read_text().split()[1]
    terminal.type("operations.md", "put-parameter")
    until("the key is on the notebook", lambda: key in terminal.keys_on_the_notebook())
    terminal.type("operations.md", "delete-parameter")
    until("the key is gone", lambda: key not in terminal.keys_on_the_notebook())
    arn = terminal.client("sagemaker").describe_notebook_instance(NotebookInstanceName="my-notebook")
    terminal.type("keys.md", "KEYS_PATH", before=f"NOTEBOOK_ARN={arn['NotebookInstanceArn']}")
    terminal.type("bastion.md", "describe-security-group-rules")
    terminal.type("operations.md", "put-rule")
    assert "connected" in terminal.client("events").describe_rule(Name="ssh-connected")["EventPattern"]


def stops_everything(terminal: Terminal) -> None:
    """The stop button, and back: the notebook closes at its next report, and its script stays as it is."""
    script = terminal.script()
    terminal.set("Paused", "true")
    until("the agent is off", lambda: terminal.phase() == "off")
    assert terminal.script() == script
    terminal.set("Paused", "false")
    until("the agent is on again", lambda: terminal.phase() != "off")
    assert terminal.script() == script


def plans_and_puts_back(terminal: Terminal) -> None:
    """A dry run and the way out of it, and a copy of a script put back by hand."""
    sagemaker, name = terminal.client("sagemaker"), "gpu-setup"
    arn = sagemaker.describe_notebook_instance(NotebookInstanceName="my-notebook")["NotebookInstanceArn"]
    with_block = terminal.script()
    assert with_block != OWNERS_SCRIPT
    terminal.set("DryRun", "true")
    sagemaker.delete_tags(ResourceArn=arn, TagKeys=["ssh"])
    until("it is known", lambda: terminal.record()["spec"]["M"]["mode"]["S"] == "off")
    assert terminal.script() == with_block
    assert terminal.type("operations.md", "api /plan").startswith("Dry run of notebook-ssh: ")
    written = "write the on-start script of gpu-setup"
    until("it is logged", lambda: any(written in line for line in terminal.logged("reconcile-notebook", "dry run")))
    planned = terminal.type("operations.md", "logs '\"dry run\"'")
    assert written in planned, planned
    terminal.set("DryRun", "false")
    terminal.client("lambda").invoke(FunctionName=terminal.resource("Sweep"))
    until("it is done", lambda: terminal.script() == OWNERS_SCRIPT)

    table = terminal.outputs()["TableName"]
    copies = terminal.client("dynamodb").query(
        TableName=table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"backup#{name}"}},
    )["Items"]
    (copy,) = (each for each in copies if base64.b64decode(each["content"]["S"]) == OWNERS_SCRIPT)
    assert copy["sk"]["S"] in terminal.type("operations.md", "read -r COPY", answer=copy["sk"]["S"] + "\n")
    assert (terminal.folder / "on-start.sh").read_bytes() == OWNERS_SCRIPT
    described = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
    lost = [{"Content": base64.b64encode(b"#!/bin/sh\n").decode()}]
    sagemaker.update_notebook_instance_lifecycle_config(
        NotebookInstanceLifecycleConfigName=name, OnStart=lost, OnCreate=described["OnCreate"]
    )
    terminal.type("operations.md", "ON_CREATE=")
    restored = sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
    assert (restored["OnStart"], restored["OnCreate"]) == (described["OnStart"], described["OnCreate"])


def uninstalls(terminal: Terminal) -> None:
    """Tagged once more, so that there is something to give back."""
    terminal.type("README.md", "REGION:ACCOUNT")
    terminal.type("deploy.md", "--tags Key=ssh,Value=ngrok \\")
    until("the block is in", lambda: terminal.script() != OWNERS_SCRIPT)
    table = terminal.outputs()["TableName"]
    terminal.type("operations.md", "sam delete", answer="y\ny\n", at=PROJECT)
    assert terminal.script() == OWNERS_SCRIPT
    assert terminal.client("dynamodb").list_tables()["TableNames"] == [table]
    terminal.type("operations.md", "delete-table", before=f"TABLE={table}")
    assert terminal.client("dynamodb").list_tables()["TableNames"] == []
