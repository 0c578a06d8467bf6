"""`notebook-ssh setup` and `--remove`: what they change, what they leave, and what they say."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
from laptop import REGION, described

from notebook_ssh_client import discovery, files, ssh_files, stacks
from notebook_ssh_client.failures import Failure
from notebook_ssh_client.stacks import Stack


def test_setup_and_remove_leave_the_configuration_as_it_was(laptop: Any, api: Any) -> None:
    before = laptop.config.read_bytes()
    laptop.set_up(api)
    assert laptop.config.read_bytes() != before
    assert laptop.client("setup", "--remove").returncode == 0
    assert laptop.config.read_bytes() == before
    assert not laptop.home.exists()


def test_setup_twice_changes_nothing_more(laptop: Any, api: Any) -> None:
    laptop.set_up(api)
    once = (laptop.config.read_bytes(), (laptop.home / "stacks.json").read_text())
    laptop.set_up(api)
    assert (laptop.config.read_bytes(), (laptop.home / "stacks.json").read_text()) == once


def test_a_configuration_that_setup_made_is_taken_away(laptop: Any, api: Any) -> None:
    laptop.config.unlink()
    laptop.set_up(api)
    assert stat.S_IMODE(laptop.config.stat().st_mode) == 0o600
    laptop.client("setup", "--remove")
    assert not laptop.config.exists()


def test_an_empty_configuration_stays(laptop: Any, api: Any) -> None:
    laptop.config.write_bytes(b"")
    laptop.set_up(api)
    laptop.client("setup", "--remove")
    assert laptop.config.read_bytes() == b""


def test_a_notebook_is_never_taken_for_a_host_that_has_the_name_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever names a notebook would else stand in colleagues' way to their own machine, or to a server they know."""
    monkeypatch.setattr(files, "ssh_folder", lambda: str(tmp_path))
    monkeypatch.setattr(ssh_files.socket, "gethostname", lambda: "Dependencies.example.com")
    (tmp_path / "known_hosts").write_text("git ssh-ed25519 AAAA\n")
    (tmp_path / "config").write_text("Host build\n")
    home = tmp_path / "notebook-ssh"
    home.mkdir()
    names = ["localhost", "Dependencies", "git", "build", "demo"]
    ssh_files.write_hosts(str(home), str(tmp_path / "config"), {"team": names}, ["team"])
    hosts = (home / "hosts").read_text()
    assert [line for line in hosts.splitlines() if line.startswith("Host ")] == ["Host demo"]


def test_link_permissions_and_first_backup_are_kept(laptop: Any, api: Any) -> None:
    dotfiles = laptop.folder / "dotfiles"
    before = laptop.config.read_bytes()
    laptop.config.rename(dotfiles)
    dotfiles.chmod(0o640)
    laptop.config.symlink_to(dotfiles)
    laptop.set_up(api)
    assert laptop.config.is_symlink()
    assert stat.S_IMODE(dotfiles.stat().st_mode) == 0o640
    backup = Path(f"{laptop.config}{ssh_files.BACKUP_SUFFIX}")
    assert backup.read_bytes() == before
    laptop.client("setup", "--remove")
    laptop.config.write_bytes(b"Host new\n")
    laptop.set_up(api)
    assert backup.read_bytes() == before


def test_our_files_are_for_their_owner_alone(laptop: Any, api: Any) -> None:
    laptop.set_up(api)
    assert stat.S_IMODE(laptop.home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in laptop.home.iterdir() if path.is_file()} == {0o600}


def test_remove_leaves_what_others_put_there(laptop: Any, api: Any) -> None:
    laptop.set_up(api)
    (laptop.home / "notes").write_text("mine")
    laptop.client("setup", "--remove")
    assert [path.name for path in laptop.home.iterdir()] == ["notes"]


def test_nothing_to_remove_is_said(laptop: Any) -> None:
    done = laptop.client("setup", "--remove")
    assert (done.returncode, done.stderr) == (0, "there is nothing to remove\n")


def test_a_stack_that_refuses_changes_nothing(laptop: Any, api: Any) -> None:
    before = laptop.config.read_bytes()
    api.refusals.append((403, {"Message": "User: arn:aws:sts::1:assumed-role/x/y is not authorized"}))
    done = laptop.client(
        "setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", REGION, "--api", api.url
    )
    assert done.returncode == 3
    assert "stack team does not let your AWS identity ask" in done.stderr
    assert laptop.config.read_bytes() == before
    assert not laptop.home.exists()


def test_names_of_ones_own_are_not_taken(laptop: Any, api: Any) -> None:
    (laptop.folder / "work").write_text("Host build-*\n  User ci\n")
    laptop.config.write_text(f'Host demo\n  HostName demo.example.com\nInclude "{laptop.folder}/work"\n')
    for name in ("demo", "build-1", "free"):
        api.notebooks[name] = described(name)
    laptop.set_up(api)
    hosts = (laptop.home / "hosts").read_text()
    assert [line for line in hosts.splitlines() if line.startswith("Host ")] == ["Host free"]


