"""`make demo`: the whole system on this machine, step by step.

An embedded AWS with IAM enforced, the real template, functions as real processes, real event rules and queues,
a notebook that really runs its on-start script, real sshd, curl and ssh. The stand-ins are SageMaker and EC2
(moto), ngrok's agent and cloud, and the computers themselves (directories and processes).

`make demo` ends with everything taken away. `make local` tells the first half of it and stays up (playground.py).
"""

from __future__ import annotations

import difflib
import json
import shlex
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import processes
from emulator.process import Emulator
from emulator.stack import NotDeployedError, build
from story import NotReachedError, Story, UnheardError
from supervisor import Supervisor
from world import OWNERS_SCRIPT, Answer, Person, World, obstacle

WHAT_IS_REAL = (
    "AWS, ngrok's cloud and the computers are emulated. The template, the functions, the scripts, the agent, "
    "sshd, ssh and curl are real. Everything listens on 127.0.0.1."
)
NOTEBOOK = "my-notebook"
CONFIGURATION = "team-setup"
LOOK_AROUND = "head -n 1 SageMaker/prepared; ssh-status"
NO_PROMPT = ("-o", "BatchMode=yes")


class UnexpectedResultError(Exception):
    """Something answered otherwise than it must; the sentence says what."""


def expect(condition: bool, otherwise: str) -> None:
    """Raise UnexpectedResultError with the sentence `otherwise` unless `condition`."""
    if not condition:
        raise UnexpectedResultError(otherwise)


