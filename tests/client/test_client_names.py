"""Which short names are the client's, and which are left to the user: decided as ssh itself would, without a process."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.laptop import notebook_json

from notebook_ssh_client import name_list, ssh_config, ssh_files
from patience import LIMIT_S

# The user's ssh_config, and whether it speaks of the name `demo`.
CONFIGURATIONS: dict[str, tuple[str, bool]] = {
    "its own entry": ("Host demo", True),
    "in other letters": ("Host other Demo", True),
    "with an equals sign": ('host="demo"', True),
    "a pattern": ("  HOST d?m*", True),
    "every host": ("Host *", False),
    "two wildcards": ("Host *\nHost ??", False),
    "every host but this": ("Host * !demo", False),
    "a pattern without this": ("Host de* !demo", False),
    "a pattern without another": ("Host de* !debt", True),
    "another keyword": ("HostName demo", False),
    "a comment": ("# Host demo", False),
    "match host": ("Match host demo", True),
    "match host in a list": ("Match host web,demo", True),
    "match host, pattern": ("Match host d?mo", True),
    "match host, other letters": ("match HOST Demo", True),
    "match host, equals sign": ("Match host=demo", True),
    "match host, quoted": ('Match host "web,demo"', True),
    "match host, every host": ("Match host *", False),
    "match host, negated": ("Match host d*,!demo", False),
    "match host, another": ("Match host web", False),
    "match host, the suffix": ("Match host *.notebook", False),
    "match host, the long name": ("Match host demo.notebook", False),
    "match originalhost": ("Match originalhost demo", True),
    "match originalhost, negated": ("Match originalhost *,!demo", False),
    "match all": ("Match all", False),
    "match user": ("Match user me", False),
    "match host and user": ("Match host demo user me", True),
    "match user and host": ("Match user me host demo", True),
    "match final": ("Match final host demo", True),
    "match canonical": ("Match canonical originalhost demo", True),
    "match, not this host": ("Match !host demo", False),
    "match, not another host": ("Match !host web", False),
    "match exec": ('Match exec "true"', True),
    "match exec, another host": ('Match host web exec "true"', False),
    "match exec, this host": ('Match exec "test x" host demo', True),
    "match exec, not this host": ('Match originalhost *,!demo exec "true"', False),
    "a criterion of a newer ssh": ("Match something demo", True),
    "an unknown criterion elsewhere": ("Match host web something demo", False),
    "match localnetwork": ("Match localnetwork 10.0.0.0/8", False),
    "match tagged": ("Match tagged work", False),
    "a comment behind it": ("Match host web # demo", False),
    "no criterion": ("Match", False),
    "quotes around a part": ('Host "de"mo', True),
    "single quotes": ("Match host 'web,demo'", True),
    "a quote inside quotes": (r'Host "de\"mo" web', False),
    "a space inside a word": (r"Host demo\ web", False),
    "an Include with quotes around a part": ('Include "/"not-there/*', False),
    "an Include that ssh expands by host": ("Include %h.conf", True),
    "an Include by an unset variable": ("Include ${NOT_SET_HERE}/x", True),
    "an Include that is not there": ("Include not-there/*.conf", False),
}


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read no configuration and no known hosts of the machine that the tests run on."""
    monkeypatch.setattr(ssh_files, "system_config_path", lambda: "/not-there/ssh_config")
    monkeypatch.setattr(ssh_files, "known_hosts_paths", list)