def test_several_stacks(laptop: Any, api: Any, other_api: Any) -> None:
    api.notebooks["demo"] = described("demo", host="1.example.com", port=1001, host_keys=["ssh-ed25519 AAAA"])
    other_api.notebooks["demo"] = described("demo", host="2.example.com", port=1002, host_keys=["ssh-ed25519 AAAA"])
    other_api.notebooks["only"] = described("only", host="3.example.com", port=1003, host_keys=["ssh-ed25519 AAAA"])
    laptop.set_up(api, "one")
    laptop.set_up(other_api, "two")
    answers = {
        name: laptop.client("address", name).stdout for name in ("demo", "demo.two", "only", "only.two.notebook")
    }
    assert answers == {
        "demo": "1.example.com 1001\n",
        "demo.two": "2.example.com 1002\n",
        "only": "3.example.com 1003\n",
        "only.two.notebook": "3.example.com 1003\n",
    }
    listed = laptop.client("list").stdout
    assert "STACK" in listed
    assert "two" in listed


def test_a_stack_that_fails_does_not_lend_its_names_to_the_next(laptop: Any, api: Any, other_api: Any) -> None:
    other_api.notebooks["demo"] = described("demo", host="2.example.com", port=1002, host_keys=["ssh-ed25519 AAAA"])
    laptop.set_up(api, "one")
    laptop.set_up(other_api, "two")
    api.refusals.append((403, {"message": "Forbidden"}))
    assert laptop.client("address", "demo").returncode == 3
    assert laptop.client("address", "demo").stdout == "2.example.com 1002\n"


def test_a_stack_that_fails_keeps_its_names(laptop: Any, api: Any, other_api: Any) -> None:
    api.notebooks["here"] = described("here")
    other_api.notebooks["there"] = described("there")
    laptop.set_up(api, "one")
    laptop.set_up(other_api, "two")
    other_api.refusals.append((403, {"message": "Forbidden"}))
    done = laptop.client("list")
    assert done.returncode == 3
    assert "here" in done.stdout
    assert "Host there\n" in (laptop.home / "hosts").read_text()


def test_a_notebook_that_is_off_has_no_entry(laptop: Any, api: Any) -> None:
    api.notebooks["demo"] = described("demo", "off", mode="off")
    laptop.set_up(api)
    assert "Host demo" not in (laptop.home / "hosts").read_text()


def test_an_ssh_configuration_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    with pytest.raises(Failure, match="config cannot be read"):
        ssh_files.install(str(tmp_path / "home"), str(tmp_path / "config"))


@pytest.mark.posix
def test_an_ssh_configuration_that_cannot_be_written_says_what_to_add(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    config, home = tmp_path / "config", tmp_path / "home"
    config.write_bytes(b"Host a\n")
    monkeypatch.setattr(files, "replace", refuse)
    with pytest.raises(Failure, match=f"Permission denied.*put this line at its top yourself: Include {home}/hosts"):
        ssh_files.install(str(home), str(config))
    assert config.read_bytes() == b"Host a\n"


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026", (9, 2)),
        ("OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2", (8, 1)),
        ("OpenSSH_10.0p2, LibreSSL 3.3.6", (10, 0)),
        ("Sun_SSH_1.1.5", None),
    ],
)
def test_the_version_of_ssh_is_read(printed: str, version: tuple[int, int] | None) -> None:
    assert ssh_files.version_in(printed) == version


def test_labels_are_made_unique(tmp_path: Path) -> None:
    home = str(tmp_path)
    for region in ("eu-west-1", "us-east-1", "eu-west-1"):
        known = stacks.add(home, Stack("team", "team", region, f"https://{region}"), "config")
    assert [stack.label for stack in known.stacks] == ["team", "team-us-east-1"]


def test_the_region_is_read_from_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    stack = discovery.discover("team", None, None, "https://abc.execute-api.eu-north-1.amazonaws.com/v1/")
    assert (stack.region, stack.api) == ("eu-north-1", "https://abc.execute-api.eu-north-1.amazonaws.com/v1")


@pytest.mark.posix
def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    import fcntl

    lock = tmp_path / "lock"
    with files.locked(str(lock)), lock.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_the_api_is_found_by_the_stacks_outputs(laptop: Any, api: Any, cloudformation: Any) -> None:
    cloudformation.outputs["team"] = {"TableName": "t", "ApiUrl": api.url}
    done = laptop.client("setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", REGION)
    assert done.returncode == 0, done.stderr
    assert stacks.load(str(laptop.home)).stacks == [Stack("team", "team", REGION, api.url)]


@pytest.mark.parametrize(
    ("stack", "says"), [("nobody", "there is no stack called nobody in eu-west-1"), ("other", "has no output ApiUrl")]
)
def test_a_stack_that_is_not_ours_is_named(laptop: Any, cloudformation: Any, stack: str, says: str) -> None:
    cloudformation.outputs["other"] = {"Bucket": "b"}
    done = laptop.client("setup", "--ssh-config", str(laptop.config), "--stack", stack, "--region", REGION)
    assert (done.returncode != 0, says in done.stderr, done.stderr.count("\n")) == (True, True, 1), done.stderr
    assert not laptop.home.exists()