class Demo:
    """The scenes, in the order in which they are played. Each leaves the world as the next one needs it."""

    def __init__(self, world: World, story: Story) -> None:
        self.world, self.story = world, story

    # ---- an account with the stack -------------------------------------------------------------

    def set_the_stage(self, *keys: str) -> None:
        """AWS, the stack, a user, a bastion. keys: public keys that the bastion admits too."""
        world, story = self.world, self.story
        story.chapter("The admin deploys the stack, once")
        with story.step("An AWS account opens on 127.0.0.1, IAM enforced"):
            world.start()
        with story.step("Functions and layers are built, if their sources changed"):
            build()
        with story.step("template.yaml is deployed, and ngrok's token stored"):
            world.deploy()
        with story.step("The bastion starts"):
            world.move_in()
            world.start_bastion(*keys)

    # ---- a notebook ----------------------------------------------------------------------------

    def start_a_notebook(self, *keys: str) -> None:
        """A notebook as it is without SSH. keys: public keys that Mario puts there too."""
        world, story = self.world, self.story
        story.chapter("Mario's notebook has a lifecycle script already")
        with story.step(f"{NOTEBOOK} starts and runs its on-start script"):
            world.create_lifecycle_config(CONFIGURATION, OWNERS_SCRIPT)
            world.create_notebook(NOTEBOOK, CONFIGURATION)
            self._until_state("InService")
        story.show((world.volume(NOTEBOOK) / "prepared").read_text("utf-8"))
        with story.step("Mario puts his public key into ~/SageMaker/ssh/authorized_keys"):
            world.leave_key(NOTEBOOK, *keys)

    def tag_it(self) -> None:
        """The one thing that a user does."""
        world, story = self.world, self.story
        story.chapter("Mario tags it: ssh=ngrok")
        with story.step("The event reaches the stack, which adds its block to the script"):
            world.tag(NOTEBOOK, ssh="ngrok")
            # The record says what is begun before the script is written.
            self._until("the script", lambda: str(world.on_start(CONFIGURATION) != OWNERS_SCRIPT), "True")
            self._until_status("pending-restart")
        now = world.on_start(CONFIGURATION)
        self._show_block(now)
        told = self._told()
        story.say(f"Its status is {told['status']}: {told['message']} {told['next_step']}")

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
        self.story.show("\n".join(lines), cut=True)
        size = len(now) - len(OWNERS_SCRIPT)
        self.story.say(
            f"The block is {size:,} bytes, after the first line. The script's own {len(OWNERS_SCRIPT)} bytes are unchanged."
        )

    # ---- through ngrok -------------------------------------------------------------------------

    def connect_through_ngrok(self) -> str:
        """Restart, look up, log in. Returns the address."""
        story = self.story
        story.chapter("From the next start on, Mario can log in")
        self._restart()
        with story.step("The agent on the notebook reports its address and its host keys"):
            self._until_status("connected")
        answer = self._look_up("/ssh")
        story.say(
            "API_URL is the stack's output ApiUrl. He also saves what it answers at /ssh-config and /known-hosts: so ssh "
            "knows the name, and verifies the host key that the notebook reported."
        )
        self._log_in(LOOK_AROUND)
        return answer.body.strip()

    def restart_changes_the_address(self, before: str) -> None:
        """The address and the host keys are new; what the user types is not."""
        self.story.chapter("A restart changes the address, not what Mario types")
        self._restart()
        with self.story.step("The agent reports the new address"):
            self._until_status("connected")
        after = self._look_up("/ssh").body.strip()
        expect(after != before, f"after the restart the address is the same: {after}")
        self._log_in("echo the same notebook, $(head -n 1 SageMaker/prepared)")

    # ---- with the client -----------------------------------------------------------------------

    def connect_with_the_client(self) -> None:
        """The second way: a small program that ssh asks for the address and the host key, at every connection."""
        self.story.chapter("With the client, there is nothing to look up")
        self._set_up_client("Mario", self.world.person)
        self._log_in_by_client("He logs in", self.world.person, "echo found and verified by the client")

    def admit_a_colleague(self) -> None:
        """A public key that the stack keeps, and a tag that admits it; no file on the notebook is touched."""
        world, story = self.world, self.story
        story.chapter("Ana joins: the admin stores her public key, and Mario tags ssh-users=ana")
        ana = world.make_person("ana", "laptop-of-ana")
        with story.step("The agent admits her key"):
            world.keep_centrally("ana", ana)
            world.tag(NOTEBOOK, ssh_users="ana")
            self._until("central keys", lambda: str(self._told()["keys"]["central"]), "1")
        self._set_up_client("Ana", ana)
        self._log_in_by_client("She logs in", ana, "echo admitted by the tag")

    def give_a_wrong_token(self) -> None:
        """ngrok refuses the token: the user reads why, and a valid token is enough to recover."""
        world, story = self.world, self.story
        story.chapter("The admin stores a token that ngrok refuses")
        with story.step("The agent picks it up, and the tunnel closes"):
            world.store_token("not-a-token-of-ours")
            self._until_status("error")
            refused = world.person.terminal.run("ssh", *NO_PROMPT, NOTEBOOK, "true")
        story.command(f"ssh {NOTEBOOK} true")
        said = refused.stderr.partition("\n")[0]  # ssh's own lines follow
        story.show(said)
        expect("ngrok refuses the token" in said, f"ssh does not say that ngrok refuses the token: {refused.stderr}")
        with story.step("The admin stores a valid one, and the tunnel opens again"):
            world.store_token(world.cloud.token)
            self._until_status("connected")
        self._log_in_by_client("Mario logs in", world.person, "echo back again, and nothing was done on the notebook")

    # ---- through a bastion ---------------------------------------------------------------------

    def connect_through_the_bastion(self) -> None:
        """Another word in the tag: no restart, and a rule in a security group."""
        world, story = self.world, self.story
        story.chapter("Mario changes the tag to ssh=bastion, without a restart")
        expect(not world.bastion_rules(), "a rule admits the bastion before the tag asks for it")
        with story.step("A security group rule admits the bastion, and the tunnel closes"):
            world.tag(NOTEBOOK, ssh="bastion")
            self._until("the rules", lambda: str(len(world.bastion_rules())), "1")
            self._until("the command", lambda: self.ssh_command()[:7], "ssh -J ")
        rule = world.bastion_rules()[0]
        source = rule["ReferencedGroupInfo"]["GroupId"]
        story.show(f"{rule['SecurityGroupRuleId']}  tcp/{rule['FromPort']} from {source}, the bastion's")
        self._look_up("/ssh")
        self._log_in("echo through the bastion, from ${SSH_CONNECTION%% *}; ssh-status")
        with story.step("The notebook stops, and the rule is revoked"):
            world.sagemaker.stop_notebook_instance(NotebookInstanceName=NOTEBOOK)
            self._until_state("Stopped")
            self._until("the rules", lambda: str(len(world.bastion_rules())), "0")

    # ---- the way back --------------------------------------------------------------------------

    def untag_it(self) -> None:
        """Remove the tag: everything is as it was."""
        world, story = self.world, self.story
        story.chapter("Mario removes the tag")
        with story.step("The lifecycle script is as it was"):
            world.untag(NOTEBOOK, "ssh")
            self._until("bytes", lambda: str(len(world.on_start(CONFIGURATION))), str(len(OWNERS_SCRIPT)))
        expect(world.on_start(CONFIGURATION) == OWNERS_SCRIPT, "the script has the owner's length but other bytes")
        story.say(f"Compared byte for byte: {len(OWNERS_SCRIPT)} of {len(OWNERS_SCRIPT)} bytes are the same.")

    # ---- what scenes share ---------------------------------------------------------------------

    def _restart(self) -> None:
        with self.story.step(f"{NOTEBOOK} is stopped and started"):
            self.world.sagemaker.stop_notebook_instance(NotebookInstanceName=NOTEBOOK)
            self._until_state("Stopped")
            self._until_status("stopped")  # until the event has come, what is known is of the run before
            self.world.sagemaker.start_notebook_instance(NotebookInstanceName=NOTEBOOK)
            self._until_state("InService")

    def _until_state(self, state: str) -> None:
        seen = self.story.wait(
            "SageMaker says", lambda: self.world.state(NOTEBOOK), lambda seen: seen in (state, "Failed")
        )
        expect(seen == state, f"{NOTEBOOK} is {seen}: {self._failure()}")

    def _failure(self) -> str:
        told = self.world.sagemaker.describe_notebook_instance(NotebookInstanceName=NOTEBOOK)
        return str(told.get("FailureReason", "SageMaker does not say why"))

    def _until_status(self, status: str) -> None:
        self._until("the stack says", lambda: self.world.status(NOTEBOOK), status)

    def _until(self, what: str, look: Callable[[], str], wanted: str) -> None:
        self.story.wait(what, look, lambda seen: seen == wanted)

    def _told(self) -> dict[str, Any]:
        return dict(json.loads(self.world.curl(f"/notebooks/{NOTEBOOK}").body))

    def ssh_command(self) -> str:
        """The line that connects, or what the API answers instead."""
        return self.world.curl(f"/notebooks/{NOTEBOOK}/ssh").body.strip()

    def _look_up(self, route: str) -> Answer:
        with self.story.step("Mario looks it up, with curl and his AWS keys"):
            answer = self.world.curl(f"/notebooks/{NOTEBOOK}{route}")
        self.story.command(answer.command)
        self._show(answer.body)
        expect(answer.status == 200, f"the lookup answered {answer.status}: {answer.body}")
        return answer

    def _log_in(self, command: str) -> None:
        with self.story.step("He logs in"):
            self.world.save_ssh_config(NOTEBOOK)
            session = self.world.ssh(NOTEBOOK, command)
        self.story.command(f"ssh {NOTEBOOK} {shlex.quote(command)}")
        self._show(session.stdout)
        expect(session.returncode == 0, f"ssh ended with {session.returncode}: {session.stderr.strip()}")

    def _show(self, printed: str) -> None:
        """What a program printed. The line that connects is for copying."""
        for line in printed.splitlines():
            self.story.show(line, whole=line.startswith("ssh "))

    def _set_up_client(self, name: str, person: Person) -> None:
        with self.story.step(f"{name} sets up the client, once"):
            done = self.world.open_terminal(person).run("notebook-ssh", "setup")
        self.story.command("notebook-ssh setup")
        self.story.show(done.stdout + done.stderr)
        expect(done.returncode == 0, f"notebook-ssh setup ended with {done.returncode}: {done.stderr.strip()}")

    def _log_in_by_client(self, what: str, person: Person, command: str) -> None:
        with self.story.step(what):
            session = person.terminal.run("ssh", *NO_PROMPT, NOTEBOOK, command)
        self.story.command(f"ssh {NOTEBOOK} {shlex.quote(command)}")
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
    demo.give_a_wrong_token()
    demo.connect_through_the_bastion()
    demo.untag_it()


