"""Each experiment on a notebook, against either answer: the script runs on simulated notebooks."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from notebook_ssh_verify import probe
from notebook_ssh_verify.findings import Decision, Holds, Refuted
from notebook_ssh_verify.lab import Lab
from support.verification import begin, create_stack, decide, emulated_account

from emulator.process import Emulator
from processes import wait_until

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJkq0Kyq5n verify"
GROUP = "/aws/sagemaker/NotebookInstances"

NOTEBOOKS: Mapping[str, Mapping[str, str]] = {
    "usual": {},
    "other": {
        "sshd-runs": "masked",
        "systemd-on-start": "fails",
        "imds-role": "other-credentials",
        "selinux-port": "refused",
    },
    "bare": {"sshd-runs": "absent", "imds-role": "other-name"},
}
"""Notebooks, and what they answer besides the usual."""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    emulator = Emulator()
    try:
        yield emulator.start()
    finally:
        emulator.close()


@pytest.fixture(scope="module")
def lab(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("journal")
    with emulated_account(emulator) as account:
        lab = begin(account, folder)
        lab.outputs = create_stack(lab)
        account.call(
            "sagemaker",
            "create_notebook_instance_lifecycle_config",
            NotebookInstanceLifecycleConfigName=lab.run.name("config"),
            OnStart=[{"Content": base64.b64encode(probe.script(lab.run.prefix, KEY)).decode()}],
        )
        for name, answers in NOTEBOOKS.items():
            with emulator.answering(dict(answers)):
                create(lab, name)
        yield lab


def create(lab: Lab, name: str) -> None:
    """A notebook that has run its script."""
    lab.account.call(
        "sagemaker",
        "create_notebook_instance",
        NotebookInstanceName=lab.run.name(name),
        InstanceType="ml.t3.medium",
        RoleArn=lab.outputs["NotebookRole"],
        LifecycleConfigName=lab.run.name("config"),
    )
    wait_until(f"{name} has started", lambda: status(lab, name) != "Pending")
    assert status(lab, name) == "InService"


def status(lab: Lab, name: str) -> str:
    return str(lab.describe_notebook(lab.run.name(name))["NotebookInstanceStatus"])


def with_notebook(lab: Lab, name: str) -> Lab:
    """The run, as if this were its first notebook."""
    full = lab.run.name(name)
    logs = lab.account.client("logs")
    read = logs.get_log_events(logGroupName=GROUP, logStreamName=f"{full}/LifecycleConfigOnStart", startFromHead=True)
    return replace(lab, notebooks=(full,), probes=probe.parse(event["message"] for event in read["events"]))


@pytest.mark.parametrize(
    ("fact", "notebook", "expected"),
    [
        ("sshd-runs", "usual", Holds),
        ("sshd-runs", "other", Refuted),
        ("sshd-runs", "bare", Refuted),
        ("systemd-on-start", "usual", Holds),
        ("systemd-on-start", "other", Refuted),
        ("imds-role", "usual", Holds),
        ("imds-role", "other", Refuted),
        ("imds-role", "bare", Holds),
        ("selinux-port", "usual", Holds),
        ("selinux-port", "other", Refuted),
    ],
)
def test_an_experiment_finds_the_answer_that_is_given(
    lab: Lab, fact: str, notebook: str, expected: type[Decision]
) -> None:
    lab = with_notebook(lab, notebook)
    decision = decide(lab, fact)
    assert isinstance(decision, expected), (decision, lab.probes.of(fact))


def test_the_evidence_is_what_the_script_printed(lab: Lab) -> None:
    lab = with_notebook(lab, "usual")
    decide(lab, "sshd-runs")
    (evidence,) = lab.account.take_evidence()
    assert evidence.call == "on-start script, sshd-runs"
    assert "banner=SSH-2.0-" in evidence.answer


def test_what_sshd_says_of_a_port_that_it_cannot_have_is_told(lab: Lab) -> None:
    decision = decide(with_notebook(lab, "other"), "selinux-port")
    assert isinstance(decision, Refuted)
    assert "(SELinux is enforcing): error: Bind to port" in decision.seen
    assert "Permission denied" in decision.seen
