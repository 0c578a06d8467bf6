"""`notebook-ssh setup` and `--remove`: the files that they change and keep, and their messages."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from support.laptop import REGION, notebook_json

from notebook_ssh_client import discovery, files, settings, ssh_files, ssh_programs
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.settings import Stack


def test_remove_restores_the_ssh_config(laptop: Any, api: Any) -> None:
    before = laptop.config.read_bytes()
    laptop.setup(api)
    assert laptop.config.read_bytes() != before
    assert laptop.run_client("setup", "--remove").returncode == 0
    assert laptop.config.read_bytes() == before
    assert not laptop.home.exists()


def test_setup_is_idempotent(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    first = (laptop.config.read_bytes(), (laptop.home / "settings.json").read_text())
    laptop.setup(api)
    assert (laptop.config.read_bytes(), (laptop.home / "settings.json").read_text()) == first


def test_remove_deletes_an_ssh_config_that_setup_created(laptop: Any, api: Any) -> None:
    laptop.config.unlink()
    laptop.setup(api)
    assert stat.S_IMODE(laptop.config.stat().st_mode) == 0o600
    laptop.run_client("setup", "--remove")
    assert not laptop.config.exists()


def test_remove_keeps_an_empty_ssh_config(laptop: Any, api: Any) -> None:
    laptop.config.write_bytes(b"")
    laptop.setup(api)
    laptop.run_client("setup", "--remove")
    assert laptop.config.read_bytes() == b""


def test_names_of_other_hosts_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise, a user could name a notebook like a machine of other users, and receive their connections."""
    monkeypatch.setattr(files, "ssh_dir", lambda: str(tmp_path))
    monkeypatch.setattr("socket.gethostname", lambda: "Desk.example.com")
    (tmp_path / "known_hosts").write_text("git ssh-ed25519 AAAA\n")
    (tmp_path / "config").write_text("Host build\n")
    home = tmp_path / "notebook-ssh"
    home.mkdir()
    names = ["localhost", "Desk", "git", "build", "demo"]
    ssh_files.write_hosts_file(str(home), str(tmp_path / "config"), {"team": names}, ["team"])
    hosts = (home / "hosts").read_text()
    assert [line for line in hosts.splitlines() if line.startswith("Host ")] == ["Host demo"]


def test_symbolic_link_permissions_and_first_backup_are_kept(laptop: Any, api: Any) -> None:
    dotfiles = laptop.folder / "dotfiles"
    before = laptop.config.read_bytes()
    laptop.config.rename(dotfiles)
    dotfiles.chmod(0o640)
    laptop.config.symlink_to(dotfiles)
    laptop.setup(api)
    assert laptop.config.is_symlink()
    assert stat.S_IMODE(dotfiles.stat().st_mode) == 0o640
    backup = Path(f"{laptop.config}{ssh_files.BACKUP_SUFFIX}")
    assert backup.read_bytes() == before
    laptop.config.write_bytes(laptop.config.read_bytes() + b"Host new\n")
    laptop.run_client("setup", "--remove")
    laptop.setup(api)
    assert backup.read_bytes() == before


