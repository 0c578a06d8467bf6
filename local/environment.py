"""Everything that the local run and its tests play with: an account with the stack in it, people and a notebook.

The people act as people do: with the ordinary AWS API, with curl and with ssh. Nothing here looks into the stack.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import pwd
import random
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import logins
import processes
from emulator.process import ACCOUNT, PYTHON, REGION, Emulator
from emulator.stack import Stack, deploy
from notebook.ngrok_cloud import NgrokCloud
from patience import LIMIT_S
from sshd import start_sshd
from terminal import Terminal, virtual_environment

STACK = "notebook-ssh"
BASTION_USER = "jump"
CURLED = "config-by-curl"
"""What ssh reads for those who look up with curl, in the folder of ssh's files."""

SYNC_SECONDS = 2
NEEDS = 250
"""Megabytes in the temporary folder: `make demo` takes 150."""
LONGEST_SESSION = 12 * 3600
"""Seconds that a role's session may last (STS API Reference, AssumeRole)."""

OWNERS_SCRIPT = b"""#!/bin/bash
set -e
# The data science team's own set-up. It ends with `exit`: whatever were added below it would never run.
cd "$NOTEBOOK_SSH_ROOT/home/ec2-user/SageMaker"
echo "prepared on $(date -u +%F) by the owner's script" > prepared
exit 0
"""

USER_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": [
                "sagemaker:AddTags",
                "sagemaker:DeleteTags",
                "sagemaker:ListTags",
                "sagemaker:DescribeNotebookInstance",
                "sagemaker:StartNotebookInstance",
                "sagemaker:StopNotebookInstance",
            ],
            "Resource": f"arn:aws:sagemaker:*:{ACCOUNT}:notebook-instance/*",
        },
        {
            "Effect": "Allow",
            "Action": "cloudformation:DescribeStacks",
            "Resource": f"arn:aws:cloudformation:*:{ACCOUNT}:stack/{STACK}/*",
        },
    ],
}
"""What a notebook's user may do, as docs/deploy.md has it. The API's own policy lets the whole account look up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl got. command: the command line as a person would type it."""

    command: str
    status: int
    body: str


@dataclass(frozen=True, slots=True)
class Network:
    """A VPC in the loopback's 127.0.0.0/8, and the security groups of the bastion and of the notebook."""

    vpc: str
    subnet: str
    bastion_group: str
    notebook_group: str


@dataclass(slots=True)
class Person:
    """A user with a laptop: `home` holds ssh's files, `keys` are AWS credentials as environment variables.

    terminal: where the client is installed (`LocalEnv.open_terminal`).
    """

    home: Path
    keys: dict[str, str]
    terminal: Terminal = field(init=False)

    @property
    def identity(self) -> Path:
        return self.home / ".ssh" / "id_ed25519"

    @property
    def public_key(self) -> str:
        return self.identity.with_suffix(".pub").read_text().strip()


