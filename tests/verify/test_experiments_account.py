"""Each experiment on rates, events and permissions, against either answer. Two of them use the product's own stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from notebook_ssh_verify.account import Account
from notebook_ssh_verify.experiments import ALL
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from notebook_ssh_verify.notebooks import undone
from notebook_ssh_verify.run import outcome
from support.verification import begin, create_notebooks, create_stack, decide, emulated_account

from emulator.process import Emulator
from environment import STACK, LocalEnv


@pytest.fixture(scope="module")
def env() -> Iterator[LocalEnv]:
    env = LocalEnv(Emulator(machines=False))
    try:
        env.start()
        env.make_network()
        env.update(Certificates="true", TagKey="nbssh-verify-none", DefaultLifecycleConfig="nbssh-verify-none")
        yield env
    finally:
        env.close()


@pytest.fixture(scope="module")
def lab(env: LocalEnv, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with emulated_account(env.emulator) as account:
        lab = begin(account, tmp_path_factory.mktemp("journal"), event_limit_s=5)
        lab.environ = {"AWS_ENDPOINT_URL": env.emulator.endpoint}
        lab.stack_name, lab.stack = STACK, env.stack.outputs
        lab.outputs = create_stack(lab)
        network = {"SubnetId": env.network.subnet, "SecurityGroupIds": [env.network.notebook_group]}
        lab.notebooks = create_notebooks(lab, **network)
        yield lab


@pytest.fixture(scope="module")
def powerless(env: LocalEnv, lab: Lab) -> Iterator[Account]:
    with emulated_account(env.emulator, env.make_user("powerless")) as account:
        yield account


@pytest.mark.parametrize(
    ("fact", "answer", "expected"),
    [
        ("describe-rate", "unthrottled", Holds),
        ("describe-rate", "throttled", Refuted),
        ("fifo-rate", "unthrottled", Holds | Undecided),
        ("fifo-rate", "throttled", Refuted),
        ("tag-events", "emitted", Holds),
        ("tag-events", "absent", Refuted),
        ("cloudtrail-shape", "lower-camel-case", Holds),
        ("cloudtrail-shape", "as-sent", Refuted),
        ("key-in-trail", "named", Holds),
        ("key-in-trail", "absent", Refuted),
        ("start-permissions", "all", Holds),
        ("start-permissions", "start-only", Refuted),
        ("parameters-by-path", "path", Holds),
        ("parameters-by-path", "below", Refuted),
        ("path-as-sent", "as-sent", Holds),
        ("path-as-sent", "decoded", Refuted),
        ("filter-terms", "words", Holds),
        ("filter-terms", "substrings", Refuted),
    ],
)
def test_an_experiment_finds_the_answer_that_is_given(
    env: LocalEnv, lab: Lab, fact: str, answer: str, expected: type[Decision]
) -> None:
    with env.emulator.answering({fact: answer}):
        decision = decide(lab, fact)
    assert isinstance(decision, expected), (decision, lab.account.take_evidence())
    assert lab.account.take_evidence()
    for name in lab.notebooks:
        described = lab.describe_notebook(name)
        tags = lab.account.client("sagemaker").list_tags(ResourceArn=described["NotebookInstanceArn"])["Tags"]
        assert (described["NotebookInstanceStatus"], tags) == ("InService", [])


WITHOUT_ROLES = [
    "name-case",
    "script-limit",
    "empty-hook",
    "time-precision",
    "delete-attached",
    "expired-page",
    "platform-refusal",
    "maintenance-states",
    "describe-rate",
    "fifo-rate",
    "tag-events",
    "cloudtrail-shape",
    "filter-terms",
]
"""The facts whose experiments assume no role, which takes minutes to be refused."""


@pytest.mark.parametrize("fact", WITHOUT_ROLES)
def test_a_principal_who_may_do_nothing_decides_nothing(env: LocalEnv, lab: Lab, powerless: Account, fact: str) -> None:
    experiment = next(each for each in ALL if each.fact == fact)
    assert isinstance(outcome(experiment, replace(lab, account=powerless)), Undecided)


def test_a_run_that_is_interrupted_waits_for_nothing_to_be_undone() -> None:
    undone_after: list[type[BaseException]] = []
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), undone(partial(undone_after.append, error)):
            raise error
    assert undone_after == [ValueError]
