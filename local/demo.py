"""`make demo`: the whole system on this machine, step by step.

An embedded AWS with IAM enforced, the real template, functions as real processes, real event rules and queues,
a notebook that really runs its on-start script, real sshd, curl and ssh. The stand-ins are SageMaker and EC2
(moto), ngrok's agent and cloud, and the computers themselves (directories and processes).

`make demo` ends with everything taken away. `make local` tells the first half of it and stays up (playground.py).
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
from emulator.process import ACCOUNT, REGION, Emulator
from emulator.stack import NotDeployedError, build
from environment import OWNERS_SCRIPT, Answer, LocalEnv, Person, obstacle
from progress import NotReachedError, Progress, UnheardError
from supervisor import Supervisor

WHAT_IS_REAL = (
    "AWS, ngrok's cloud and the computers are emulated. The template, the functions, the scripts, the agent, "
    "sshd, ssh and curl are real. Everything listens on 127.0.0.1."
)
NOTEBOOK = "my-notebook"
CONFIGURATION = "team-setup"
LOOK_AROUND = "head -n 1 SageMaker/prepared; ssh-status"
NAMES_THE_NOTEBOOK = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "cloudformation:DescribeStacks", "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": "execute-api:Invoke",
            "Resource": f"arn:aws:execute-api:{REGION}:{ACCOUNT}:*/v1/POST/notebooks/{NOTEBOOK}/certificate",
        },
    ],
}
"""Of a team that sets up the client, and enters this notebook as docs/certificates.md has it."""
AUDITORS = "auditors"
"""The role of those who read the access log."""
NO_PROMPT = ("-o", "BatchMode=yes")
SEES_SESSIONS = os.geteuid() == 0
"""Whether the notebook's root is root here: the agent reads in the journal whose a session is."""


class UnexpectedResultError(Exception):
    """Something answered otherwise than it must; the sentence says what."""


def expect(condition: bool, otherwise: str) -> None:
    """Raise UnexpectedResultError with the sentence `otherwise` unless `condition`."""
    if not condition:
        raise UnexpectedResultError(otherwise)