def perform(folder: Path) -> int:
    """Tell the whole story, with everything of it below `folder`; the exit status."""
    story, world = Story(), World(Emulator(home=folder))
    try:
        story.title("notebook-ssh on this machine")
        story.say(WHAT_IS_REAL)
        tell_everything(Demo(world, story))
    except Exception as problem:
        return fail(world, story, problem)
    world.close()
    story.end(f"Done in {time.monotonic() - story.began:.0f} s. Nothing is left running, and nothing on the disk.")
    return 0


def fail(world: World, story: Story, problem: Exception) -> int:
    """Report where the run stopped, and keep its logs; the exit status."""
    if isinstance(problem, UnheardError):
        world.close()
        if not problem.left:  # otherwise the reader has seen enough, as in `make demo | head`
            print(f"It stopped here: {problem}", file=sys.stderr)
        return 0 if problem.left else 1
    known = isinstance(problem, UnexpectedResultError | NotReachedError | NotDeployedError | processes.DidNotStartError)
    sentence = str(problem) if known else f"{type(problem).__name__}: {problem}"
    logs = world.close(keep_logs=True)
    short = textwrap.shorten(sentence, 600, placeholder=" …").rstrip(".")
    story.failed(f"It stopped here: {short}. " + (f"The logs are in {logs}" if logs else "No log could be kept."))
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