@dataclass(slots=True)
class LocalEnv:
    """Made by `LocalEnv()`, then `start`, `deploy` and `move_in` in this order; `close` ends all of it.

    sync_seconds: how often a notebook's agent reports.
    """

    emulator: Emulator = field(default_factory=Emulator)
    sync_seconds: int = SYNC_SECONDS
    cloud: NgrokCloud = field(init=False)
    stack: Stack = field(init=False)
    network: Network = field(init=False)
    person: Person = field(init=False)
    bastion: subprocess.Popen[bytes] | None = None
    bastion_port: int = field(default_factory=processes.free_port)

    # ---- setting up ----------------------------------------------------------------------------

    def start(self) -> Self:
        """The embedded AWS, and ngrok's cloud."""
        self.emulator.start()
        cloud = self.emulator.home / "ngrok"
        cloud.mkdir()
        (cloud / "answers.json").symlink_to(self.emulator.answers_file)
        self.cloud = NgrokCloud(cloud, str(PYTHON))
        return self

    def deploy(self, archives: Mapping[str, Path] | None = None) -> Stack:
        """What an admin does: a network with a bastion is there already, then the stack, then ngrok's token."""
        self.make_network()
        self.update(archives)
        self.store_token(self.cloud.token)
        return self.stack

    def update(self, archives: Mapping[str, Path] | None = None, **parameters: str) -> None:
        """Deploy another version over the one that is there, or the first one. archives: its parts (`emulator.stack.build`)."""
        self.stack = deploy(
            self.emulator,
            STACK,
            archives,
            SyncSeconds=str(self.sync_seconds),
            SweepMinutes="1",
            NgrokDownload=self.cloud.download,
            NgrokSha256=self.cloud.sha256,
            BastionHost=f"127.0.0.1:{self.bastion_port}",
            BastionUser=BASTION_USER,
            BastionSecurityGroup=self.network.bastion_group,
            BastionVpc=self.network.vpc,
            BastionHostKeys=self.bastion_host_key,
            **parameters,
        )

    def store_token(self, token: str) -> None:
        """Put ngrok's token into the stack's secret, as the admin."""
        secrets = self.emulator.client("secretsmanager")
        secrets.put_secret_value(SecretId=self.stack.outputs["SecretArn"], SecretString=token)

    def move_in(self) -> None:
        """A notebook's role without any policy, and its user."""
        self.make_role("notebook", "sagemaker.amazonaws.com")
        self.person = self.make_person("mario", "laptop")

    def make_person(self, name: str, folder: str) -> Person:
        """A user with a laptop, in `folder`, and an SSH key."""
        person = Person(self.emulator.home / folder, self.make_user(name, USER_POLICY))
        (person.home / ".ssh").mkdir(parents=True, mode=0o700)
        _make_key(person.identity, name)
        return person

    def make_visitor(self, folder: str, keys: dict[str, str]) -> Person:
        """Someone with a laptop, in `folder`, and AWS credentials, who has no SSH key."""
        person = Person(self.emulator.home / folder, keys)
        person.home.mkdir()
        return person

    def keep_centrally(self, name: str, person: Person) -> None:
        """Keep the public key of `person` in the stack under `name`, as the admin."""
        path = f"{self.stack.outputs['KeysPath']}/{name}"
        self.emulator.client("ssm").put_parameter(Name=path, Value=person.public_key, Type="String")

    def close(self, *, keep_logs: bool = False) -> Path | None:
        """End everything. The logs' new place, when they are kept."""
        if self.bastion is not None:
            processes.dismiss(self.bastion, patience=5)
        if hasattr(self, "cloud"):
            self.cloud.close()
        return self.emulator.close(keep_logs=keep_logs)

    @property
    def bastion_host_key(self) -> str:
        """The bastion's public key, without a comment."""
        return " ".join((self.emulator.home / "bastion/host_key.pub").read_text().split()[:2])

    def make_host_key(self) -> None:
        """Make the bastion's host key, which the stack is to know before the bastion runs."""
        (self.emulator.home / "bastion").mkdir()
        _make_key(self.emulator.home / "bastion/host_key", "")

    def make_network(self) -> None:
        """A VPC with the security groups of a bastion and of notebooks; the bastion has its host key."""
        self.make_host_key()
        ec2 = self.emulator.client("ec2")
        # A network of its own for each run, so that runs side by side do not meet.
        second = random.SystemRandom().randrange(16, 250)
        vpc = ec2.create_vpc(CidrBlock=f"127.{second}.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=f"127.{second}.1.0/24")["Subnet"]["SubnetId"]
        groups = [
            ec2.create_security_group(GroupName=name, Description=name, VpcId=vpc)["GroupId"]
            for name in ("bastion", "notebook")
        ]
        self.network = Network(vpc, subnet, *groups)

    def make_role(self, name: str, service: str, policy: dict[str, Any] | None = None) -> str:
        """A role that `service` may assume; its ARN."""
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}],
        }
        iam = self.emulator.client("iam")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]
        if policy:
            iam.put_role_policy(RoleName=name, PolicyName="given", PolicyDocument=json.dumps(policy))
        return str(role["Arn"])

    def make_user(self, name: str, policy: dict[str, Any] | None = None) -> dict[str, str]:
        """A user's access keys, as environment variables."""
        iam = self.emulator.client("iam")
        iam.create_user(UserName=name)
        if policy:
            iam.put_user_policy(UserName=name, PolicyName="given", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    def make_session(self, name: str, policy: dict[str, Any]) -> dict[str, str]:
        """Keys of a session of a new role, as people have after they signed in; as environment variables."""
        return self.session_of(self.make_role(name, "ec2.amazonaws.com", policy), name)

    def session_of(self, role: str, name: str) -> dict[str, str]:
        """Keys of a session of the role with the ARN `role`."""
        sts = self.emulator.client("sts")
        keys = sts.assume_role(RoleArn=role, RoleSessionName=name, DurationSeconds=LONGEST_SESSION)["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
        }

    # ---- what people do with the AWS API -------------------------------------------------------

    @property
    def sagemaker(self) -> Any:
        """SageMaker as the admin calls it."""
        return self.emulator.client("sagemaker")

    def create_lifecycle_config(self, name: str, script: bytes, on_create: bytes | None = None) -> None:
        """The owner's lifecycle configuration."""
        hooks = {"OnStart": script, "OnCreate": on_create}
        self.sagemaker.create_notebook_instance_lifecycle_config(
            NotebookInstanceLifecycleConfigName=name,
            **{hook: [{"Content": base64.b64encode(text).decode()}] for hook, text in hooks.items() if text},
        )

    def on_start(self, name: str) -> bytes:
        """The on-start script of the lifecycle configuration `name`, as it is now."""
        answer = self.sagemaker.describe_notebook_instance_lifecycle_config(NotebookInstanceLifecycleConfigName=name)
        return base64.b64decode(answer["OnStart"][0]["Content"])

    def create_notebook(self, name: str, configuration: str | None = None, role: str = "notebook") -> str:
        """A notebook in the VPC; its ARN. It is Pending."""
        given = {"LifecycleConfigName": configuration} if configuration else {}
        answer = self.sagemaker.create_notebook_instance(
            NotebookInstanceName=name,
            InstanceType="ml.t3.medium",
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}",
            SubnetId=self.network.subnet,
            SecurityGroupIds=[self.network.notebook_group],
            **given,
        )
        return str(answer["NotebookInstanceArn"])

    def stop_notebooks(self) -> None:
        """Stop every notebook that is running, as the admin."""
        for page in self.sagemaker.get_paginator("list_notebook_instances").paginate(StatusEquals="InService"):
            for notebook in page["NotebookInstances"]:
                self.sagemaker.stop_notebook_instance(NotebookInstanceName=notebook["NotebookInstanceName"])

    def tag(self, name: str, **tags: str) -> None:
        """What the user does. `_` in a key stands for `-`."""
        client = self.emulator.client("sagemaker", self.person.keys)
        listed = [{"Key": key.replace("_", "-"), "Value": value} for key, value in tags.items()]
        client.add_tags(ResourceArn=self.arn(name), Tags=listed)

    def untag(self, name: str, *keys: str) -> None:
        """Take tags away, as the user."""
        self.emulator.client("sagemaker", self.person.keys).delete_tags(ResourceArn=self.arn(name), TagKeys=list(keys))

    def tags(self, name: str) -> dict[str, str]:
        """All tags of a notebook."""
        return {tag["Key"]: tag["Value"] for tag in self.sagemaker.list_tags(ResourceArn=self.arn(name))["Tags"]}

    def arn(self, name: str) -> str:
        """A notebook's ARN, which is in lower case."""
        return f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:notebook-instance/{name.lower()}"

    def state(self, name: str) -> str:
        """SageMaker's word for the notebook."""
        return str(self.sagemaker.describe_notebook_instance(NotebookInstanceName=name)["NotebookInstanceStatus"])

    def is_in(self, name: str, state: str) -> bool:
        """Whether SageMaker reports `state` for the notebook."""
        return self.state(name) == state

    def attach_policy(self, name: str, policy: str) -> None:
        """Let the user `name` do what the managed policy with the ARN `policy` allows, as the admin."""
        self.emulator.client("iam").attach_user_policy(UserName=name, PolicyArn=policy)

    def ingress_rules(self) -> list[dict[str, Any]]:
        """The ingress rules of the notebook's security group."""
        filters = [{"Name": "group-id", "Values": [self.network.notebook_group]}]
        rules = self.emulator.client("ec2").describe_security_group_rules(Filters=filters)["SecurityGroupRules"]
        return [rule for rule in rules if not rule["IsEgress"]]

    # ---- clocks --------------------------------------------------------------------------------

    def set_functions_clocks(self, ahead: int) -> None:
        """Put the functions' clocks forward by `ahead` seconds; their processes start again."""
        functions = self.emulator.client("lambda")
        for function in functions.list_functions()["Functions"]:
            variables = function["Environment"]["Variables"] | {"CLOCK_AHEAD": str(ahead)}
            functions.update_function_configuration(
                FunctionName=function["FunctionName"], Environment={"Variables": variables}
            )

    def set_clock(self, name: str, ahead: int) -> None:
        """Put the clock by which the agent of a notebook goes forward by `ahead` seconds, from its next start on."""
        python = virtual_environment(self.emulator.notebook_home(name) / "python")
        (packages,) = python.parent.parent.glob("lib/python3*/site-packages")
        (packages / "clock.py").write_text(f"import time\n\ntime.time = lambda now=time.time: now() + {ahead}\n")
        (packages / "clock.pth").write_text("import clock\n")  # run whenever this Python starts (site)

    # ---- what people do on a notebook ----------------------------------------------------------

    def volume(self, name: str) -> Path:
        """What Jupyter shows first: the notebook's /home/ec2-user/SageMaker."""
        return self.emulator.notebook_home(name) / "disk/home/ec2-user/SageMaker"

    def leave_key(self, name: str, *more: str) -> None:
        """Put the person's public key, and `more`, where the notebook's owner puts keys, in Jupyter."""
        keys = self.volume(name) / "ssh/authorized_keys"
        keys.parent.mkdir(exist_ok=True)
        with open(keys, "a") as file:
            file.writelines(f"{line}\n" for line in (self.person.public_key, *more))

    # ---- what people do on their laptop --------------------------------------------------------

    def curl(self, path: str, keys: dict[str, str] | None = None, method: str = "GET", body: str = "") -> Answer:
        """Ask the API with real curl, signed by the person's keys or by `keys`, as README.md says. body: JSON to send."""
        keys = keys or self.person.keys
        command = [
            "curl --silent --show-error",
            *([f"--request {method}"] if method != "GET" else []),
            '--aws-sigv4 "aws:amz:${AWS_REGION}:execute-api"',
            '--user "${AWS_ACCESS_KEY_ID}:${AWS_SECRET_ACCESS_KEY}"',
            *(['-H "x-amz-security-token: $AWS_SESSION_TOKEN"'] if "AWS_SESSION_TOKEN" in keys else []),
            *([f"--json {shlex.quote(body)}"] if body else []),
            f'"$API_URL{path}"' if shlex.quote(path) == path else f'"$API_URL"{shlex.quote(path)}',
        ]
        place = {"API_URL": self.stack.api, "AWS_REGION": REGION}
        typed = " ".join(command)
        done = subprocess.run(
            ["sh", "-c", f"{typed} --write-out '\\n%{{http_code}}'"],
            env={"PATH": os.environ["PATH"], "HOME": str(self.person.home), **place, **keys},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return Answer(typed, int(status or 0), body or done.stderr.strip())

    def status(self, name: str) -> str:
        """The notebook's status as the API tells it, or the code of the error.

        It is asked for again and again, so not with curl: two processes would take longer than the answer.
        """
        asked = AWSRequest("GET", f"{self.stack.api}/notebooks/{quote(name)}")
        keys = self.person.keys
        credentials = Credentials(
            keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys.get("AWS_SESSION_TOKEN")
        )
        SigV4Auth(credentials, "execute-api", REGION).add_auth(asked)
        place = urlsplit(str(asked.url))
        connection = http.client.HTTPConnection(place.netloc, timeout=LIMIT_S)
        try:
            connection.request("GET", place.path, headers=dict(asked.headers.items()))
            answer = connection.getresponse()
            told = json.loads(answer.read())
        except OSError:
            return "HTTP 0"  # as curl says it
        except ValueError:
            return f"HTTP {answer.status}"
        finally:
            connection.close()
        return str(told.get("status") or told.get("error"))

    def save_ssh_config(self, name: str) -> Path:
        """Save what the API answers for `name`, as its first line says. The file for `ssh -F`.

        Two things are added to the answer: where this user may not listen on port 22 the private address has another;
        and the person's own key and known hosts are not in the system's idea of a home, which is where ssh looks for `~`.
        """
        folder = self.person.home / ".ssh"
        known_hosts = f"~/.ssh/{STACK}.known_hosts"
        (folder / f"{STACK}.known_hosts").write_text(self.curl(f"/notebooks/{name}/known-hosts").body, "utf-8")
        told = self.curl(f"/notebooks/{name}/ssh-config").body
        address = re.search(r"HostName (\S+)", told)
        elsewhere = self.emulator.private_ports / (address[1] if address else "")
        first = [f"Host {name}", elsewhere.read_text().splitlines()[1]] if elsewhere.is_file() else []
        last = [
            "Host *",
            f'  IdentityFile "{self.person.identity}"',
            "  IdentitiesOnly yes",
            f'  UserKnownHostsFile "{folder}/known_hosts"',
            "  StrictHostKeyChecking yes",
        ]
        lines = [*first, "", told.replace(known_hosts, f'"{folder}/{STACK}.known_hosts"'), *last, ""]
        config = folder / CURLED
        config.write_text("\n".join(lines), "utf-8")
        config.chmod(0o600)
        return config

    def ssh(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Real ssh, with the configuration saved before and the host key checked."""
        return subprocess.run(
            # By its relative name, because ssh repeats it without quotes when it starts itself for ProxyJump.
            ["ssh", "-F", CURLED, "-o", "BatchMode=yes", name, command],
            cwd=self.person.home / ".ssh",
            env={"PATH": os.environ["PATH"], "HOME": str(self.person.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )

    def open_terminal(self, person: Person, *identities: Path) -> Terminal:
        """A terminal of the person, with the client installed. identities: SSH keys to offer before the person's own."""
        # By its name, since the API may be yet to be deployed.
        api = f"{self.emulator.endpoint}/_aws/execute-api/{STACK}/v1"
        made = Terminal(
            person.home,
            self.emulator.endpoint,
            api,
            person.keys,
            self.emulator.private_ports,
            self.emulator.authorities,
        )
        own = [person.identity] if person.identity.exists() else []
        person.terminal = made.set_up([*identities, *own])
        return made

    # ---- the bastion ---------------------------------------------------------------------------

    def start_bastion(self, *keys: str) -> None:
        """A real sshd that admits the person, and `keys`, and carries connections on: all that a bastion is."""
        home = self.emulator.home / "bastion"
        (home / "authorized_keys").write_text("".join(f"{line}\n" for line in (self.person.public_key, *keys)))
        lines = [
            f"Port {self.bastion_port}",
            "ListenAddress 127.0.0.1",
            f'HostKey "{home}/host_key"',
            f"AllowUsers {BASTION_USER}",
            f'AuthorizedKeysFile "{home}/authorized_keys"',
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
        ]
        (home / "sshd_config").write_text("\n".join(lines) + "\n")
        user = logins.as_user(BASTION_USER, home, home / "users")
        config, log = home / "sshd_config", home / "sshd.log"
        self.bastion = start_sshd("the bastion's sshd", config, log, self.bastion_port, env=user)


def _make_key(path: Path, comment: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)], check=True)