class Demo:
    """The steps, in the order in which they run. Each leaves the account as the next one needs it."""

    def __init__(self, env: LocalEnv, progress: Progress) -> None:
        self.env, self.progress = env, progress
        self.parameters: dict[str, str] = {}  # that the admin has added since the first deployment

    # ---- an account with the stack -------------------------------------------------------------

    def set_the_stage(self, *keys: str) -> None:
        """AWS, the stack, a user, a bastion. keys: public keys that the bastion admits too."""
        env, progress = self.env, self.progress
        progress.chapter("The admin deploys the stack, once")
        with progress.step("An AWS account opens on 127.0.0.1, IAM enforced"):
            env.start()
        with progress.step("Functions and layers are built, if their sources changed"):
            build()
        with progress.step("template.yaml is deployed, and ngrok's token stored"):
            env.deploy()
        with progress.step("The bastion starts"):
            env.move_in()
            env.start_bastion(*keys)

    # ---- a notebook ----------------------------------------------------------------------------

    def start_a_notebook(self, *keys: str) -> None:
        """A notebook as it is without SSH. keys: public keys that Mario puts there too."""
        env, progress = self.env, self.progress
        progress.chapter("Mario's notebook has a lifecycle script already")
        with progress.step(f"{NOTEBOOK} starts and runs its on-start script"):
            env.create_lifecycle_config(CONFIGURATION, OWNERS_SCRIPT)
            env.create_notebook(NOTEBOOK, CONFIGURATION)
            self._until_state("InService")
        progress.show((env.volume(NOTEBOOK) / "prepared").read_text("utf-8"))
        with progress.step("Mario puts his public key into ~/SageMaker/ssh/authorized_keys"):
            env.leave_key(NOTEBOOK, *keys)

    def tag_it(self) -> None:
        """The one thing that a user does."""
        env, progress = self.env, self.progress
        progress.chapter("Mario tags it: ssh=ngrok")
        with progress.step("The event reaches the stack, which adds its block to the script"):
            env.tag(NOTEBOOK, ssh="ngrok")
            # The record says what is begun before the script is written.
            self._until("the script", lambda: str(env.on_start(CONFIGURATION) != OWNERS_SCRIPT), "True")
            self._until_status("pending-restart")
        now = env.on_start(CONFIGURATION)
        self._show_block(now)
        told = self._told()
        progress.say(f"Its status is {told['status']}: {told['message']} {told['next_step']}")

    def _show_block(self, now: bytes) -> None:
        """What was added to the owner's script, shortened."""
        before, after = OWNERS_SCRIPT.decode().splitlines(), now.decode().splitlines()
        changes = list(difflib.ndiff(before, after))
        lost = [line for line in changes if line.startswith("- ")]
        expect(not lost, f"lines of the owner's script are gone: {lost}")
        added = [line for line in changes if line.startswith("+ ")]
        shown = [*added[:2], f"+ … {len(added) - 3} lines more …", added[-1]]
        rest = [line for line in changes if line.startswith("  ")]
        lines = [rest[0], *shown, *rest[1:4], "  …"]
        self.progress.show("\n".join(lines), cut=True)
        size = len(now) - len(OWNERS_SCRIPT)
        self.progress.say(
            f"The block is {size:,} bytes, after the first line. The script's own {len(OWNERS_SCRIPT)} bytes are unchanged."
        )

    # ---- through ngrok -------------------------------------------------------------------------

    def connect_through_ngrok(self) -> str:
        """Restart, look up, log in. Returns the address."""
        progress = self.progress
        progress.chapter("From the next start on, Mario can log in")
        self._restart()
        with progress.step("The agent on the notebook reports its address and its host keys"):
            self._until_status("connected")
        answer = self._look_up("/ssh")
        progress.say(
            "API_URL is the stack's output ApiUrl. He also saves what it answers at /ssh-config and /known-hosts: so ssh "
            "knows the name, and verifies the host key that the notebook reported."
        )
        self._log_in(LOOK_AROUND)
        return answer.body.strip()

    def restart_changes_the_address(self, before: str) -> None:
        """The address and the host keys are new; what the user types is not."""
        self.progress.chapter("A restart changes the address, not what Mario types")
        self._restart()
        with self.progress.step("The agent reports the new address"):
            self._until_status("connected")
        after = self._look_up("/ssh").body.strip()
        expect(after != before, f"after the restart the address is the same: {after}")
        self._log_in("echo the same notebook, $(head -n 1 SageMaker/prepared)")

    # ---- with the client -----------------------------------------------------------------------

    def connect_with_the_client(self) -> None:
        """The second way: a small program that ssh asks for the address and the host key, at every connection."""
        self.progress.chapter("With the client, there is nothing to look up")
        self._set_up_client("Mario", self.env.person)
        self._log_in_by_client("He logs in", self.env.person, "echo found and verified by the client")

    def admit_a_colleague(self) -> None:
        """A public key that the stack keeps, and a tag that admits it; no file on the notebook is touched."""
        env, progress = self.env, self.progress
        progress.chapter("Ana joins: the admin stores her public key, and Mario tags ssh-users=ana")
        ana = env.make_person("ana", "laptop-of-ana")
        with progress.step("The agent admits her key"):
            env.keep_centrally("ana", ana)
            env.tag(NOTEBOOK, ssh_users="ana")
            self._until("central keys", lambda: str(self._told()["keys"]["central"]), "1")
        self._set_up_client("Ana", ana)
        self._log_in_by_client("She logs in", ana, "echo admitted by the tag")

    def admit_by_identity(self) -> Person:
        """Certificates: the AWS identity is the key. One who is admitted, whom it returns, and one who is not."""
        env, progress = self.env, self.progress
        progress.chapter("The admin turns certificates on: no more keys to hand out")
        role = env.make_role("data-science", "ec2.amazonaws.com", NAMES_THE_NOTEBOOK)
        with progress.step("Certificates=true, LoginPrincipals=…:role/data-science"):
            auditors = f"arn:aws:iam::{ACCOUNT}:role/{AUDITORS}"
            self._add(Certificates="true", LoginPrincipals=role, AccessDays="30", AuditPrincipals=auditors)
            self._until("certificates", lambda: str((self._told()["keys"] or {}).get("certificates")), "True")
        eva = env.make_visitor("laptop-of-eva", env.session_of(role, "eva"))
        self._set_up_client("Eva, with that role and no SSH key,", eva)
        self._log_in_by_client("She logs in", eva, "echo logged in without a key")
        log = (env.emulator.notebook_home(NOTEBOOK) / "disk/var/log/sshd.log").read_text("utf-8", "replace")
        named = re.findall(r" ID (arn:\S+)", log)
        expect(bool(named), "sshd's log does not name who logged in")
        progress.say(f"sshd logs who it was: {named[-1]}")
        tom = env.make_visitor("laptop-of-tom", env.make_session("finance", NAMES_THE_NOTEBOOK))
        with progress.step("Tom has another role, and the same policy"):
            env.open_terminal(tom).run("notebook-ssh", "setup")
            refused = tom.terminal.run("ssh", *NO_PROMPT, NOTEBOOK, "true")
        progress.command(f"ssh {NOTEBOOK} true")
        progress.show(refused.stderr)
        expect("may not log in" in refused.stderr, f"ssh does not say that Tom may not log in: {refused.stderr}")
        expect(refused.returncode == 255, f"ssh ended with {refused.returncode} for Tom")
        return eva

    def end_a_session(self, eva: Person) -> None:
        """The tag goes, and with it a session that is open. The access log has who was there."""
        env, progress = self.env, self.progress
        progress.chapter("Mario switches SSH off while Eva is on the notebook")
        with progress.step("Eva's session is open"):
            session = eva.terminal.start("ssh", *NO_PROMPT, NOTEBOOK, "echo working; sleep 600")
            first = session.stdout.readline() if session.stdout else ""
            expect(first == "working\n", f"Eva's session did not begin: {first}")
        with progress.step("ssh=off: it ends"):
            env.tag(NOTEBOOK, ssh="off")
            progress.wait("her session", lambda: str(session.poll()), lambda status: status != "None")
        progress.show(session.communicate()[1].strip())
        with progress.step("He tags it again"):
            env.tag(NOTEBOOK, ssh="ngrok")
            self._until_status("connected")
        auditor = env.make_visitor("laptop-of-the-auditor", env.make_session(AUDITORS, NAMES_THE_NOTEBOOK))
        with progress.step("Who was there? For AuditPrincipals alone, by AccessDays=30"):
            env.open_terminal(auditor).run("notebook-ssh", "setup")
            if SEES_SESSIONS:
                self._until("her session", lambda: str(self._ended_sessions(auditor) > 0), "True")
            log = auditor.terminal.run("env", f"COLUMNS={progress.room}", "notebook-ssh", "who", NOTEBOOK)
        progress.command(f"notebook-ssh who {NOTEBOOK}")
        self._show(log.stdout)
        expect("data-science/eva" in log.stdout, f"the access log does not name Eva: {log.stdout}{log.stderr}")
        if not SEES_SESSIONS:
            progress.say("The sessions are missing here: whose they are, only root reads in the journal.")

    def _ended_sessions(self, auditor: Person) -> int:
        answer = self.env.curl(f"/notebooks/{NOTEBOOK}/access", auditor.keys)
        entries = json.loads(answer.body)["entries"] if answer.status == 200 else []
        return sum(1 for entry in entries if entry["kind"] == "session" and entry["end"])

    def give_a_wrong_token(self) -> None:
        """ngrok refuses the token: the user reads why, and a valid token is enough to recover."""
        env, progress = self.env, self.progress
        progress.chapter("The admin stores a token that ngrok refuses")
        with progress.step("The agent picks it up, and the tunnel closes"):
            env.store_token("not-a-token-of-ours")
            self._until_status("error")
            refused = env.person.terminal.run("ssh", *NO_PROMPT, NOTEBOOK, "true")
        progress.command(f"ssh {NOTEBOOK} true")
        said = refused.stderr.partition("\n")[0]  # ssh's own lines follow
        progress.show(said)
        expect("ngrok refuses the token" in said, f"ssh does not say that ngrok refuses the token: {refused.stderr}")
        with progress.step("The admin stores a valid one, and the tunnel opens again"):
            env.store_token(env.cloud.token)
            self._until_status("connected")
        self._log_in_by_client("Mario logs in", env.person, "echo back again, and nothing was done on the notebook")

    # ---- through a bastion ---------------------------------------------------------------------

    def connect_through_the_bastion(self) -> None:
        """Another word in the tag: no restart, and a rule in a security group."""
        env, progress = self.env, self.progress
        progress.chapter("Mario changes the tag to ssh=bastion, without a restart")
        expect(not env.ingress_rules(), "a rule admits the bastion before the tag asks for it")
        with progress.step("A security group rule admits the bastion, and the tunnel closes"):
            env.tag(NOTEBOOK, ssh="bastion")
            self._until("the rules", lambda: str(len(env.ingress_rules())), "1")
            self._until("the command", lambda: self.ssh_command()[:7], "ssh -J ")
        self._show_rules("the bastion's")
        self._look_up("/ssh")
        progress.say(
            "The admin gave the bastion's host key to the stack (BastionHostKeys), so what Mario saved from /known-hosts "
            "verifies the bastion too: there is no first connection to confirm."
        )
        self._log_in("echo through the bastion, from ${SSH_CONNECTION%% *}; ssh-status")
        self._log_in_by_client("With the client too", env.person, "echo both verified by the client")

    # ---- through an endpoint -------------------------------------------------------------------

    def lose_a_path(self) -> None:
        """Two ways at once: the second is there when the first goes away."""
        env, progress = self.env, self.progress
        progress.chapter('Two ways, in order: ssh="ngrok eice"')
        with progress.step("The admin lets the stack make an endpoint of AWS, in a subnet"):
            self._add(EndpointSubnet=env.network.subnet, EndpointVpc=env.network.vpc)
            env.attach_policy("mario", env.stack.outputs["UserPolicyArn"])
        with progress.step("Mario tags it: the tunnel opens, and the rule is the endpoint's"):
            env.tag(NOTEBOOK, ssh="ngrok eice")
            self._until("the ways", self._paths, "ngrok ready, eice ready")
            self._until("the rules", lambda: str(len(env.ingress_rules())), "1")
        self._show_rules("the endpoint's")
        with progress.step("He logs in by the first, and ngrok's cloud goes away"):
            session = env.person.terminal.start("ssh", *NO_PROMPT, NOTEBOOK, "echo by ngrok; sleep 600")
            first = session.stdout.readline() if session.stdout else ""
            expect(first == "by ngrok\n", f"his session did not begin: {first}")
            env.cloud.go_away()
            progress.wait("his session", lambda: str(session.poll()), lambda status: status != "None")
        session.communicate()
        with progress.step("He types the same again"):
            again = env.person.terminal.run("ssh", *NO_PROMPT, NOTEBOOK, "echo here again")
        progress.command(f"ssh {NOTEBOOK} 'echo here again'")
        self._show(again.stderr + again.stdout)
        expect(again.stdout == "here again\n", f"ssh ended with {again.returncode}: {again.stderr}")
        expect("reached by eice" in again.stderr, f"ssh does not say which way it took: {again.stderr}")

    def connect_through_an_endpoint(self) -> None:
        """AWS's own way in alone: no third party, no bastion, and port 443."""
        env, progress = self.env, self.progress
        progress.chapter("Neither a third party nor a bastion: ssh=eice")
        with progress.step("Mario changes the tag"):
            env.tag(NOTEBOOK, ssh="eice")
            self._until("the ways", self._paths, "eice ready")
        self._look_up("/ssh")
        progress.say(
            "So it goes with the AWS CLI alone. The client opens the tunnel itself: on port 443, signed with Mario's AWS "
            "keys, which IAM allows or not, and CloudTrail records."
        )
        self._log_in_by_client("He logs in", env.person, "echo through the endpoint, from ${SSH_CONNECTION%% *}")
        with progress.step("The notebook stops, and the rule is revoked"):
            env.sagemaker.stop_notebook_instance(NotebookInstanceName=NOTEBOOK)
            self._until_state("Stopped")
            self._until("the rules", lambda: str(len(env.ingress_rules())), "0")

    def _paths(self) -> str:
        return ", ".join(f"{path['mode']} {path['state']}" for path in self._told()["paths"])

    def _show_rules(self, owner: str) -> None:
        for rule in self.env.ingress_rules():
            source = rule["ReferencedGroupInfo"]["GroupId"]
            self.progress.show(f"{rule['SecurityGroupRuleId']}  tcp/{rule['FromPort']} from {source}, {owner}")

    def _add(self, **parameters: str) -> None:
        """Deploy the stack with more parameters than before, as the admin."""
        self.parameters |= parameters
        self.env.update(None, **self.parameters)

    # ---- the way back --------------------------------------------------------------------------

    def untag_it(self) -> None:
        """Remove the tag: everything is as it was."""
        env, progress = self.env, self.progress
        progress.chapter("Mario removes the tag")
        with progress.step("The lifecycle script is as it was"):
            env.untag(NOTEBOOK, "ssh")
            self._until("bytes", lambda: str(len(env.on_start(CONFIGURATION))), str(len(OWNERS_SCRIPT)))
        expect(env.on_start(CONFIGURATION) == OWNERS_SCRIPT, "the script has the owner's length but other bytes")
        progress.say(f"Compared byte for byte: {len(OWNERS_SCRIPT)} of {len(OWNERS_SCRIPT)} bytes are the same.")

    # ---- what scenes share ---------------------------------------------------------------------

    def _restart(self) -> None:
        with self.progress.step(f"{NOTEBOOK} is stopped and started"):
            self.env.sagemaker.stop_notebook_instance(NotebookInstanceName=NOTEBOOK)
            self._until_state("Stopped")
            self._until_status("stopped")  # until the event has come, what is known is of the run before
            self.env.sagemaker.start_notebook_instance(NotebookInstanceName=NOTEBOOK)
            self._until_state("InService")

    def _until_state(self, state: str) -> None:
        seen = self.progress.wait(
            "SageMaker says", lambda: self.env.state(NOTEBOOK), lambda seen: seen in (state, "Failed")
        )
        expect(seen == state, f"{NOTEBOOK} is {seen}: {self._failure()}")

    def _failure(self) -> str:
        told = self.env.sagemaker.describe_notebook_instance(NotebookInstanceName=NOTEBOOK)
        return str(told.get("FailureReason", "SageMaker does not say why"))

    def _until_status(self, status: str) -> None:
        self._until("the stack says", lambda: self.env.status(NOTEBOOK), status)

    def _until(self, what: str, look: Callable[[], str], wanted: str) -> None:
        self.progress.wait(what, look, lambda seen: seen == wanted)

    def _told(self) -> dict[str, Any]:
        return dict(json.loads(self.env.curl(f"/notebooks/{NOTEBOOK}").body))

    def ssh_command(self) -> str:
        """The line that connects, or what the API answers instead."""
        return self.env.curl(f"/notebooks/{NOTEBOOK}/ssh").body.strip()

    def _look_up(self, route: str) -> Answer:
        with self.progress.step("Mario looks it up, with curl and his AWS keys"):
            answer = self.env.curl(f"/notebooks/{NOTEBOOK}{route}")
        self.progress.command(answer.command)
        self._show(answer.body)
        expect(answer.status == 200, f"the lookup answered {answer.status}: {answer.body}")
        return answer

    def _log_in(self, command: str) -> None:
        with self.progress.step("He logs in"):
            self.env.save_ssh_config(NOTEBOOK)
            session = self.env.ssh(NOTEBOOK, command)
        self.progress.command(f"ssh {NOTEBOOK} {shlex.quote(command)}")
        self._show(session.stdout)
        expect(session.returncode == 0, f"ssh ended with {session.returncode}: {session.stderr.strip()}")

    def _show(self, printed: str) -> None:
        """What a program printed. The line that connects is for copying."""
        for line in printed.splitlines():
            self.progress.show(line, whole=line.startswith("ssh "))

    def _set_up_client(self, name: str, person: Person) -> None:
        with self.progress.step(f"{name} sets up the client, once"):
            done = self.env.open_terminal(person).run("notebook-ssh", "setup")
        self.progress.command("notebook-ssh setup")
        self.progress.show(done.stdout + done.stderr)
        expect(done.returncode == 0, f"notebook-ssh setup ended with {done.returncode}: {done.stderr.strip()}")

    def _log_in_by_client(self, what: str, person: Person, command: str) -> None:
        with self.progress.step(what):
            session = person.terminal.run("ssh", *NO_PROMPT, NOTEBOOK, command)
        self.progress.command(f"ssh {NOTEBOOK} {shlex.quote(command)}")
        self._show(session.stdout)
        expect(session.returncode == 0, f"ssh ended with {session.returncode}: {session.stderr.strip()}")


