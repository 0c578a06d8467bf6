"""`make aws`: an AWS account on this machine, with somebody's notebook in it and no stack yet.

    python local/account.py [--environment FILE]

It writes the file that another terminal reads in, and stays up until Ctrl-C. docs/deploy.md goes on from there.
"""

from __future__ import annotations

import argparse
import getpass
import shlex
import sys
import time
from pathlib import Path
from typing import NoReturn

import processes
import terminal
from emulator.process import PROJECT, REGION
from story import NotReached, Story
from world import OWNERS_SCRIPT, World, obstacle

NOTEBOOK, CONFIGURATION = "my-notebook", "gpu-setup"
ADMIN = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}

SSH_CONFIG = """\
Host *
  User {user}
  IdentityFile "{laptop}/.ssh/id_ed25519"
  IdentitiesOnly yes
  UserKnownHostsFile "{laptop}/known_hosts"
  StrictHostKeyChecking yes
  Include "{laptop}/notebooks"
"""


def open_account(world: World) -> None:
    """A network, a notebook with a lifecycle script of its owner's, and a person with a laptop."""
    world.start()
    world.make_network()
    world.move_in()
    world.create_configuration(CONFIGURATION, OWNERS_SCRIPT, on_create=b"#!/bin/bash\necho made > /dev/null\n")
    world.create_notebook(NOTEBOOK, CONFIGURATION)
    laptop = world.person.home
    config = SSH_CONFIG.format(user=getpass.getuser(), laptop=laptop)
    (laptop / "ssh_config").write_text(config)
    (laptop / "mario.pub").write_text(world.person.public_key + "\n")


def environment(world: World) -> dict[str, str]:
    """The variables of another terminal. The admin's keys are of a session."""
    return {
        "AWS_ENDPOINT_URL": world.emulator.endpoint,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        **world.make_session("admin", ADMIN),
        "SAM_CLI_TELEMETRY": "0",
        "NGROK_DOWNLOAD": world.cloud.download,
        "NGROK_TOKEN": world.cloud.token,
        "LAPTOP": str(world.person.home),
    }


def stay(world: World, story: Story, file: Path) -> NoReturn:
    """Open the account and wait. Ends by Ctrl-C, as KeyboardInterrupt."""
    with story.step("An AWS account opens on 127.0.0.1, IAM enforced"):
        open_account(world)
    with story.step(f"{NOTEBOOK} starts and runs its on-start script"):
        story.wait("SageMaker says", lambda: world.state(NOTEBOOK), lambda seen: seen == "InService")
    world.leave_key(NOTEBOOK)
    programs = world.person.home / "bin"
    terminal.write_programs(programs, world.emulator.endpoint, ssh_config=world.person.home / "ssh_config")
    terminal.write_environment(file, terminal.environment(environment(world), programs))
    story.say("In another terminal, in this folder; then go on with docs/deploy.md:")
    story.command(f". {shlex.quote(str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file))}")
    story.say(f"The notebook's disk and all logs are in {world.emulator.home}. Ctrl-C ends everything.")
    while world.emulator.alive():
        time.sleep(1)
    raise NotReached("the embedded AWS has ended by itself")


def main(words: list[str]) -> int:
    """The command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="an AWS account on this machine")
    parser.add_argument("--environment", type=Path, default=PROJECT / ".build/aws.sh", help="the file to write")
    file: Path = parser.parse_args(words).environment
    hindered = obstacle()
    if hindered:
        print(hindered)
        return 1
    processes.be_interrupted_by_signals()
    story, world = Story(), World()
    story.title("An AWS account on this machine")
    try:
        stay(world, story, file)
    except KeyboardInterrupt:
        world.close()
        story.end("Ended; nothing is left running, and nothing on the disk.")
        return 0
    except (NotReached, processes.DidNotStart) as problem:
        story.failed(f"It stopped here: {problem}. The logs are in {world.close(keep_logs=True)}")
        return 1
    finally:
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
