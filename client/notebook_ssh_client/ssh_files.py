"""Edits OpenSSH's files on this machine: the section in the user's ssh_config, its backup, and the hosts file."""

from __future__ import annotations

import glob
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from notebook_ssh_client import (
    address_cache,
    certificate_store,
    files,
    settings,
    ssh_config,
    ssh_names,
    ssh_programs,
)
from notebook_ssh_client.certificate_store import PROBE
from notebook_ssh_client.errors import CliError
from notebook_ssh_client.ssh_address import HOST_SUFFIX
from notebook_ssh_client.ssh_config import ClientCommand
from notebook_ssh_client.ssh_names import KnownHosts, NameRule, UserNames

BACKUP_SUFFIX = ".before-notebook-ssh"

# The file with the `Match` for certificates, included by the hosts file.
CERTIFICATES_NAME = "certificates.conf"

# The client's files, in its directory.
OWN_FILES = (
    "settings.json",
    "names.json",
    "offers.json",
    "ssh_versions.json",
    "ssh_certificates.json",
    "hosts",
    CERTIFICATES_NAME,
    "id_ecdsa",
    "id_ecdsa.pub",
    "id_ecdsa.lock",
    "known_hosts",
    "known_hosts.lock",
    "log",
)

# The OpenSSH version that introduced KnownHostsCommand (its release notes, 3 March 2021).
KNOWN_HOSTS_COMMAND_SINCE = (8, 5)

# The OpenSSH version that introduced Include (its release notes, 1 August 2016).
INCLUDE_SINCE = (7, 3)

# What ssh tries where no IdentityFile applies (readconf.c, fill_default_options): of these, those that are there.
DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss", "id_dsa")

# The depth to which ssh follows Include (readconf.c, READCONF_MAX_DEPTH).
MAX_INCLUDE_DEPTH = 16


def default_config_path() -> str:
    """Return the path of the ssh_config that ssh reads by default."""
    return os.path.join(files.ssh_dir(), "config")


def current_config_path(home: str) -> str:
    """Return the path of the ssh_config that `setup` changed last, or the default one."""
    try:
        return settings.load_settings(home).ssh_config
    except CliError:
        return default_config_path()


def install(home: str, config: str) -> bool:
    """Insert the client's section into `config`; return whether this changed it. The first change makes a backup.

    A configuration that includes the hosts file by itself is left as it is: it may be one that a program writes.
    """
    oldest = min(ssh_programs.versions(home), default=(0, 0))
    if oldest < INCLUDE_SINCE:
        found = f"OpenSSH {oldest[0]}.{oldest[1]} is too old" if oldest != (0, 0) else "OpenSSH was not found on PATH"
        raise CliError(f"{found}; install OpenSSH 7.3 or newer (on Windows: Settings, Optional features)")
    if _includes_hosts_file(config, home):
        return False
    return _edit_config(config, _inserter(home))


def plan_install(home: str, config: str) -> tuple[str, str]:
    """Return the text of `config` before and after `install`. Nothing is changed. Raises CliError."""
    real = os.path.realpath(config)
    before = _read_bytes(real) if os.path.lexists(real) else b""
    after = before if _includes_hosts_file(config, home) else _inserter(home)(before)
    return before.decode("utf-8", "replace"), after.decode("utf-8", "replace")


def plan_uninstall(config: str) -> tuple[str, str]:
    """Return the text of `config` before and after `uninstall`. Nothing is changed. Raises CliError."""
    before = _read_bytes(config) if os.path.exists(config) else b""
    return before.decode("utf-8", "replace"), ssh_config.remove_section(before).decode("utf-8", "replace")


def _inserter(home: str) -> Callable[[bytes], bytes]:
    hosts_path = client_command(home).hosts_path
    return lambda text: ssh_config.insert_section(text, hosts_path)


def uninstall(home: str, config: str) -> tuple[bool, str | None]:
    """Remove the client's section and its files.

    Returns whether there were any, and the path of the backup if it is kept: it differs from `config`.
    """
    changed = _edit_config(config, ssh_config.remove_section)
    existed = os.path.isdir(home)
    if existed:
        for name in OWN_FILES:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(home, name))
        address_cache.clear(home)
        certificate_store.clear(home)
        with suppress(OSError):  # it has other files in it
            os.rmdir(home)
    backup = config + BACKUP_SUFFIX
    if not os.path.exists(backup):
        return changed or existed, None
    if _read_bytes(backup) != (_read_bytes(config) if os.path.exists(config) else b""):
        return changed or existed, backup
    os.unlink(backup)
    return True, None


