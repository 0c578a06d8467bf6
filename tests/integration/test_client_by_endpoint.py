"""`ssh=eice` as a user types it: tag, client, stand-in of the endpoint, IAM, the stack's rules, the notebook's sshd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import processes
from environment import LocalEnv

wait = partial(processes.wait_until)
NAME = "by-endpoint"


@pytest.fixture(scope="module")
def env() -> Iterator[LocalEnv]:
    """A stack that has made an endpoint, and a notebook with the tag `eice`, whose user has the client."""
    env = LocalEnv()
    try:
        env.start()
        env.make_network()
        env.update(EndpointSubnet=env.network.subnet, EndpointVpc=env.network.vpc)
        env.store_token(env.cloud.token)
        env.move_in()
        env.create_notebook(NAME)
        env.tag(NAME, ssh="eice", ssh_restart="now")
        env.open_terminal(env.person)
        wait("the notebook's disk", env.volume(NAME).parent.is_dir)
        wait("the notebook's folder", env.volume(NAME).is_dir)
        env.leave_key(NAME)
        wait("the notebook is ready", lambda: env.status(NAME) in ("ready", "connected"))
        assert env.person.terminal.run("notebook-ssh", "setup").returncode == 0
        yield env
    finally:
        env.close()


def allow(env: LocalEnv, *, is_allowed: bool) -> None:
    """Give the user the stack's policy for users, or take it away."""
    iam, given = env.emulator.client("iam"), {"UserName": "mario", "PolicyArn": env.stack.outputs["UserPolicyArn"]}
    if is_allowed:
        iam.attach_user_policy(**given)
    else:
        iam.detach_user_policy(**given)


SILENCE = "sleep 6; "
"""Longer than the notebook's network waits for sshd to accept a connection (local/emulator/network.py)."""


def ssh(env: LocalEnv, before: str = "") -> tuple[int, str, str]:
    result = env.person.terminal.run("ssh", NAME, f"{before}echo here")
    return result.returncode, result.stdout, result.stderr


def path(env: LocalEnv, mode: str) -> dict[str, Any]:
    answer = json.loads(env.curl(f"/notebooks/{NAME}").body)
    return next((each for each in answer["paths"] if each["mode"] == mode), {})


def test_by_the_endpoint_alone_and_then_by_another_path(env: LocalEnv) -> None:
    code, _, message = ssh(env)
    assert code == 255
    assert "is not authorized to perform: ec2-instance-connect:OpenTunnel on resource" in message
    assert "UserPolicyArn" in message

    allow(env, is_allowed=True)
    assert ssh(env, SILENCE) == (0, "here\n", "")
    said = env.person.terminal.run("notebook-ssh", "doctor", NAME)
    assert said.returncode == 0, said.stdout

    env.tag(NAME, ssh="eice ngrok")
    wait("both paths are ready", lambda: path(env, "ngrok").get("state") == path(env, "eice").get("state") == "ready")
    (env.person.terminal.client_home / "addresses" / f"{NAME}.notebook").unlink()
    assert ssh(env) == (0, "here\n", "")

    allow(env, is_allowed=False)
    code, output, message = ssh(env)
    assert (code, output) == (0, "here\n"), message
    assert f"{NAME}.notebook is reached by ngrok, not by eice: endpoint eice-" in message
