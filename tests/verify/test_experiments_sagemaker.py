"""Each experiment on SageMaker's API, against either answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from notebook_ssh_verify.findings import Decision, Refuted
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
        yield lab


@pytest.mark.parametrize(("fact", "answer", "expected"), [("name-case", "exact", Refuted)])
def test_an_experiment_finds_the_answer_that_is_given(
    emulator: Emulator, lab: Lab, fact: str, answer: str, expected: type[Decision]
) -> None:
    assert isinstance(decide(lab, fact), expected)