def _includes_hosts_file(config: str, home: str) -> bool:
    """Return whether `config` includes the client's hosts file for every host, apart from the client's section."""
    hosts = os.path.realpath(os.path.join(home, "hosts"))

    def includes(path: str, depth: int) -> bool:
        text = ssh_config.remove_section(_read_or_empty(path).encode()).decode()
        for include in ssh_names.unconditional_includes(text) if depth <= MAX_INCLUDE_DEPTH else []:
            for match in _expand_include(include, files.ssh_dir()) or []:
                if os.path.realpath(match) == hosts or includes(match, depth + 1):
                    return True
        return False

    return includes(config, 0)


def write_hosts_file(
    home: str,
    config: str,
    names: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    offers: Sequence[str] = (),
    *,
    judge: bool = False,
) -> dict[tuple[str, str], str]:
    """Write the hosts file for these notebooks; return what to type after `ssh` for each, by stack label and name.

    A name that already refers to another host gets no entry: a user who names a notebook must not be able to take over
    `localhost` or the name of a server of other users. names: by stack label; labels: the stacks, in order; offers:
    those of them that have certificates. judge: let ssh read the files first. Raises CliError if it refuses them, and
    leaves them as they were.
    """
    user_names = read_user_names(config, home)
    reached_by = ssh_config.ssh_names(names, labels, lambda name: not user_names.claims(name))
    command = client_command(home)
    certificates = _certificates(home, command, names, labels, offers)
    if certificates is None:
        command = replace(command, certificates_path="")
    text = ssh_config.hosts_file(command, reached_by, labels)
    if judge:
        judged = {"hosts": text.replace(command.certificates_path or "\0", f"{{folder}}/{CERTIFICATES_NAME}")}
        ssh_programs.require_accepted(home, judged | ({CERTIFICATES_NAME: certificates} if certificates else {}))
    path = os.path.join(home, CERTIFICATES_NAME)
    if certificates is not None:
        _write_if_changed(path, certificates)
    _write_if_changed(os.path.join(home, "hosts"), text)
    if certificates is None:
        with suppress(FileNotFoundError):
            os.unlink(path)
    return reached_by


def _certificates(
    home: str, command: ClientCommand, names: Mapping[str, Sequence[str]], labels: Sequence[str], offers: Sequence[str]
) -> str | None:
    """Return the text of the file for certificates; None where there are none, or ssh was not seen to obtain them.

    UNCONFIRMED(windows-match-exec): so on Windows it is tried as well.
    """
    for_posix = os.name != "nt"
    check = ssh_config.certificate_check(command, for_posix=for_posix)
    trial = ssh_config.certificate_check(command, PROBE, for_posix=for_posix)
    if not offers or check is None or trial is None:
        return None
    listed = [
        f"{name}{end}{HOST_SUFFIX}" for label in offers for name in names.get(label, []) for end in ("", f".{label}")
    ]
    unoffered = [label for label in labels if label not in offers]
    hosts = ssh_config.certificate_hosts(listed, unoffered, literal=not for_posix)
    keys = default_keys(files.ssh_dir())
    try:
        tried = ssh_config.certificates_file(command, [ssh_programs.JUDGED_HOST], trial, keys)
        written = ssh_config.certificates_file(command, hosts, check, keys)
    except CliError:
        return None  # a path that ssh_config cannot hold
    return written if ssh_programs.obtains_certificates(home, tried) else None


def default_keys(folder: str) -> list[str]:
    """Return the keys in `folder`, the user's .ssh, that ssh tries by itself, as ssh_config(5) writes them."""
    return [f"~/.ssh/{name}" for name in DEFAULT_KEYS if os.path.exists(os.path.join(folder, name))]


def uses_certificates(home: str) -> bool:
    """Return whether the hosts file makes ssh obtain certificates."""
    return os.path.exists(os.path.join(home, CERTIFICATES_NAME))


def _write_if_changed(path: str, text: str) -> None:
    if files.read_text(path) != text:
        files.write_text(path, text)


def read_user_names(config: str, home: str) -> UserNames:
    """Read what this machine already calls by a name: ssh's configuration, its known hosts, and hosts(5).

    No process is started, and no name is looked up in the network.
    """
    rules: list[NameRule] = []
    visited = {os.path.realpath(os.path.join(home, "hosts"))}
    # A list, so that the first file that cannot be read does not hide the rules of the others.
    readable = [
        _read_rules(path, directory, rules, visited, depth=0)
        for path, directory in (
            (config, files.ssh_dir()),
            (system_config_path(), os.path.dirname(system_config_path())),
        )
    ]
    known = "\n".join(_read_or_empty(path) for path in known_hosts_paths())
    return UserNames(rules, _local_host_names(), KnownHosts(known), is_undecided=not all(readable))


