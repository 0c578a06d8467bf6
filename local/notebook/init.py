"""The first process of a simulated notebook: everything that the notebook runs is below it.

It is told what to be by one line of JSON (`machine.Boot`) on its standard input, starts sshd and the
instance-metadata service, runs the on-start script, answers `{"failure": null}` or why it failed, and stays
until its standard input closes. Then it ends every process below it, and itself.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import logins
import processes
import sshd
from notebook import journal, systemd
from notebook.journal import install_journalctl
from notebook.metadata_service import MetadataService
from notebook.systemd import Units

FIVE_MINUTES = 300
"""What SageMaker gives a lifecycle script."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/bin:/usr/sbin:/sbin:/bin"
"""The PATH of lifecycle scripts (SageMaker Developer Guide, lifecycle configuration best practices)."""


def main() -> None:
    """Be a notebook until standard input closes."""
    processes.adopt_orphans()
    told = json.loads(sys.stdin.buffer.readline())
    over = threading.Event()
    processes.when_abandoned(over.set)
    disk = Path(told["disk"])
    _write_metadata(disk, told)
    service = MetadataService(told["role"], told["credentials"], other=told["other_role"])
    service.start()
    environment = _environment(told, service.address)
    systemd.install(disk)
    server, failure = _set_up_sshd(disk, told, environment)
    if not failure and told["script"] is not None:
        failure = _run_script(told, disk, environment)
    print(json.dumps({"failure": failure}), flush=True)
    while not over.wait(0.5):
        processes.reap()
    if server:
        processes.dismiss(server, patience=2)
    processes.end_all()


def _write_metadata(disk: Path, told: dict[str, Any]) -> None:
    place = disk / "opt/ml/metadata"
    place.mkdir(parents=True)
    known = {"ResourceArn": told["arn"], "ResourceName": told["name"]}
    (place / "resource-metadata.json").write_text(json.dumps(known))
    for folder in ("var/log", "run", "tmp", "usr/local/bin", "etc/ssh", "etc/profile.d"):
        (disk / folder).mkdir(parents=True, exist_ok=True)


