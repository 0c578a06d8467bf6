"""Many configurations change at once: SageMaker takes one write a second, and is asked for no more."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from support.aws_clients import listen
from support.notebook_env import NotebookEnv, notebook_env

from emulator import sagemaker
from notebook_ssh.adapters.clients import client

pytestmark = pytest.mark.slow  # each makes many calls

CONFIGURATIONS = 60


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env
        sagemaker.throttle_writes(0)


@pytest.mark.slow
def test_as_many_configurations_as_seconds_and_next_to_nothing_refused(env: NotebookEnv) -> None:
    for number in range(CONFIGURATIONS):
        env.lifecycle_config(f"team-{number}")
        env.notebook(f"box-{number}", f"team-{number}", ssh="ngrok")
    env.messages.clear()

    chance = random.Random(1)
    sagemaker.throttle_writes(1, clock=env.clock)
    env.before_call = lambda operation, given: env.sleep(chance.uniform(0.02, 0.06))
    answers: list[int] = []
    listen(
        client("sagemaker"),
        "after-call.sagemaker.UpdateNotebookInstanceLifecycleConfig",
        lambda http_response, **_: answers.append(http_response.status_code),
    )

    began = env.clock()
    for number in range(CONFIGURATIONS):
        env.look(f"box-{number}")
    for _ in range(CONFIGURATIONS * 20):
        if all(env.has_block(f"team-{number}") for number in range(CONFIGURATIONS)):
            break
        env.deliver() if env.due() else env.sleep(1)
    took = env.clock() - began

    assert answers.count(200) == CONFIGURATIONS
    assert len(answers) - CONFIGURATIONS <= CONFIGURATIONS * 0.02
    first_look = 2
    assert took <= first_look + CONFIGURATIONS * 1.1, f"{CONFIGURATIONS} writes took {took:.0f} s"
