"""What each tag means; docs/tags.md says the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from notebook_ssh.model.spec import Mode, NotebookSpec, parse_spec, spec_tag_keys, status_keys

SIX_PM = 1_906_567_200
"""2030-06-01T18:00:00Z."""


def spec(**tags: str) -> NotebookSpec:
    return parse_spec({key.replace("_", "-"): value for key, value in tags.items()}, "ssh")


@pytest.mark.parametrize(
    ("value", "modes"),
    [
        ("ngrok", (Mode.NGROK,)),
        ("NGROK", (Mode.NGROK,)),
        ("  Bastion ", (Mode.BASTION,)),
        ("eice", (Mode.EICE,)),
        ("eice ngrok", (Mode.EICE, Mode.NGROK)),
        ("ngrok eice", (Mode.NGROK, Mode.EICE)),
        (" Bastion   EICE ngrok ", (Mode.BASTION, Mode.EICE, Mode.NGROK)),
        ("off", ()),
        ("OFF", ()),
        ("", ()),
        ("   ", ()),
    ],
)
def test_the_modes(value: str, modes: tuple[Mode, ...]) -> None:
    assert spec(ssh=value) == NotebookSpec(modes=modes)


def test_no_tag_is_off() -> None:
    assert parse_spec({}, "ssh") == NotebookSpec()
    assert spec(Env="ngrok", sshd="ngrok") == NotebookSpec()


@pytest.mark.parametrize(
    ("tags", "parts"),
    [
        ({"ssh_ngrok_url": "tcp://1.tcp.ngrok.io:12345"}, {"ngrok_url": "tcp://1.tcp.ngrok.io:12345"}),
        ({"ssh_ngrok_url": " TCP://1.TCP.ngrok.io:1 "}, {"ngrok_url": "tcp://1.tcp.ngrok.io:1"}),
        ({"ssh_ngrok_url": "tcp://5.tcp.eu.ngrok.io:65535"}, {"ngrok_url": "tcp://5.tcp.eu.ngrok.io:65535"}),
        ({"ssh_users": "mario ana"}, {"users": ("mario", "ana")}),
        ({"ssh_users": "  ana   mario  ana "}, {"users": ("ana", "mario")}),
        ({"ssh_users": "a.b_c-d@e"}, {"users": ("a.b_c-d@e",)}),
        ({"ssh_restart": "Now"}, {"restart": True}),
        ({"ssh_wake": "yes"}, {"wake": True}),
        ({"ssh_wake": ""}, {}),
        ({"ssh_until": "2030-06-01T18:00Z"}, {"until": SIX_PM}),
        ({"ssh_until": "2030-06-01T18:00:00z"}, {"until": SIX_PM}),
        ({"ssh_until": "2030-06-01 18:00"}, {"until": SIX_PM}),
        ({"ssh_until": "2030-06-01t20:00:00+02:00"}, {"until": SIX_PM}),
        ({"ssh_until": "2030-06-01T12:30-0530"}, {"until": SIX_PM}),
        ({"ssh_until": ""}, {}),
    ],
)
def test_what_goes_with_a_mode(tags: dict[str, str], parts: dict[str, Any]) -> None:
    assert spec(ssh="ngrok", **tags) == NotebookSpec(modes=(Mode.NGROK,), **parts)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (
            {"ssh": "ngork"},
            "The tag ssh is “ngork”, but it can only be ngrok, bastion, eice, several of these in the order "
            "of preference, or off; correct the tag, or remove it to turn SSH off.",
        ),
        ({"ssh": "yes"}, "“yes”"),
        ({"ssh": "ngrok,eice"}, "it can only be ngrok"),
        ({"ssh": "ngrok ngork"}, "it can only be ngrok"),
        ({"ssh": "ngrok off"}, "The tag ssh is “ngrok off”, but off stands alone"),
        ({"ssh": "OFF eice bastion"}, "off stands alone"),
        ({"ssh": "off off"}, "off stands alone"),
        ({"ssh": "ngrok NGROK"}, "it names the same way twice"),
        ({"ssh": "eice ngrok eice"}, "it names the same way twice"),
        ({"ssh": "eice ngrok eice bastion"}, "it can name 3 ways at most"),
        ({"ssh": "ngrok", "ssh_ngrok_url": "1.tcp.ngrok.io:12345"}, "tcp://1.tcp.ngrok.io:12345"),
        ({"ssh": "ngrok", "ssh_ngrok_url": "tcp://1.tcp.ngrok.io"}, "The tag ssh-ngrok-url"),
        ({"ssh": "ngrok", "ssh_ngrok_url": "tcp://1.tcp.ngrok.io:0"}, "The tag ssh-ngrok-url"),
        ({"ssh": "ngrok", "ssh_ngrok_url": "tcp://1.tcp.ngrok.io:65536"}, "The tag ssh-ngrok-url"),
        ({"ssh": "ngrok", "ssh_ngrok_url": "tcp://a@b.c:22"}, "The tag ssh-ngrok-url"),
        ({"ssh": "ngrok", "ssh_ngrok_url": "tcp://b.c:22/x"}, "The tag ssh-ngrok-url"),
        ({"ssh": "ngrok", "ssh_users": "mario,ana"}, "The tag ssh-users is “mario?ana”"),
        ({"ssh": "ngrok", "ssh_users": "../etc"}, "The tag ssh-users"),
        ({"ssh": "ngrok", "ssh_users": "a" * 65}, "64 at most"),
        ({"ssh": "bastion", "ssh_until": "tomorrow"}, "SSH is off until it is corrected"),
        ({"ssh": "bastion", "ssh_until": "2030-06-01"}, "The tag ssh-until"),
        ({"ssh": "bastion", "ssh_until": "2030-13-01T18:00Z"}, "The tag ssh-until"),
        ({"ssh": "bastion", "ssh_until": "2030-06-01T18"}, "The tag ssh-until"),
        ({"ssh": "bastion", "ssh_until": "20300601T1800Z"}, "The tag ssh-until"),
        ({"ssh": "bastion", "ssh_restart": "yes"}, "the only value it can have is now"),
        ({"ssh": "bastion", "ssh_wake": "now"}, "the only value it can have is yes"),
    ],
)
def test_what_cannot_be_parsed_is_off_and_says_why(tags: dict[str, str], said: str) -> None:
    found = spec(**tags)
    assert found.modes == ()
    assert found.problem is not None
    assert found.problem.code == "invalid-tag"
    assert said in found.problem.message


def test_with_ssh_off_the_other_tags_are_no_mistake() -> None:
    assert spec(ssh="off", ssh_until="tomorrow") == NotebookSpec()
    assert spec(ssh_ngrok_url="nonsense") == NotebookSpec()
    assert spec(ssh="bastion", ssh_ngrok_url="nonsense") == NotebookSpec(modes=(Mode.BASTION,))


@pytest.mark.parametrize(
    ("tags", "named", "right"),
    [
        ({"SSH": "ngrok"}, "SSH", "ssh"),
        ({"Ssh": "bastion"}, "Ssh", "ssh"),
        ({"ssh": "ngrok", "SSH-until": "2030-06-01T18:00Z"}, "SSH-until", "ssh-until"),
        ({"ssh": "ngrok", "ssh-Users": "ana"}, "ssh-Users", "ssh-users"),
        ({"ssh": "ngrok", "ssh-NGROK-url": "tcp://1.tcp.ngrok.io:1"}, "ssh-NGROK-url", "ssh-ngrok-url"),
        ({"SSH": "ngrok", "SSH-until": "2030-06-01T18:00Z"}, "SSH", "ssh"),
    ],
)
def test_a_key_that_differs_in_case_alone_is_named_and_gives_no_access(
    tags: dict[str, str], named: str, right: str
) -> None:
    found = parse_spec(tags, "ssh")
    assert found.modes == ()
    assert found.problem
    assert found.problem.code == "invalid-tag"
    assert f"The tag {named} has no effect" in found.problem.message
    assert f"{right}" in found.problem.message


@pytest.mark.parametrize(
    ("tags", "modes"),
    [
        ({"SSH": "off"}, ()),
        ({"SSH": ""}, ()),
        ({"ssh": "off", "SSH": "ngrok"}, ()),
        ({"ssh": "ngrok", "SSH": "anything"}, (Mode.NGROK,)),
        ({"ssh": "ngrok", "SSH-STATUS": "x", "Ssh-Address": "y"}, (Mode.NGROK,)),
        ({"SSH-until": "tomorrow"}, ()),
    ],
)
def test_what_asks_for_nothing_is_no_mistake_in_any_case(tags: dict[str, str], modes: tuple[Mode, ...]) -> None:
    assert parse_spec(tags, "ssh") == NotebookSpec(modes=modes)


def test_the_keys_derive_from_the_stacks_own() -> None:
    assert parse_spec({"tunnel": "ngrok", "tunnel-wake": "yes", "ssh": "off"}, "tunnel") == NotebookSpec(
        (Mode.NGROK,), wake=True
    )
    assert spec_tag_keys("tunnel")[:2] == ("tunnel", "tunnel-ngrok-url")
    assert status_keys("tunnel") == ("tunnel-status", "tunnel-address")
    assert not set(spec_tag_keys("ssh")) & set(status_keys("ssh"))


def test_access_ends_at_the_very_second() -> None:
    found = spec(ssh="ngrok", ssh_until="2030-06-01T18:00Z")
    assert found.effective_modes(SIX_PM - 1) == (Mode.NGROK,)
    assert found.effective_modes(SIX_PM) == ()


TEXT = st.text(max_size=300) | st.from_regex(r"\d{1,5}-\d{1,3}-\d{1,3}[T ]\d{1,3}:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)?")


WORDS = st.lists(st.sampled_from(["ngrok", "bastion", "eice", "off", "NGROK", "ngork"]), max_size=4).map(" ".join)


@given(st.dictionaries(st.sampled_from(spec_tag_keys("ssh")), TEXT), WORDS)
def test_any_text_has_a_meaning(tags: dict[str, str], mode: str) -> None:
    found = parse_spec(({"ssh": mode} if mode else {}) | tags, "ssh")
    assert found.problem is None or found.modes == ()
    if found.problem:
        # It can stand in a log, in a status and, cut, on a console.
        assert found.problem.message.isprintable()
        assert len(found.problem.message) < 400
    for user in found.users:
        assert "/" not in user