@pytest.mark.parametrize(("text", "is_the_users"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_name_that_the_user_configures_is_the_users(tmp_path: Path, text: str, is_the_users: bool) -> None:
    config = tmp_path / "config"
    config.write_text(f"{text}\n  ForwardAgent yes\n")
    names = ssh_files.read_user_names(str(config), str(tmp_path / "home"))
    assert names.claims("demo") is is_the_users


@pytest.mark.posix
def test_agrees_with_ssh(tmp_path: Path) -> None:
    """ssh applies a line to `demo` if and only if the name is the user's by it; of `Host`, also in other capitals."""
    config = tmp_path / "config"
    keywords = ("Host", "Match host", "Match originalhost")
    patterns = ("demo", "Demo", "d?mo", "d*", "web", "demo.notebook")
    for keyword, pattern, excluded in itertools.product(keywords, patterns, ("", "!demo", "!web")):
        line = f"{keyword} {(' ' if keyword == 'Host' else ',').join(filter(None, (pattern, excluded)))}"
        config.write_text(f"{line}\n  ForwardAgent yes\n")
        applied = ssh_answers(config, "demo")["forwardagent"] == "yes"
        claimed = ssh_files.read_user_names(str(config), str(tmp_path / "home")).claims("demo")
        assert claimed is (applied or (line.startswith("Host Demo") and excluded != "!demo")), line


@pytest.mark.posix
def test_no_notebook_gets_the_agent_of_a_host_of_the_users(laptop: Any, api: Any) -> None:
    laptop.config.write_text(
        "Match originalhost build\n  ForwardAgent yes\n  HostName build.example.com\n"
        "Match host deploy*\n  ForwardAgent yes\n"
    )
    for name in ("build", "deploy-1", "demo"):
        api.notebooks[name] = notebook_json(name)
    laptop.setup(api)
    assert host_entries(laptop) == ["demo"]
    assert ssh_answers(laptop.config, "build")["hostname"] == "build.example.com"
    assert ssh_answers(laptop.config, "deploy-1")["hostname"] == "deploy-1"
    assert ssh_answers(laptop.config, "demo")["forwardagent"] == "no"


@pytest.mark.posix
def test_files_of_the_system_and_their_includes_are_read(
    laptop: Any, api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc"
    (system / "ssh_config.d").mkdir(parents=True)
    (system / "ssh_config").write_text("Host *\n  SendEnv LANG\nInclude ssh_config.d/*.conf\nHost gate\n")
    (system / "ssh_config.d" / "corp.conf").write_text("Match originalhost jump\n")
    monkeypatch.setattr(ssh_files, "system_config_path", lambda: str(system / "ssh_config"))
    names = ssh_files.read_user_names(str(laptop.config), str(laptop.home))
    assert [name for name in ("gate", "jump", "demo") if names.claims(name)] == ["gate", "jump"]


def test_unreadable_include_leaves_every_name_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()  # reading it fails, also for root
    config = tmp_path / "config"
    config.write_text(f'Include "{tmp_path}/folder"\n')
    assert ssh_files.read_user_names(str(config), str(tmp_path / "home")).claims("demo")


@pytest.mark.posix
@pytest.mark.parametrize("spelling", ["MY-NOTEBOOK", "mY-nOTEBOOK"])
@pytest.mark.parametrize("stack", ["one", "two"])
def test_capitals_of_a_name_do_not_matter(laptop: Any, api: Any, other_api: Any, spelling: str, stack: str) -> None:
    (api if stack == "one" else other_api).notebooks["my-notebook"] = notebook_json("My-Notebook")
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    answers = ssh_answers(laptop.config, spelling)
    suffix = ".two" if stack == "two" and "." not in spelling else ""
    assert answers["hostname"].lower() == f"my-notebook{suffix}.notebook"
    assert answers["user"] == "ec2-user"
    assert " proxy " in answers["proxycommand"]


@pytest.mark.posix
def test_refresh_of_a_thousand_names_starts_no_process(laptop: Any, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    laptop.setup(api)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
    known = laptop.folder / "known"
    known.write_text("".join(f"server-{number} {key}\n" for number in range(300)))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", known], check=True, capture_output=True)
    monkeypatch.setattr(ssh_files, "known_hosts_paths", lambda: [str(known)])
    entries = "".join(f"Host web-{number} db-{number}.*\nMatch originalhost x-{number}*\n" for number in range(300))
    laptop.config.write_text(f'{laptop.config.read_text()}{entries}Match host "z*" exec "touch ran"\n')
    monkeypatch.setattr(subprocess, "run", refuse_process)
    monkeypatch.setattr(subprocess, "Popen", refuse_process)
    monkeypatch.setenv("PATH", laptop.environment["PATH"])
    names = {"team": [f"notebook-{number}" for number in range(1000)]}
    started_at = time.process_time()
    ssh_files.write_hosts_file(str(laptop.home), str(laptop.config), names, ["team"])
    assert time.process_time() - started_at < 1
    assert len(host_entries(laptop)) == 1000
    assert not list(laptop.folder.rglob("ran"))


def refuse_process(*arguments: object, **_: object) -> None:
    raise AssertionError(f"a process was started: {arguments}")


# ---- names that are kept -------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.parametrize("status", ["off", "invalid-tag"])
def test_every_listed_name_is_kept_and_ssh_prints_the_reason(laptop: Any, api: Any, status: str) -> None:
    """A mistyped tag was `Could not resolve hostname`."""
    api.notebooks["demo"] = notebook_json("demo", status, modes=[], message=f"The tag makes it {status}.")
    laptop.setup(api)
    result = laptop.run("ssh", "demo", "true")
    assert (result.returncode, "Could not resolve" in result.stderr) == (255, False)
    assert f"notebook-ssh: The tag makes it {status}. Do the next thing." in result.stderr


# ---- stacks --------------------------------------------------------------------------------------


@pytest.mark.posix
def test_one_stack_is_removed_alone(laptop: Any, api: Any, other_api: Any) -> None:
    before = laptop.config.read_bytes()
    api.notebooks["one-demo"], other_api.notebooks["two-demo"] = notebook_json("one-demo"), notebook_json("two-demo")
    laptop.setup(api, "one")
    laptop.setup(other_api, "two")
    unknown = laptop.run_client("setup", "--remove", "--stack", "three")
    assert (unknown.returncode, "configured: one, two" in unknown.stderr) == (2, True), unknown.stderr
    assert laptop.run_client("setup", "--remove", "--stack", "one").returncode == 0
    assert host_entries(laptop) == ["two-demo"]
    assert name_list.load_names(str(laptop.home)) == {"two": ["two-demo"]}
    assert "Host two-demo\n    HostName two-demo.notebook\n" in (laptop.home / "hosts").read_text()
    assert laptop.config.read_bytes() != before
    assert laptop.run_client("setup", "--remove", "--stack", "two").returncode == 0
    assert laptop.config.read_bytes() == before
    assert not laptop.home.exists()


@pytest.mark.posix
def test_nothing_is_left_after_remove(laptop: Any, api: Any) -> None:
    folder = laptop.config.parent
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    laptop.setup(api)
    assert laptop.run_client("setup", "--remove").returncode == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert not laptop.home.exists()


@pytest.mark.posix
def test_copy_of_another_configuration_is_kept_and_named(laptop: Any, api: Any) -> None:
    laptop.setup(api)
    laptop.config.write_text(f"{laptop.config.read_text()}Host new\n")
    result = laptop.run_client("setup", "--remove")
    copy = Path(f"{laptop.config}{ssh_files.BACKUP_SUFFIX}")
    assert copy.exists()
    assert str(copy) in result.stderr


@pytest.mark.posix
@pytest.mark.parametrize("form", ['Include "{hosts}"', "include {hosts_pattern}", "# mine\n\nInclude={quoted}"])
def test_include_of_the_users_own_is_recognized(laptop: Any, api: Any, form: str) -> None:
    """Configurations that a program writes (Nix, a dotfiles manager) cannot be edited, and need not be."""
    hosts = laptop.home / "hosts"
    pattern = str(hosts).replace(" ", "?")
    line = form.format(hosts=hosts, hosts_pattern=pattern, quoted=f'"{hosts}"')
    text = f"{line}\n{laptop.config.read_text()}"
    laptop.config.write_text(text)
    laptop.config.chmod(0o400)
    laptop.setup(api)
    assert laptop.config.read_text() == text
    assert not Path(f"{laptop.config}{ssh_files.BACKUP_SUFFIX}").exists()
    assert laptop.run_client("setup", "--remove").returncode == 0
    assert laptop.config.read_text() == text


@pytest.mark.posix
def test_include_for_one_host_only_is_not_enough(laptop: Any, api: Any) -> None:
    laptop.config.write_text(f'Host web\n  Include "{laptop.home}/hosts"\n')
    laptop.setup(api)
    assert laptop.config.read_text().startswith(ssh_config.BEGIN_LINE)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("config", "command"),
    [("Host demo\n", "ssh demo.notebook"), ('Match exec "true"\n', "ssh demo.notebook")],
)
def test_setup_recommends_the_name_that_reaches_the_notebook(laptop: Any, api: Any, config: str, command: str) -> None:
    laptop.config.write_text(config)
    api.notebooks["demo"] = notebook_json("demo")
    result = laptop.run_client(
        "setup", "--ssh-config", str(laptop.config), "--stack", "team", "--region", "eu-west-1", "--api", api.url
    )
    assert result.stderr.splitlines()[-1].endswith(f"Try: {command}"), result.stderr


def host_entries(laptop: Any) -> list[str]:
    lines = (laptop.home / "hosts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith("Host ")]


def ssh_answers(config: Path, host: str) -> dict[str, str]:
    """Return the options that ssh uses for `host` with `config`."""
    result = subprocess.run(
        ["ssh", "-G", "-F", config, host], capture_output=True, text=True, check=True, timeout=LIMIT_S, env=os.environ
    )
    return dict(line.split(" ", 1) for line in result.stdout.splitlines() if " " in line)
