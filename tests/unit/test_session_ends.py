"""Why open sessions are over: for a tag that is gone or off, or an end that has passed, and for nothing else."""

from __future__ import annotations

import pytest
from support.builders import NOW, a_record

from notebook_ssh.model.session_ends import EndReason, end_reason, withdrawn_users
from notebook_ssh.model.spec import parse_spec


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({}, EndReason.OFF),
        ({"ssh": ""}, EndReason.OFF),
        ({"ssh": " OFF "}, EndReason.OFF),
        ({"other": "ngrok"}, EndReason.OFF),
        ({"ssh": "off", "ssh-until": "2020-01-01T00:00Z"}, EndReason.OFF),
        ({"ssh": "ngrok", "ssh-until": "2027-01-15T08:00Z"}, EndReason.UNTIL),
        ({"ssh": "bastion", "ssh-until": "2020-01-01T00:00Z"}, EndReason.UNTIL),
        ({"ssh": "ngrok"}, None),
        ({"ssh": "ngrok", "ssh-until": "2027-01-15T08:00:01Z"}, None),
        # Typos: access is off, and the sessions stay.
        ({"ssh": "ngork"}, None),
        ({"SSH": "ngrok"}, None),
        ({"ssh": "ngrok", "ssh-until": "2020-01-01"}, None),
        ({"ssh": "ngrok", "SSH-until": "2020-01-01T00:00Z"}, None),
        ({"ssh": "ngrok", "ssh-users": "mario;ana"}, None),
    ],
)
def test_why_sessions_end(tags: dict[str, str], reason: EndReason | None) -> None:
    """NOW is 2027-01-15T08:00:00Z."""
    assert end_reason(a_record(spec=parse_spec(tags, "ssh")), NOW) == reason


def test_withdrawn_are_the_users_of_the_tag_without_keys() -> None:
    assert withdrawn_users(("mario", "ana"), {"mario": "key", "eva": "key"}) == ("ana",)