def _environment(told: dict[str, Any], metadata: str) -> dict[str, str]:
    """What differs from a real instance, and nothing of the environment of the user who runs this."""
    environment = {
        "PATH": f"{told['disk']}/usr/sbin:{told['disk']}/usr/bin:{PATH}",
        "NOTEBOOK_SSH_ROOT": told["disk"],
        "NOTEBOOK_SSH_PORT": str(told["port"]),
        "NOTEBOOK_SSH_PYTHON": told["python"],
        "AWS_REGION": told["region"],
        "AWS_DEFAULT_REGION": told["region"],
        "AWS_ENDPOINT_URL": told["endpoint"],
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    if told["api"]:
        environment["AWS_ENDPOINT_URL_EXECUTE_API"] = told["api"]
    return environment


def _run_script(told: dict[str, Any], disk: Path, environment: dict[str, str]) -> str | None:
    """Run the on-start script as SageMaker does; None, or why the start failed."""
    script = disk / "tmp/OnStart"
    script.write_bytes(base64.b64decode(told["script"]))
    script.chmod(0o700)
    refuse_jobs = Units(disk).refuse_jobs
    if told["answers"].get("systemd-on-start") == "fails":
        refuse_jobs.touch()
    try:
        return _run(script, told["log"], environment)
    finally:
        refuse_jobs.unlink(missing_ok=True)


def _run(script: Path, output: str, environment: dict[str, str]) -> str | None:
    with open(output, "ab") as log:
        try:
            done = subprocess.run(
                [str(script)],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=FIVE_MINUTES,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "Notebook Instance Lifecycle Config took longer than 5 minutes (OnStart)"
        except OSError as error:
            return f"Notebook Instance Lifecycle Config could not be run (OnStart): {error.strerror}"
    if done.returncode:
        return f"Notebook Instance Lifecycle Config script failed with exit status {done.returncode} (OnStart)"
    return None


# ---- sshd --------------------------------------------------------------------------------------

SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey "{disk}/etc/ssh/ssh_host_ed25519_key"
HostKey "{disk}/etc/ssh/ssh_host_ecdsa_key"
PidFile none
AllowUsers ec2-user
AuthorizedKeysFile "{disk}/home/ec2-user/.ssh/authorized_keys"
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PrintMotd no
PrintLastLog no
AcceptEnv LANG LC_*
Subsystem sftp {sftp}
SetEnv {settings}
"""


BASH_PROFILE = """\
# A login shell has read this machine's /etc/profile. What the notebook's would do, follows.
PATH={disk}/usr/local/bin:$PATH
for FILE in {disk}/etc/profile.d/*.sh; do [ ! -r "$FILE" ] || . "$FILE"; done
"""


SSHD = """\
#!/bin/sh
# The instance's sshd: this machine's, for the instance's user, and on the loopback alone.
for WORD; do
    [ "$WORD" != -t ] || exec {program} "$@"
    [ "$BEFORE" != -f ] || CONFIG=$WORD
    [ "$BEFORE" != -p ] || WANTED=$WORD
    BEFORE=$WORD
done
grep -qs ^ListenAddress "$CONFIG" || set -- -o ListenAddress=127.0.0.1 "$@"
{confinement}exec env {user} {program} {options} "$@"
"""

CONFINEMENT = """\
# SELinux lets it listen on one port alone.
[ "$WANTED" ] || WANTED=$(sed -n 's/^Port //p' "$CONFIG")
if [ "$WANTED" != {port} ]; then
    echo "error: Bind to port $WANTED on 127.0.0.1 failed: Permission denied." >&2
    echo "fatal: Cannot bind any address." >&2
    exit 255
fi
"""

PACKAGE_MANAGER = """\
#!/bin/sh
# The instance's package manager, which has one package.
case " $* " in
*" install openssh-server "*) cp {package} {program} ;;
*) echo "this stand-in does not know: dnf $*" >&2; exit 1 ;;
esac
"""


def _set_up_sshd(
    disk: Path, told: dict[str, Any], environment: dict[str, str]
) -> tuple[subprocess.Popen[bytes] | None, str | None]:
    """What an instance has of sshd, as the answers say; the server, or why it did not start."""
    answers, port = told["answers"], told["port"]
    confined = answers.get("selinux-port") == "refused"
    _install(disk / "usr/sbin/getenforce", f"#!/bin/sh\necho {'Enforcing' if confined else 'Permissive'}\n")
    runs = answers.get("sshd-runs", "active")
    user = logins.as_user("ec2-user", disk / "home/ec2-user", disk / "etc/ssh/ec2-user")
    (disk / "home/ec2-user/.bash_profile").write_text(BASH_PROFILE.format(disk=shlex.quote(str(disk))))
    text = _sshd(disk, port, environment, user, confined=confined)
    if runs == "absent":
        _install_package_manager(disk, text)
        return None, None
    _install(disk / "usr/sbin/sshd", text)
    config, log = _configure_sshd(disk, port, environment | user), disk / "var/log/sshd.log"
    kept = disk / "var/log/journal.jsonl"
    install_journalctl(disk / "usr/bin/journalctl", kept)
    within, units = (sys.executable, journal.__file__, str(kept)), Units(disk)
    unit = systemd.unit_file([*within, *sshd.sshd_command(config)], user)
    (disk / "usr/lib/systemd/system/sshd.service").write_text(unit)
    try:
        sshd.prepare("the notebook's sshd")
        if runs == "masked":
            units.mask("sshd")
            return None, None
        started = sshd.start_sshd("the notebook's sshd", config, log, port, within=within, env=user)
    except processes.DidNotStartError as problem:
        return None, str(problem)
    units.enable("sshd")
    units.adopt("sshd", started.pid)
    return started, None


def _sshd(disk: Path, port: int, environment: dict[str, str], user: dict[str, str], *, confined: bool) -> str:
    """The instance's sshd, for configurations that are not the system's, too. confined: by SELinux, to `port`."""
    options = [
        "AllowUsers=ec2-user",
        "PermitRootLogin=prohibit-password",  # where root runs this, that user has root's number
        f"SetEnv={_session_variables(disk, environment | user)}",
    ]
    program = shlex.quote(sshd.program())
    return SSHD.format(
        confinement=CONFINEMENT.format(port=port) if confined else "",
        user=" ".join(shlex.quote(f"{name}={value}") for name, value in user.items()),
        program=program,
        options=" ".join(f"-o {shlex.quote(option)}" for option in options),
    )


def _session_variables(disk: Path, environment: dict[str, str]) -> str:
    """What a session's environment has, as sshd_config(5), SetEnv, spells it."""
    session = environment | {"PATH": f"{disk}/usr/local/bin:{environment['PATH']}"}
    return " ".join(f'"{name}={value}"' for name, value in session.items())


def _install_package_manager(disk: Path, package: str) -> None:
    """With sshd in its repository."""
    kept = disk / "var/cache/dnf/openssh-server"
    _install(kept, package)
    words = {"package": shlex.quote(str(kept)), "program": shlex.quote(str(disk / "usr/sbin/sshd"))}
    _install(disk / "usr/bin/dnf", PACKAGE_MANAGER.format(**words))


def _install(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _configure_sshd(disk: Path, port: int, environment: dict[str, str]) -> Path:
    """Host keys of this start alone, as on an instance, and the configuration of a real sshd."""
    for kind in ("ed25519", "ecdsa"):
        key = disk / f"etc/ssh/ssh_host_{kind}_key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(key)], check=True)
    config = disk / "etc/ssh/sshd_config"
    config.write_text(
        SSHD_CONFIG.format(
            disk=disk,
            port=port,
            sftp=_sftp_server(),
            settings=_session_variables(disk, environment),
        )
    )
    return config


def _sftp_server() -> str:
    known = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
    return next((path for path in known if os.path.exists(path)), "internal-sftp")


if __name__ == "__main__":
    main()
