"""The safeguards that the simulation takes out of the code are in it, so that taking one out changes something."""

from __future__ import annotations

import pytest
from simulation.safeguards import ROOT, SAFEGUARDS, Safeguard


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=lambda safeguard: safeguard.name)
def test_each_text_is_there_once(safeguard: Safeguard) -> None:
    assert {file: (ROOT / file).read_text().count(text) for file, text, _ in safeguard.edits} == {
        file: 1 for file, _, _ in safeguard.edits
    }