def _read_rules(path: str, directory: str, rules: list[NameRule], visited: set[str], depth: int) -> bool:
    """Add the rules of a file and its includes to `rules`; return whether all could be read. It may be missing.

    directory: where its relative includes are.
    """
    real = os.path.realpath(path)
    if real in visited:
        return True
    visited.add(real)
    try:
        with open(real, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    rules += ssh_names.name_rules(text)
    is_complete = True
    for include in ssh_names.includes(text):
        paths = _expand_include(include, directory) if depth < MAX_INCLUDE_DEPTH else None
        if paths is None:
            is_complete = False
        for match in paths or []:
            is_complete = _read_rules(match, directory, rules, visited, depth + 1) and is_complete
    return is_complete


def _expand_include(include: str, directory: str) -> list[str] | None:
    """Return the files that an `Include` refers to, or None if that depends on what only ssh knows (ssh_config(5))."""
    expanded = re.sub(r"\$\{(\w+)\}", lambda match: os.environ.get(match[1], match[0]), include)
    expanded = expanded.replace("%%", "\0").replace("%d", os.path.dirname(files.ssh_dir()))
    if "%" in expanded or "${" in expanded:
        return None
    path = os.path.expanduser(expanded.replace("\0", "%"))
    return sorted(glob.glob(os.path.join(directory, path)))


def system_config_path() -> str:
    """Return the path of the configuration for all users of this machine (ssh_config(5), FILES)."""
    if os.name == "nt":
        return os.path.join(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "ssh", "ssh_config")
    return "/etc/ssh/ssh_config"


def known_hosts_paths() -> list[str]:
    """Return the files that ssh takes known hosts from (ssh_config(5), UserKnownHostsFile and GlobalKnownHostsFile)."""
    directories = [(files.ssh_dir(), ""), (os.path.dirname(system_config_path()), "ssh_")]
    return [os.path.join(path, f"{prefix}known_hosts{end}") for path, prefix in directories for end in ("", "2")]


def _local_host_names() -> set[str]:
    """Return the names of this machine and of the hosts in its hosts(5) file, in lower case."""
    hostname = socket.gethostname().lower()
    windows = os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), r"System32\drivers\etc\hosts")
    listed = ssh_names.etc_hosts_names(_read_or_empty(windows if os.name == "nt" else "/etc/hosts"))
    return {"localhost", hostname, hostname.partition(".")[0], *listed}


def _read_or_empty(path: str) -> str:
    """Return the file's text, or "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def client_command(home: str) -> ClientCommand:
    """Return how ssh on this machine runs this client with the directory `home`."""
    is_default = os.path.realpath(home) == os.path.realpath(files.default_home())
    directory = "~/.ssh/notebook-ssh" if is_default else os.path.abspath(home)
    return ClientCommand(
        python=sys.executable,
        home=None if is_default else os.path.abspath(home),
        # Windows: OpenSSH's way of running such a command was not ported for similar options, and whether this one
        # works is UNCONFIRMED(windows-known-hosts); the file alone is sufficient on every system.
        has_known_hosts_command=os.name != "nt"
        and min(ssh_programs.versions(home), default=(0, 0)) >= KNOWN_HOSTS_COMMAND_SINCE,
        hosts_path=f"{directory}/hosts",
        known_hosts_path=f"{directory}/known_hosts",
        certificates_path=f"{directory}/{CERTIFICATES_NAME}",
        key_path=f"{directory}/{certificate_store.KEY_NAME}",
        certificate_folder=f"{directory}/{certificate_store.DIRECTORY_NAME}",
    )


def _edit_config(config: str, edit: Callable[[bytes], bytes]) -> bool:
    """Apply `edit` to an ssh_config; return whether this changed it. Symbolic links and permissions are preserved.

    The first change of a file without the client's section makes a backup next to it.
    """
    real, backup = os.path.realpath(config), config + BACKUP_SUFFIX
    existed = os.path.lexists(real)
    before = _read_bytes(real) if existed else b""
    after = edit(before)
    if after == before:
        return False
    try:
        os.makedirs(os.path.dirname(real), mode=0o700, exist_ok=True)
        if existed and not os.path.exists(backup) and ssh_config.remove_section(before) == before:
            shutil.copy2(real, backup)
        if not after and not os.path.exists(backup):
            os.unlink(real)  # `setup` created it: without a backup, there was no file before
        else:
            files.write_atomically(real, after, mode=os.stat(real).st_mode & 0o7777 if existed else 0o600)
    except OSError as error:
        raise CliError(f"cannot write {real} ({error.strerror}); {_manual_edit(after)}") from error
    return True


def _manual_edit(after: bytes) -> str:
    """Return the instruction to make the edit by hand."""
    lines = after.decode("utf-8", "replace").splitlines()
    if len(lines) > 1 and lines[0].endswith(ssh_config.BEGIN_LINE):
        return f"add this line at its top: {lines[1]}"
    return "delete the lines from the first to the second notebook-ssh marker"


def _read_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CliError(f"cannot read {path} ({error.strerror}); it must be a file that you can read") from error