def test_files_are_readable_by_their_owner_only(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    assert stat.S_IMODE(laptop.home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in laptop.home.iterdir() if path.is_file()} == {0o600}


def test_remove_keeps_files_of_others(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    (laptop.home / "notes").write_text("mine")
    laptop.run_client("setup", "--remove")
    assert [path.name for path in laptop.home.iterdir()] == ["notes"]


def test_nothing_to_remove(laptop: Any) -> None:
    result = laptop.run_client("setup", "--remove")
    assert (result.returncode, result.stderr) == (0, "there is nothing to remove\n")


def test_denied_access_changes_nothing(laptop: Any, api: Any) -> None:
    before = laptop.config.read_bytes()
    api.queued_responses.append((403, {"Message": "User: arn:aws:sts::1:assumed-role/x/y is not authorized"}))
    result = laptop.run_client(
        "setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", REGION, "--api", api.url
    )
    assert result.returncode == 3
    assert "your AWS identity is not allowed to call the API of stack team" in result.stderr
    assert laptop.config.read_bytes() == before
    assert not laptop.home.exists()


def test_names_in_the_users_ssh_config_are_not_taken(laptop: Any, api: Any) -> None:
    (laptop.folder / "work").write_text("Host build-*\n  User ci\n")
    laptop.config.write_text(f'Host demo\n  HostName demo.example.com\nInclude "{laptop.folder}/work"\n')
    for name in ("demo", "build-1", "free"):
        api.notebooks[name] = notebook_json(name)
    laptop.setup(api)
    hosts = (laptop.home / "hosts").read_text()
    assert [line for line in hosts.splitlines() if line.startswith("Host ")] == ["Host free"]


def test_same_name_in_two_stacks(laptop: Any, api: Any, other_api: Any) -> None:
    api.notebooks["demo"] = notebook_json("demo", host="1.example.com", port=1001, host_keys=["ssh-ed25519 AAAA"])
    other_api.notebooks["demo"] = notebook_json("demo", host="2.example.com", port=1002, host_keys=["ssh-ed25519 AAAA"])
    other_api.notebooks["only"] = notebook_json("only", host="3.example.com", port=1003, host_keys=["ssh-ed25519 AAAA"])
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    addresses = {
        name: laptop.run_client("address", name).stdout for name in ("demo", "demo.two", "only", "only.two.notebook")
    }
    assert addresses == {
        "demo": "1.example.com 1001\n",
        "demo.two": "2.example.com 1002\n",
        "only": "3.example.com 1003\n",
        "only.two.notebook": "3.example.com 1003\n",
    }
    output = laptop.run_client("list").stdout
    assert "STACK" in output
    assert "two" in output


def test_error_of_a_stack_does_not_fall_back_to_the_next(laptop: Any, api: Any, other_api: Any) -> None:
    other_api.notebooks["demo"] = notebook_json("demo", host="2.example.com", port=1002, host_keys=["ssh-ed25519 AAAA"])
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    api.queued_responses.append((403, {"message": "Forbidden"}))
    assert laptop.run_client("address", "demo").returncode == 3
    assert laptop.run_client("address", "demo").stdout == "2.example.com 1002\n"


def test_error_of_a_stack_keeps_its_names(laptop: Any, api: Any, other_api: Any) -> None:
    api.notebooks["here"] = notebook_json("here")
    other_api.notebooks["there"] = notebook_json("there")
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    other_api.queued_responses.append((403, {"message": "Forbidden"}))
    result = laptop.run_client("list")
    assert result.returncode == 3
    assert "here" in result.stdout
    assert "Host there\n" in (laptop.home / "hosts").read_text()


def test_unreadable_ssh_config_is_reported(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    with pytest.raises(CliError, match=r"cannot read .*config"):
        ssh_files.install(str(tmp_path / "home"), str(tmp_path / "config"))


@pytest.mark.posix
def test_unwritable_ssh_config_reports_the_line_to_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    config, home = tmp_path / "config", tmp_path / "home"
    config.write_bytes(b"Host a\n")
    monkeypatch.setattr(files, "write_atomically", refuse)
    with pytest.raises(CliError, match=f"Permission denied.*add this line at its top: Include {home}/hosts"):
        ssh_files.install(str(home), str(config))
    assert config.read_bytes() == b"Host a\n"


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026", (9, 2)),
        ("OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2", (8, 1)),
        ("OpenSSH_10.0p2, LibreSSL 3.3.6", (10, 0)),
        ("Sun_SSH_1.1.5", None),
    ],
)
def test_ssh_version_is_parsed(output: str, version: tuple[int, int] | None) -> None:
    assert ssh_programs.parse_version(output) == version


def test_labels_are_unique(tmp_path: Path) -> None:
    home = str(tmp_path)
    for region in ("eu-west-1", "us-east-1", "eu-west-1"):
        saved = settings.add_stack(home, Stack("team", "team", region, f"https://{region}"), "config")
    assert [stack.label for stack in saved.stacks] == ["team", "team-us-east-1"]


def test_region_is_read_from_the_api_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    stack = discovery.discover_stack("team", None, None, "https://abc.execute-api.eu-north-1.amazonaws.com/v1/")
    assert (stack.region, stack.api_url) == ("eu-north-1", "https://abc.execute-api.eu-north-1.amazonaws.com/v1")


@pytest.mark.posix
def test_lock_is_exclusive(tmp_path: Path) -> None:
    import fcntl

    path = tmp_path / "lock"
    with files.lock(str(path)), path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_api_url_is_read_from_the_stacks_outputs(laptop: Any, api: Any, cloudformation: Any) -> None:
    cloudformation.outputs["team"] = {"TableName": "t", "ApiUrl": api.url}
    result = laptop.run_client("setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", REGION)
    assert result.returncode == 0, result.stderr
    assert settings.load_settings(str(laptop.home)).stacks == [Stack("team", "team", REGION, api.url)]


@pytest.mark.parametrize(
    ("stack", "message"), [("missing", "stack missing does not exist in eu-west-1"), ("other", "has no output ApiUrl")]
)
def test_wrong_stack_is_reported(laptop: Any, cloudformation: Any, stack: str, message: str) -> None:
    cloudformation.outputs["other"] = {"Bucket": "b"}
    result = laptop.run_client("setup", "--ssh-config", str(laptop.config), "--stack", stack, "--region", REGION)
    assert (result.returncode != 0, message in result.stderr, result.stderr.count("\n")) == (True, True, 1), (
        result.stderr
    )
    assert not laptop.home.exists()
