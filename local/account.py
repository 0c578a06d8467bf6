"""`make aws`: an AWS account on this machine, with a user's notebook in it and no stack yet.

    python local/account.py [--environment FILE]

It writes the file that another terminal reads in, and stays up until Ctrl-C. docs/deploy.md goes on from there.
"""

from __future__ import annotations

import sys

from environment import OWNERS_SCRIPT, LocalEnv
from playground import Playground, environment_option, stay_up

NOTEBOOK, CONFIGURATION = "my-notebook", "gpu-setup"
ADMIN = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def open_account(env: LocalEnv) -> None:
    """A network, a notebook with a lifecycle script of its owner's, and a person with a laptop: here, the admin."""
    env.start()
    env.make_network()
    env.move_in()
    env.person.keys = env.make_session("admin", ADMIN)
    env.create_lifecycle_config(CONFIGURATION, OWNERS_SCRIPT, on_create=b"#!/bin/bash\necho made > /dev/null\n")
    env.create_notebook(NOTEBOOK, CONFIGURATION)


def build(playground: Playground) -> None:
    """The account, and a terminal to deploy from."""
    env, progress = playground.env, playground.progress
    playground.find_keys()
    with progress.step("An AWS account opens on 127.0.0.1, IAM enforced"):
        open_account(env)
    with progress.step(f"{NOTEBOOK} starts and runs its on-start script"):
        progress.wait("SageMaker says", lambda: env.state(NOTEBOOK), lambda seen: seen == "InService")
        env.leave_key(NOTEBOOK, *playground.public_keys)
    with progress.step("The client is installed"):
        playground.open_terminal(SAM_CLI_TELEMETRY="0", NGROK_DOWNLOAD=env.cloud.download, NGROK_TOKEN=env.cloud.token)
    progress.chapter("In another terminal, in this folder; then go on with docs/deploy.md:")
    progress.paste(playground.first_line)
    progress.say(playground.tell_of_keys())
    progress.say(f"Logs and the notebook's disk are in {env.emulator.home}. Ctrl-C ends everything.")


def main(words: list[str]) -> int:
    """The command line described at the top of this file."""
    file = environment_option(words, "an AWS account on this machine", ".build/aws.sh")
    return stay_up(file, "An AWS account on this machine", build)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