def tell_everything(demo: Demo) -> None:
    """Every scene."""
    demo.set_the_stage()
    demo.start_a_notebook()
    demo.tag_it()
    address = demo.connect_through_ngrok()
    demo.restart_changes_the_address(address)
    demo.connect_with_the_client()
    demo.admit_a_colleague()
    eva = demo.admit_by_identity()
    demo.end_a_session(eva)
    demo.give_a_wrong_token()
    demo.connect_through_the_bastion()
    demo.lose_a_path()
    demo.connect_through_an_endpoint()
    demo.untag_it()


def perform(folder: Path) -> int:
    """Run the whole demo, with everything of it below `folder`; the exit status."""
    progress, env = Progress(), LocalEnv(Emulator(home=folder))
    try:
        progress.title("notebook-ssh on this machine")
        progress.say(WHAT_IS_REAL)
        tell_everything(Demo(env, progress))
    except Exception as problem:
        return fail(env, progress, problem)
    env.close()
    progress.end(
        f"Done in {time.monotonic() - progress.began:.0f} s. Nothing is left running, and nothing on the disk."
    )
    return 0


def fail(env: LocalEnv, progress: Progress, problem: Exception) -> int:
    """Report where the run stopped, and keep its logs; the exit status."""
    if isinstance(problem, UnheardError):
        env.close()
        if not problem.left:  # otherwise the reader has seen enough, as in `make demo | head`
            print(f"It stopped here: {problem}", file=sys.stderr)
        return 0 if problem.left else 1
    known = isinstance(problem, UnexpectedResultError | NotReachedError | NotDeployedError | processes.DidNotStartError)
    sentence = str(problem) if known else f"{type(problem).__name__}: {problem}"
    logs = env.close(keep_logs=True)
    short = textwrap.shorten(sentence, 600, placeholder=" …").rstrip(".")
    progress.failed(f"It stopped here: {short}. " + (f"The logs are in {logs}" if logs else "No log could be kept."))
    return 1


def main() -> int:
    """The command line described at the top of this file."""
    processes.open_closed_streams()
    hindered = obstacle()
    if hindered:
        print(hindered)
        return 1
    with Supervisor() as supervisor:
        status = supervisor.run(perform)
    return supervisor.say_that_it_ended(130) if status is None else status


if __name__ == "__main__":
    sys.exit(main())
