"""Which ngrok token a notebook gets: the secret's text, the notebook and its role."""

from __future__ import annotations

import json

import pytest

from notebook_ssh.reports.tokens import InvalidSecretError, Token, parse_secret, token_for

A, B, REST = (
    {"notebooks": "team-a-*", "roles": "TeamA*", "token": "token_a"},
    {"notebooks": "team-b-* box-7", "roles": "TeamB* Shared", "token": "token_b"},
    {"roles": "*", "token": "token_rest"},
)


def chosen(secret: object, notebook: str, role: str) -> str | None:
    text = secret if isinstance(secret, str) else json.dumps(secret)
    token = token_for(parse_secret(text, "v1"), notebook, role)
    return token.value if token else None


@pytest.mark.parametrize(
    ("notebook", "role", "token"),
    [
        ("team-a-1", "TeamA", "token_a"),
        ("TEAM-A-1", "TeamA-dev", "token_a"),
        ("team-a-1", "TeamB", "token_rest"),
        ("team-a-1", "teama", "token_rest"),  # the case of a role's name counts
        ("box-7", "Shared", "token_b"),
        ("box-77", "Shared", "token_rest"),
        ("team-b-x", "TeamB9", "token_b"),
    ],
)
def test_the_first_entry_that_matches_notebook_and_role_wins(notebook: str, role: str, token: str) -> None:
    assert chosen({"tokens": [A, B, REST]}, notebook, role) == token


def test_what_matches_no_entry_gets_none() -> None:
    assert chosen({"tokens": [A, B]}, "team-a-1", "Other") is None
    assert chosen({"tokens": []}, "team-a-1", "TeamA") is None


@pytest.mark.parametrize("secret", ["2abc_DEF", "  2abc_DEF\n", '{"token": "2abc_DEF"}', '{"authtoken": "2abc_DEF"}'])
def test_one_token_is_for_all(secret: str) -> None:
    assert chosen(secret, "anything", "AnyRole") == "2abc_DEF"


@pytest.mark.parametrize("secret", ["", " \n"])
def test_an_empty_secret_holds_no_token_yet(secret: str) -> None:
    assert parse_secret(secret, "v1") is None


@pytest.mark.parametrize(
    "secret",
    [
        *("put your ngrok token here", '{"token": ""}', '{"token": 1}', '{"tok', "[]", '["a"]', '"a"', "{}"),
        *('{"tokens": {}}', '{"tokens": "a"}', '{"tokens": ["a"]}', '{"tokens": null}', "[]x y", "null"),
        json.dumps({"token": "a", "tokens": [REST]}),
        json.dumps({"tokens": [{"token": "a"}]}),  # roles are required
        json.dumps({"tokens": [{"roles": "", "token": "a"}]}),
        json.dumps({"tokens": [{"roles": "*", "token": ""}]}),
        json.dumps({"tokens": [{"roles": "*", "token": "a b"}]}),
        json.dumps({"tokens": [{"roles": "*"}]}),
        json.dumps({"tokens": [{"roles": ["*"], "token": "a"}]}),
        json.dumps({"tokens": [{"roles": "[a-z]*", "token": "a"}]}),
        json.dumps({"tokens": [{"roles": "*", "notebooks": "", "token": "a"}]}),
        json.dumps({"tokens": [{"roles": "*", "notebooks": 7, "token": "a"}]}),
        json.dumps({"tokens": [{"roles": "*", "notebook": "team-a-*", "token": "a"}]}),  # a misspelt member widens
        json.dumps({"tokens": [REST, {"token": "a"}]}),  # one bad entry: none of it is trusted
    ],
)
def test_anything_else_is_invalid_and_gives_none(secret: str) -> None:
    with pytest.raises(InvalidSecretError) as error:
        parse_secret(secret, "v1")
    for token in ("token_rest", "a b", "put your"):
        assert token not in str(error.value)


def test_the_version_changes_with_the_entry_and_with_the_secret() -> None:
    secret = json.dumps({"tokens": [A, B, REST]})
    versions = {
        token.version
        for version in ("v1", "v2")
        for role in ("TeamA", "Other")
        if (token := token_for(parse_secret(secret, version), "team-a-1", role))
    }
    assert len(versions) == 4
    assert all(len(version) <= 64 for version in versions)


def test_a_token_is_not_shown() -> None:
    secret = parse_secret(json.dumps({"tokens": [A]}), "v1")
    assert "token_a" not in repr(secret)
    assert "token_a" not in repr(Token("v1", "token_a"))
