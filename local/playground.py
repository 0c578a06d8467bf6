"""`make local`: the demo until the notebook is connected, and then a terminal of your own to go on in, until Ctrl-C.

    python local/playground.py [--environment FILE]

It prints the lines to paste into another terminal. account.py opens `make aws` in the same way.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import own_keys
import processes
from demo import NOTEBOOK, WHAT_IS_REAL, Demo, UnexpectedResultError, fail
from emulator.process import PROJECT, Emulator
from environment import USER_POLICY, LocalEnv, obstacle
from own_keys import Key
from progress import Progress
from supervisor import Supervisor
from terminal import EnvironmentFile

LOOK_EVERY = 0.5
"""Seconds between two looks whether the emulator still runs."""

TRY = """\
notebook-ssh doctor my-notebook
aws sagemaker add-tags --resource-arn "$ARN" --tags Key=ssh,Value=bastion
curl --aws-sigv4 "aws:amz:${AWS_REGION}:execute-api" \\
  --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \\
  -H "x-amz-security-token: $AWS_SESSION_TOKEN" \\
  "$API_URL/notebooks/my-notebook/doctor"
"""


class Playground:
    """What `make local` and `make aws` have in common: an account that stays up, and the keys of the person who runs it.

    keys: the SSH keys of theirs that notebooks admit; there may be none, and then it is the key made for this run.
    """

    def __init__(self, env: LocalEnv, progress: Progress, file: EnvironmentFile) -> None:
        self.env, self.progress, self._file = env, progress, file
        self.keys: list[Key] = []

    def find_keys(self) -> None:
        """Look for keys of the person who runs this. Nothing in their ~/.ssh is changed."""
        self.keys = own_keys.find(own_keys.folder(), self.env.emulator.home / "keys")

    @property
    def public_keys(self) -> list[str]:
        """The public keys of the person who runs this."""
        return [key.line for key in self.keys]

    def open_terminal(self, **more: str) -> None:
        """Install the client, and write the file that makes a shell a terminal of the notebook's user."""
        person = self.env.person
        terminal = self.env.open_terminal(person, *(key.identity for key in self.keys))
        self._file.write(terminal.file({"LAPTOP": str(person.home)} | more))

    @property
    def first_line(self) -> str:
        """What makes a shell in this folder a terminal of the notebook's user."""
        return self._file.command

    def tell_of_keys(self) -> str:
        """Which keys log in, in a sentence."""
        if not self.keys:
            return "You have no key in ~/.ssh and none in an ssh-agent, so one that was made for this run logs in."
        names = " and ".join(key.name for key in self.keys)
        return f"{names} {'logs' if len(self.keys) == 1 else 'log'} in."

    def stay(self) -> int:
        """Until the emulator ends, which it does not by itself."""
        while self.env.emulator.alive():
            time.sleep(LOOK_EVERY)
        raise UnexpectedResultError("the embedded AWS has ended by itself")


def stay_up(file: Path, title: str, build: Callable[[Playground], None]) -> int:
    """Build something that stays until a signal comes, and take all of it away; the exit status.

    file: the environment file that is wanted. build: given the playground in a new env.
    """
    processes.open_closed_streams()
    hindered = obstacle()
    if hindered:
        print(hindered)
        return 1
    with Supervisor() as supervisor:
        environment = EnvironmentFile(file)
        supervisor.remove_at_the_end(environment.path)

        def work(folder: Path) -> int:
            progress, env = Progress(), LocalEnv(Emulator(home=folder))
            playground = Playground(env, progress, environment)
            try:
                progress.title(title)
                build(playground)
                return playground.stay()
            except Exception as problem:
                return fail(env, progress, problem)

        status = supervisor.run(work)
    return supervisor.say_that_it_ended(0) if status is None else status


def environment_option(words: Sequence[str], description: str, default: str) -> Path:
    """The command line of both: where the environment file shall be."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--environment", type=Path, default=PROJECT / default, help="the file to write")
    file: Path = parser.parse_args(words).environment
    return file


def build(playground: Playground) -> None:
    """The demo until Mario is connected; then it is yours."""
    env, progress = playground.env, playground.progress
    progress.say(WHAT_IS_REAL)
    demo = Demo(env, progress)
    playground.find_keys()
    demo.set_the_stage(*playground.public_keys)
    demo.start_a_notebook(*playground.public_keys)
    demo.tag_it()
    demo.connect_through_ngrok()
    with progress.step("The client is installed"):
        env.person.keys = env.make_session("person", USER_POLICY)
        playground.open_terminal(**names_of(env))
    progress.chapter("It is yours now. Paste into another terminal, in this folder:")
    lines = [playground.first_line, "notebook-ssh setup", "notebook-ssh list", f"ssh {NOTEBOOK}"]
    progress.paste("\n".join(lines))
    progress.say(playground.tell_of_keys())
    progress.say("There, ssh reads a configuration of this run, and your ~/.ssh stays as it is. Then, for example:")
    progress.paste(TRY)
    progress.say(f"Logs and the notebook's disk are in {env.emulator.home}. Ctrl-C ends everything.")


def names_of(env: LocalEnv) -> Mapping[str, str]:
    """Addresses that people need to type."""
    return {"ARN": env.arn(NOTEBOOK), "API_URL": env.stack.outputs["ApiUrl"]}


def main(words: list[str]) -> int:
    """The command line described at the top of this file."""
    file = environment_option(words, "notebook-ssh on this machine, to try things", ".build/local.sh")
    return stay_up(file, "notebook-ssh on this machine", build)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