def obstacle() -> str | None:
    """What keeps the local run from running here, and what to do about it; None when nothing does."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
    missing = [name for name in ("sshd", "ssh", "ssh-keygen", "curl", "bash") if not shutil.which(name, path=path)]
    if logins.is_missing():
        missing.append(logins.LIBRARY)
    if missing:
        packages = "apt install openssh-server openssh-client curl libnss-wrapper"
        return f"install {', '.join(missing)} first (Debian, Ubuntu: {packages})"
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return f"user id {os.getuid()} has no entry in /etc/passwd, which ssh needs; run this as a user that has"
    return _obstacle_in_temporary_folder()


def _obstacle_in_temporary_folder() -> str | None:
    """The same of the folder that holds a run's files. Programs are among them, as on a notebook's disk."""
    elsewhere = "name another folder with TMPDIR=..."
    try:
        with tempfile.TemporaryDirectory(prefix="notebook-ssh-") as folder:
            program = Path(folder) / "program"
            program.write_text("#!/bin/sh\n")
            program.chmod(0o700)
            free = shutil.disk_usage(folder).free // 1_000_000
            subprocess.run([str(program)], check=True)
    except PermissionError:
        return f"no program may be run in {tempfile.gettempdir()}, as where it is mounted noexec; {elsewhere}"
    except OSError as error:
        return f"no file can be written into the temporary folder ({error.strerror}); {elsewhere}"
    if free < NEEDS:
        return f"{tempfile.gettempdir()} has {free} MB left, and a run needs {NEEDS}; make room, or {elsewhere}"
    return None
