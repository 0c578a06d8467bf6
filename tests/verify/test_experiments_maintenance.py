"""What experiments see through the product's API, of a notebook whose agent reports to it: the one on maintenance above all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest
from notebook_ssh_verify import signed
from notebook_ssh_verify.experiments.maintenance import decide_maintenance
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.ownership import Run
from support.verification import decide, emulated_account

from environment import OWNERS_SCRIPT, STACK, LocalEnv
from processes import wait_until

NAME = "maintained"


@pytest.fixture(scope="module")
def env() -> Iterator[LocalEnv]:
    env = LocalEnv()
    try:
        env.start()
        env.deploy()
        env.move_in()
        env.create_lifecycle_config("own", OWNERS_SCRIPT)
        env.create_notebook(NAME, "own")
        wait_until("it runs", partial(env.is_in, NAME, "InService"))
        env.tag(NAME, ssh="ngrok", ssh_restart="now")
        yield env
    finally:
        env.close()


@pytest.fixture
def lab(env: LocalEnv) -> Iterator[Lab]:
    """A run that only reads."""
    with emulated_account(env.emulator) as account:
        environ = {"AWS_ENDPOINT_URL": env.emulator.endpoint}
        run = Run("reading0", 0)
        yield Lab(account, run, stack_name=STACK, stack=env.stack.outputs, event_limit_s=60, environ=environ)


@pytest.mark.parametrize(("answer", "expected"), [("none", Undecided), ("stays", Holds), ("ends", Refuted)])
def test_the_experiment_finds_the_answer_that_is_given(
    env: LocalEnv, lab: Lab, answer: str, expected: type[Decision]
) -> None:
    for _ in range(3):  # it takes two seconds, which a busy machine may miss
        wait_until("its agent reports", lambda: env.status(NAME) == "connected" and env.is_in(NAME, "InService"))
        with env.emulator.answering({"maintenance-states": answer}):
            decision = decide(lab, "maintenance-states")
        if isinstance(decision, expected):
            break
        assert decision == decide_maintenance(None), lab.account.take_evidence()
    assert isinstance(decision, expected), decision


@pytest.mark.parametrize("path", ["/notebooks/%6Daintained", "/notebooks/%6Daintained/ssh"])
def test_a_function_refuses_an_escape_that_gets_past_iam(lab: Lab, path: str) -> None:
    answer = signed.get(lab, lab.account, path)
    assert (answer.status, json.loads(answer.body)["error"]) == (409, "other-spelling")
    assert signed.get(lab, lab.account, f"/notebooks/{NAME}").status == 200
