"""The ssh_config texts: the section is inserted and removed byte for byte, and no other host is affected."""

from __future__ import annotations

import codecs
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, strategies as st

from notebook_ssh_client import ssh_config, ssh_names
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_config import ClientCommand

INCLUDE = "~/.ssh/notebook-ssh/hosts"
COMMAND = ClientCommand("/opt/client/bin/python", None, True, INCLUDE, "~/.ssh/notebook-ssh/known_hosts")

# Lines of an ssh_config, and arbitrary bytes.
LINES = st.lists(
    st.sampled_from(
        [b"Host *", b"  User me", b"# a comment", b"", b"\tPort 22", b"Include other", b"\xff\xfe", b"\x00"]
    )
)
TEXTS = st.one_of(
    st.binary(),
    st.builds(bytes.join, st.sampled_from([b"\n", b"\r\n", b"\r"]), LINES),
    st.builds(lambda text: codecs.BOM_UTF8 + text, st.binary()),
).filter(lambda text: b"notebook-ssh" not in text)


def hosts_file(command: ClientCommand, names: dict[str, list[str]], labels: list[str]) -> str:
    """Return the hosts file for notebooks whose short names are all free."""
    return ssh_config.hosts_file(command, ssh_config.ssh_names(names, labels, lambda _: True), labels)


@given(TEXTS)
@example(b"")
@example(b"Host a\n  User b")
@example(b"Host a\r\n\tUser b\r\n")
@example(codecs.BOM_UTF8)
def test_remove_is_the_inverse_of_insert(text: bytes) -> None:
    inserted = ssh_config.insert_section(text, INCLUDE)
    assert ssh_config.remove_section(inserted) == text
    assert ssh_config.insert_section(inserted, INCLUDE) == inserted
    assert inserted.endswith(text.removeprefix(codecs.BOM_UTF8))


@given(TEXTS)
def test_insert_replaces_an_existing_section(text: bytes) -> None:
    first = ssh_config.insert_section(text, "one")
    assert ssh_config.insert_section(first, "two") == ssh_config.insert_section(text, "two")


def test_section_has_the_line_endings_of_the_file() -> None:
    assert ssh_config.insert_section(b"Host a\r\n", INCLUDE).count(b"\r\n") == 4
    assert ssh_config.insert_section(b"Host a\n  User b\r\n", INCLUDE).count(b"\r\n") == 1


def test_section_that_the_user_moved_is_removed() -> None:
    section = ssh_config.insert_section(b"", INCLUDE)
    assert ssh_config.remove_section(b"Host a\n" + section + b"Host b\n") == b"Host a\nHost b\n"


@pytest.mark.parametrize("missing", [0, 2])
def test_damaged_markers_are_reported(missing: int) -> None:
    lines = ssh_config.insert_section(b"Host a\n", INCLUDE).splitlines(keepends=True)
    damaged = b"".join(line for number, line in enumerate(lines) if number != missing)
    with pytest.raises(CliError, match=r"markers .* are damaged \(lines \d\)"):
        ssh_config.insert_section(damaged, INCLUDE)


def test_every_notebook_has_a_host_entry_above_match() -> None:
    text = hosts_file(COMMAND, {"team": ["Demo", "abc"]}, ["team"])
    assert "Host Demo demo\n    HostName demo.notebook\n" in text
    assert "Host abc\n    HostName abc.notebook\n" in text
    assert text.index("Host abc") < text.index("Match host")
    assert "StrictHostKeyChecking yes" in text


def test_same_name_in_two_stacks_refers_to_the_first() -> None:
    text = hosts_file(COMMAND, {"one": ["demo"], "two": ["demo", "other"]}, ["one", "two"])
    assert text.count("Host demo\n") == 1
    assert "HostName demo.notebook\n" in text
    assert "HostName other.two.notebook\n" in text


