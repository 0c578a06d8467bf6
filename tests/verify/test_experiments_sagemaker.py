"""Each experiment on SageMaker's API, against either answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_ssh_verify.findings import Decision, Holds, Refuted, Undecided
from notebook_ssh_verify.lab import Lab
from support.verification import begin, create_notebooks, create_stack, decide, emulated_account

from emulator.process import Emulator


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    emulator = Emulator(machines=False)
    try:
        yield emulator.start()
    finally:
        emulator.close()


@pytest.fixture(scope="module")
def lab(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder: Path = tmp_path_factory.mktemp("journal")
    with emulated_account(emulator) as account:
        lab = begin(account, folder, event_limit_s=4)
        lab.outputs = create_stack(lab)
        lab.notebooks = create_notebooks(lab)
        for name in ("of-others-1", "of-others-2"):
            account.call(
                "sagemaker", "create_notebook_instance_lifecycle_config", NotebookInstanceLifecycleConfigName=name
            )
        yield lab


@pytest.mark.parametrize(
    ("fact", "answer", "expected"),
    [
        ("name-case", "ignored", Holds),
        ("name-case", "exact", Refuted),
        ("script-limit", "base64", Holds),
        ("script-limit", "bytes", Refuted),
        ("empty-hook", "clears", Holds),
        ("empty-hook", "ignored", Refuted),
        ("empty-hook", "refused", Refuted),
        ("time-precision", "milliseconds", Holds),
        ("time-precision", "seconds-in-lists", Refuted),
        ("delete-attached", "refused", Holds),
        ("delete-attached", "deletes", Refuted),
        ("expired-page", "validation-exception", Holds),
        ("expired-page", "other-code", Refuted),
        ("expired-page", "never", Undecided),
        ("platform-refusal", "validation-exception", Holds),
        ("platform-refusal", "other-code", Refuted),
    ],
)
def test_an_experiment_finds_the_answer_that_is_given(
    emulator: Emulator, lab: Lab, fact: str, answer: str, expected: type[Decision]
) -> None:
    with emulator.answering({fact: answer}):
        decision = decide(lab, fact)
    assert isinstance(decision, expected), decision
    evidence = lab.account.take_evidence()
    assert evidence
    assert "of-others" not in str(evidence), "a report is published"
    assert left_behind(lab) == ([], [("InService", None), ("InService", None)])


def left_behind(lab: Lab) -> tuple[list[str], list[tuple[str, str | None]]]:
    """The run's lifecycle configurations, and the status and configuration of each of its notebooks."""
    sagemaker = lab.account.client("sagemaker")
    configs = sagemaker.list_notebook_instance_lifecycle_configs(NameContains=lab.run.prefix)
    names = [each["NotebookInstanceLifecycleConfigName"] for each in configs["NotebookInstanceLifecycleConfigs"]]
    notebooks = [lab.describe_notebook(name) for name in lab.notebooks]
    return names, [
        (each["NotebookInstanceStatus"], each.get("NotebookInstanceLifecycleConfigName")) for each in notebooks
    ]


def test_where_nothing_may_be_created_the_account_as_it_is_decides(emulator: Emulator, lab: Lab) -> None:
    reading = Lab(lab.account, lab.run, event_limit_s=3)
    for answer, expected in (("milliseconds", Holds), ("seconds-in-lists", Refuted)):
        with emulator.answering({"time-precision": answer}):
            decision = decide(reading, "time-precision")
        assert isinstance(decision, expected), decision
    with emulator.answering({"expired-page": "validation-exception"}):
        assert isinstance(decide(reading, "expired-page"), Holds)
