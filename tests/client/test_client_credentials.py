"""Keys in the environment, compared with what botocore's session makes of the same environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from notebook_ssh_client.credentials import config_names_authorities, environment_key

KEY = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("variables", "profile", "alone"),
    [
        pytest.param(KEY, None, True, id="long-term key"),
        pytest.param({**KEY, "AWS_SESSION_TOKEN": "token"}, None, True, id="temporary key"),
        pytest.param({**KEY, "AWS_SECURITY_TOKEN": "token"}, None, True, id="token by its older name"),
        pytest.param({**KEY, "AWS_SESSION_TOKEN": ""}, None, True, id="empty token"),
        pytest.param({**KEY, "AWS_PROFILE": "other"}, None, True, id="AWS_PROFILE goes after the keys"),
        pytest.param(KEY, "other", False, id="the stack's profile goes before the keys"),
        pytest.param({**KEY, "AWS_CREDENTIAL_EXPIRATION": "2100-01-01T00:00:00Z"}, None, False, id="with an end"),
        pytest.param({"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE"}, None, False, id="half a key"),
        pytest.param({}, None, False, id="none"),
    ],
)
def test_keys_in_the_environment_are_those_that_botocore_finds(
    variables: dict[str, str],
    profile: str | None,
    alone: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text("[profile other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = other\n")
    for name, value in {**variables, "AWS_CONFIG_FILE": str(config)}.items():
        monkeypatch.setenv(name, value)

    found = environment_key(profile, os.environ)
    assert (found is not None) is alone
    if found is not None:
        credentials = botocore.session.Session(profile=profile).get_credentials()
        assert credentials is not None
        frozen = credentials.get_frozen_credentials()
        assert found == (frozen.access_key, frozen.secret_key, frozen.token)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, False),
        ("[default]\nregion = eu-west-1\n", False),
        ("[default]\nca_bundle = /etc/company.pem\n", True),
    ],
    ids=["no file", "without", "with"],
)
def test_authorities_of_the_configuration_file(text: str | None, expected: bool, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    assert config_names_authorities({"AWS_CONFIG_FILE": str(tmp_path / "config")}) is expected


def test_a_configuration_that_cannot_be_read_may_name_authorities(tmp_path: Path) -> None:
    assert config_names_authorities({"AWS_CONFIG_FILE": str(tmp_path)})


@pytest.mark.parametrize(("config", "session"), [("", False), ("[default]\nca_bundle = /etc/company.pem\n", True)])
def test_a_lookup_with_keys_in_the_environment_imports_no_session(
    config: str, session: bool, laptop: Any, api: Any, tmp_path: Path
) -> None:
    laptop.setup(api)
    (tmp_path / "config").write_text(config)
    laptop.environment["AWS_CONFIG_FILE"] = str(tmp_path / "config")
    imported = laptop.imported_modules("-m", "notebook_ssh_client", "address", "demo")
    assert "botocore.auth" in imported
    assert ("botocore.session" in imported) is session


@pytest.mark.parametrize("variable", ["AWS_CONFIG_FILE", "AWS_CA_BUNDLE"])
def test_a_companys_authorities_are_used(variable: str, laptop: Any, api: Any, tmp_path: Path) -> None:
    laptop.setup(api)
    authorities = tmp_path / "missing.pem"
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {authorities}\n")
    laptop.environment[variable] = str(tmp_path / "config" if variable == "AWS_CONFIG_FILE" else authorities)
    laptop.environment["AWS_ENDPOINT_URL_EXECUTE_API"] = api.url.replace("http:", "https:")
    assert f"no file {authorities}" in laptop.run_client("address", "demo").stderr