def test_older_openssh_gets_no_unsupported_option() -> None:
    older = ClientCommand(COMMAND.python, None, False, COMMAND.hosts_path, COMMAND.known_hosts_path)
    assert "KnownHostsCommand" in hosts_file(COMMAND, {}, ["team"])
    assert "KnownHostsCommand" not in hosts_file(older, {}, ["team"])
    assert "proxy --max-age 60 " in ssh_config.proxy_command(older)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("host", "is_notebook"),
    [("x.notebook", True), ("demo", True), ("example.com", False), ("notebook", False), ("demo2", False)],
)
def test_options_apply_to_notebooks_only(tmp_path: Path, host: str, is_notebook: bool) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(hosts_file(COMMAND, {"team": ["demo"]}, ["team"]))
    config = tmp_path / "config"
    config.write_bytes(ssh_config.insert_section(b"Port 2222\nHost *\n  ConnectTimeout 7\n", str(hosts)))
    options = evaluate(config, host)
    assert ("proxycommand" in options) is is_notebook
    assert options["port"] == ("22" if is_notebook else "2222")
    assert options["connecttimeout"] == ("1200" if is_notebook else "7")


@pytest.mark.posix
@pytest.mark.parametrize("host", ["demo", "new.notebook"])
def test_options_of_the_user_for_all_hosts_do_not_override(tmp_path: Path, host: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(hosts_file(COMMAND, {"team": ["demo"]}, ["team"]))
    user_config = (
        b"Host *\n  HostName %h.corp\n  ProxyJump jump\n  StrictHostKeyChecking no\n  User me\n  ForwardAgent yes\n"
    )
    config = tmp_path / "config"
    config.write_bytes(ssh_config.insert_section(user_config, str(hosts)))
    options = evaluate(config, host)
    assert (options["hostname"], options["user"]) == (f"{host.partition('.')[0]}.notebook", "ec2-user")
    assert options["stricthostkeychecking"] in ("true", "yes")
    assert "proxyjump" not in options
    assert options["forwardagent"] == "yes"


def test_name_with_a_quote_is_not_matched() -> None:
    # OpenSSH 9.6 and newer rejects such names itself; older versions pass them to the shell.
    text = hosts_file(COMMAND, {"team": ["demo"]}, ["team"])
    assert 'Match host "*.notebook,!*\'*"\n' in text
    assert all(" '%h' %p" in line for line in text.splitlines() if "ProxyCommand" in line)


@pytest.mark.posix
@pytest.mark.parametrize("host", ["demo", "demo.notebook"])
def test_options_of_the_user_for_notebooks_apply(tmp_path: Path, host: str) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(hosts_file(COMMAND, {"team": ["demo"]}, ["team"]))
    config = tmp_path / "config"
    config.write_bytes(
        ssh_config.insert_section(b"Host other\n  Port 1\nMatch host demo.notebook\n  ForwardAgent yes\n", str(hosts))
    )
    options = evaluate(config, host)
    assert (options["forwardagent"], options["port"]) == ("yes", "22")


@pytest.mark.posix
def test_hosts_file_with_ten_thousand_notebooks(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text(hosts_file(COMMAND, {"team": [f"notebook-{n}" for n in range(10_000)]}, ["team"]))
    config = tmp_path / "config"
    config.write_bytes(ssh_config.insert_section(b"", str(hosts)))
    assert evaluate(config, "notebook-9999")["hostname"] == "notebook-9999.notebook"


def test_etc_hosts_is_parsed() -> None:
    text = "127.0.0.1 localhost Box # not this\n\n# 10.0.0.1 nor-this\n10.0.0.2\tgit git.example.com\n"
    assert ssh_names.etc_hosts_names(text) == {"localhost", "box", "git", "git.example.com"}


@pytest.mark.posix
@pytest.mark.parametrize("hashed", [False, True])
def test_known_hosts_is_parsed_plain_and_hashed(tmp_path: Path, hashed: bool) -> None:
    file = tmp_path / "known_hosts"
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    file.write_text(f"# a comment\nGit,10.0.0.1 {key}\n[build]:2222 {key}\n@revoked old {key}\n\n|1|torn {key}\n")
    if hashed:
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    known_hosts = ssh_names.KnownHosts(file.read_text())
    assert bool(known_hosts.hashed) is hashed
    assert "git" in known_hosts
    assert "GIT" in known_hosts
    assert "demo" not in known_hosts
    assert hashed or {"build", "old"} <= known_hosts.plain


@pytest.mark.parametrize(
    ("path", "quoted"),
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
def test_join_command_quotes_paths_of_every_system(path: str, quoted: str) -> None:
    assert ssh_config.join_command([path, "-I"], for_shell=True) == f"{quoted} -I"


@pytest.mark.parametrize("path", ["/home/$(x)/python", "/home/`x`/python", 'C:\\a"b', "/a\nb"])
def test_join_command_rejects_shell_metacharacters(path: str) -> None:
    with pytest.raises(CliError, match="another folder"):
        ssh_config.join_command([path], for_shell=True)


@pytest.mark.posix
@given(st.from_regex(r"/[A-Za-z0-9 &;()'|<>*?!#~éß.-]{1,30}", fullmatch=True))
def test_shell_parses_the_same_arguments(path: str) -> None:
    line = ssh_config.join_command([path, "proxy"], for_shell=True)
    output = subprocess.run(["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert output == f"{path}\nproxy\n"


def evaluate(config: Path, host: str) -> dict[str, str]:
    """Return the options that ssh uses for `host` with `config`."""
    result = subprocess.run(["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)


# ---- certificates --------------------------------------------------------------------------------


def check(python: str, *, for_posix: bool = True) -> str | None:
    return ssh_config.certificate_check(replace(COMMAND, python=python), for_posix=for_posix)


@pytest.mark.parametrize(
    ("python", "posix", "windows"),
    [
        ("/opt/client/bin/python", "/opt/client/bin/python -I -m notebook_ssh_client certificate '%h'", True),
        ("/home/a b/python", "'/home/a b/python' -I -m notebook_ssh_client certificate '%h'", False),
        ("/home/$(x)`y`/python", "'/home/$(x)`y`/python' -I -m notebook_ssh_client certificate '%h'", False),
        ("/home/100%/python", "'/home/100%%/python' -I -m notebook_ssh_client certificate '%h'", False),
        ("/home/o'neil/python", None, False),
        ('/home/"x"/python', None, False),
        ("/home/a\\b/python", None, False),
        ("/home/a\nb/python", None, False),
        ("C:/Users/ana/python.exe", "C:/Users/ana/python.exe -I -m notebook_ssh_client certificate '%h'", True),
    ],
)
def test_the_command_for_certificates_is_quoted_or_left_out(python: str, posix: str | None, windows: bool) -> None:
    assert check(python) == posix
    told = check(python, for_posix=False)
    assert told == (f"{python} -I -m notebook_ssh_client certificate %h" if windows else None)


def test_windows_gets_listed_names_alone() -> None:
    names = [f"n{number}.notebook" for number in range(20)]
    lists = ssh_config.certificate_hosts(names, ["other"], literal=True)
    assert [len(each.split(",")) for each in lists] == [16, 4]
    assert not set("*?!'") & set("".join(lists))


@pytest.mark.posix
@given(st.from_regex(r"/[A-Za-z0-9 &;()|<>*?!#~$`{}.%-]{1,30}", fullmatch=True))
def test_the_shell_that_ssh_runs_gets_the_path_of_the_client(path: str) -> None:
    command = check(path)
    assert command
    expanded = command.replace("%%", "\0").replace("%h", "a.notebook").replace("\0", "%")
    done = subprocess.run(["sh", "-c", f"printf '%s\\n' {expanded}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [path, "-I", "-m", "notebook_ssh_client", "certificate", "a.notebook"]
