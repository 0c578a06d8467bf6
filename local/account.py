"""`make aws`: an AWS account on this machine, with somebody's notebook in it and no stack yet.

    python local/account.py [--environment FILE]

It writes the file that another terminal reads in, and stays up until Ctrl-C. docs/deploy.md goes on from there.
"""

from __future__ import annotations

import sys

from playground import Playground, environment_option, stay_up
from world import OWNERS_SCRIPT, World

NOTEBOOK, CONFIGURATION = "my-notebook", "gpu-setup"
ADMIN = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def open_account(world: World) -> None:
    """A network, a notebook with a lifecycle script of its owner's, and a person with a laptop: here, the admin."""
    world.start()
    world.make_network()
    world.move_in()
    world.person.keys = world.make_session("admin", ADMIN)
    world.create_lifecycle_config(CONFIGURATION, OWNERS_SCRIPT, on_create=b"#!/bin/bash\necho made > /dev/null\n")
    world.create_notebook(NOTEBOOK, CONFIGURATION)


def build(playground: Playground) -> None:
    """The account, and a terminal to deploy from."""
    world, story = playground.world, playground.story
    playground.find_keys()
    with story.step("An AWS account opens on 127.0.0.1, IAM enforced"):
        open_account(world)
    with story.step(f"{NOTEBOOK} starts and runs its on-start script"):
        story.wait("SageMaker says", lambda: world.state(NOTEBOOK), lambda seen: seen == "InService")
        world.leave_key(NOTEBOOK, *playground.public_keys)
    with story.step("The client is installed"):
        playground.open_terminal(
            SAM_CLI_TELEMETRY="0", NGROK_DOWNLOAD=world.cloud.download, NGROK_TOKEN=world.cloud.token
        )
    story.chapter("In another terminal, in this folder; then go on with docs/deploy.md:")
    story.paste(playground.first_line)
    story.say(playground.tell_of_keys())
    story.say(f"Logs and the notebook's disk are in {world.emulator.home}. Ctrl-C ends everything.")


def main(words: list[str]) -> int:
    """The command line described at the top of this file."""
    file = environment_option(words, "an AWS account on this machine", ".build/aws.sh")
    return stay_up(file, "An AWS account on this machine", build)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
