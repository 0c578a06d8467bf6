"""The texts that ssh reads: our section goes in and out without a trace, and only our names are claimed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from notebook_ssh_client import ssh_config
from notebook_ssh_client.failures import Failure
from notebook_ssh_client.ssh_config import Commands

INCLUDE = "~/.ssh/notebook-ssh/hosts"
HERE = Commands("/opt/client/bin/python", None, True, INCLUDE, "~/.ssh/notebook-ssh/known_hosts")

# Lines that look like a configuration, and bytes that look like nothing.
LINES = st.lists(
    st.sampled_from(
        [b"Host *", b"  User me", b"# a comment", b"", b"\tPort 22", b"Include other", b"\xff\xfe", b"\x00"]
    )
)
TEXTS = st.one_of(
    st.binary(),
    st.builds(bytes.join, st.sampled_from([b"\n", b"\r\n", b"\r"]), LINES),
    st.builds(lambda text: ssh_config.BYTE_ORDER_MARK + text, st.binary()),
).filter(lambda text: b"notebook-ssh" not in text)


@given(TEXTS)
@example(b"")
@example(b"Host a\n  User b")
@example(b"Host a\r\n\tUser b\r\n")
@example(ssh_config.BYTE_ORDER_MARK)
def test_what_goes_in_comes_out_without_a_trace(text: bytes) -> None:
    spliced = ssh_config.splice(text, INCLUDE)
    assert ssh_config.strip(spliced) == text
    assert ssh_config.splice(spliced, INCLUDE) == spliced
    assert spliced.endswith(text.removeprefix(ssh_config.BYTE_ORDER_MARK))


@given(TEXTS)
def test_another_include_takes_the_place_of_the_first(text: bytes) -> None:
    first = ssh_config.splice(text, "one")
    assert ssh_config.splice(first, "two") == ssh_config.splice(text, "two")


def test_the_section_speaks_the_line_ends_of_the_file() -> None:
    assert ssh_config.splice(b"Host a\r\n", INCLUDE).count(b"\r\n") == 4
    assert ssh_config.splice(b"Host a\n  User b\r\n", INCLUDE).count(b"\r\n") == 1


def test_a_section_that_a_person_moved_is_still_taken_away() -> None:
    section = ssh_config.splice(b"", INCLUDE)
    assert ssh_config.strip(b"Host a\n" + section + b"Host b\n") == b"Host a\nHost b\n"


@pytest.mark.parametrize("cut", [0, 2])
def test_damaged_markers_change_nothing_and_are_named(cut: int) -> None:
    lines = ssh_config.splice(b"Host a\n", INCLUDE).splitlines(keepends=True)
    damaged = b"".join(line for number, line in enumerate(lines) if number != cut)
    with pytest.raises(Failure, match=r"not one pair \(lines \d\)"):
        ssh_config.splice(damaged, INCLUDE)


def test_every_notebook_has_an_entry_and_the_rules_follow() -> None:
    text = ssh_config.hosts_file(HERE, {"team": ["Demo", "abc"]}, ["team"])
    assert "Host Demo demo\n    HostName demo.notebook\n" in text
    assert "Host abc\n    HostName abc.notebook\n" in text
    assert text.index("Host abc") < text.index("Match host")
    assert "StrictHostKeyChecking yes" in text


def test_a_name_that_two_stacks_know_means_the_first_one() -> None:
    text = ssh_config.hosts_file(HERE, {"one": ["demo"], "two": ["demo", "other"]}, ["one", "two"])
    assert text.count("Host demo\n") == 1
    assert "HostName demo.notebook\n" in text
    assert "HostName other.two.notebook\n" in text


def test_an_older_openssh_is_not_told_of_what_it_does_not_know() -> None:
    older = Commands(HERE.python, None, False, HERE.hosts, HERE.known_hosts)
    assert "KnownHostsCommand" in ssh_config.hosts_file(HERE, {}, ["team"])
    assert "KnownHostsCommand" not in ssh_config.hosts_file(older, {}, ["team"])
    assert "proxy --max-age 60 " in ssh_config.proxy_command(older)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("host", "ours"),
    [("x.notebook", True), ("demo", True), ("example.com", False), ("notebook", False), ("demo2", False)],
)
def test_ssh_itself_sees_our_settings_for_our_names_alone(tmp_path: Path, host: str, ours: bool) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(ssh_config.hosts_file(HERE, {"team": ["demo"]}, ["team"]))
    config = tmp_path / "config"
    config.write_bytes(ssh_config.splice(b"Port 2222\nHost *\n  ConnectTimeout 7\n", str(hosts)))
    seen = evaluated(config, host)
    assert ("proxycommand" in seen) is ours
    assert seen["port"] == ("22" if ours else "2222")
    assert seen["connecttimeout"] == ("1200" if ours else "7")


@pytest.mark.posix
@pytest.mark.parametrize("host", ["demo", "new.notebook"])
def test_settings_for_all_hosts_do_not_get_in_the_way(tmp_path: Path, host: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(ssh_config.hosts_file(HERE, {"team": ["demo"]}, ["team"]))
    theirs = (
        b"Host *\n  HostName %h.corp\n  ProxyJump jump\n  StrictHostKeyChecking no\n  User me\n  ForwardAgent yes\n"
    )
    config = tmp_path / "config"
    config.write_bytes(ssh_config.splice(theirs, str(hosts)))
    seen = evaluated(config, host)
    assert (seen["hostname"], seen["user"]) == (f"{host.partition('.')[0]}.notebook", "ec2-user")
    assert seen["stricthostkeychecking"] in ("true", "yes")
    assert "proxyjump" not in seen
    assert seen["forwardagent"] == "yes"


def test_a_name_with_a_quote_in_it_is_not_ours() -> None:
    # An ssh that checks names itself (9.6) never gets so far; an older one hands them to the shell.
    text = ssh_config.hosts_file(HERE, {"team": ["demo"]}, ["team"])
    assert 'Match host "*.notebook,!*\'*"\n' in text
    assert all(" '%h' %p" in line for line in text.splitlines() if "ProxyCommand" in line)


@pytest.mark.posix
@pytest.mark.parametrize("host", ["demo", "demo.notebook"])
def test_settings_of_ones_own_for_notebooks(tmp_path: Path, host: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(ssh_config.hosts_file(HERE, {"team": ["demo"]}, ["team"]))
    config = tmp_path / "config"
    config.write_bytes(
        ssh_config.splice(b"Host other\n  Port 1\nMatch host demo.notebook\n  ForwardAgent yes\n", str(hosts))
    )
    seen = evaluated(config, host)
    assert (seen["forwardagent"], seen["port"]) == ("yes", "22")


@pytest.mark.posix
def test_ten_thousand_notebooks_are_read_at_once(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(ssh_config.hosts_file(HERE, {"team": [f"notebook-{n}" for n in range(10_000)]}, ["team"]))
    config = tmp_path / "config"
    config.write_bytes(ssh_config.splice(b"", str(hosts)))
    assert evaluated(config, "notebook-9999")["hostname"] == "notebook-9999.notebook"


@pytest.mark.parametrize(
    ("theirs", "name", "spoken"),
    [
        ("Host demo", "demo", True),
        ("Host other Demo", "demo", True),
        ('host="demo"', "demo", True),
        ("  HOST demo-?", "demo-1", True),
        ("Host *\n Host ??", "demo", False),
        ("Host * !demo", "demo", False),
        ("Host de* !demo", "demo", False),
        ("Host de* !demo", "debt", True),
        ("HostName demo", "demo", False),
        ("# Host demo", "demo", False),
    ],
)
def test_names_of_the_persons_own_configuration_are_left_alone(theirs: str, name: str, spoken: bool) -> None:
    assert ssh_config.spoken_of(name, ssh_config.host_patterns(theirs)) is spoken


def test_hosts_of_this_machine_are_read_as_hosts_5_writes_them() -> None:
    text = "127.0.0.1 localhost Box # not this\n\n# 10.0.0.1 nor-this\n10.0.0.2\tgit git.example.com\n"
    assert ssh_config.hosts_of_this_machine(text) == {"localhost", "box", "git", "git.example.com"}


@pytest.mark.posix
@pytest.mark.parametrize("hashed", [False, True])
def test_known_hosts_are_found_plain_and_hashed(tmp_path: Path, hashed: bool) -> None:
    file = tmp_path / "known_hosts"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    file.write_text(f"# a comment\nGit,10.0.0.1 {key}\n[build]:2222 {key}\n@revoked old {key}\n\n|1|torn {key}\n")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    known = ssh_config.KnownHosts(file.read_text())
    assert bool(known.hashed) is hashed
    assert "git" in known
    assert "GIT" in known
    assert "demo" not in known
    assert hashed or {"build", "old"} <= known.plain


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        (r"C:\Users\Ana Maria\pipx\python.exe", '"C:/Users/Ana Maria/pipx/python.exe"'),
        (r"C:\Users\ana\python.exe", "C:/Users/ana/python.exe"),
        (r"C:\Users\a&b (x)\python.exe", '"C:/Users/a&b (x)/python.exe"'),
        ("/home/100%/python", "/home/100%%/python"),
        ("/home/o'neil/python", '"/home/o\'neil/python"'),
        ("/home/josé/python", '"/home/josé/python"'),
    ],
)
def test_paths_of_every_system_become_one_word(path: str, written: str) -> None:
    assert ssh_config.command_line([path, "-I"], through_a_shell=True) == f"{written} -I"


@pytest.mark.parametrize("path", ["/home/$(x)/python", "/home/`x`/python", 'C:\\a"b', "/a\nb"])
def test_a_path_that_a_shell_would_read_is_refused(path: str) -> None:
    with pytest.raises(Failure, match="another folder"):
        ssh_config.command_line([path], through_a_shell=True)


@pytest.mark.posix
@given(st.from_regex(r"/[A-Za-z0-9 &;()'|<>*?!#~éß.-]{1,30}", fullmatch=True))
def test_the_shell_reads_back_the_very_words(path: str) -> None:
    line = ssh_config.command_line([path, "proxy"], through_a_shell=True)
    read = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert read == f"{path}\nproxy\n"


def evaluated(config: Path, host: str) -> dict[str, str]:
    """What ssh makes of `config` for `host`."""
    done = subprocess.run(["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
