"""`make demo` itself: told to its end, stopped in the middle, and side by side."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from support import namespaces, needs

import processes
from emulator.process import PROJECT, PYTHON, Emulator
from environment import obstacle
from patience import LIMIT_S

pytestmark = pytest.mark.takes_minutes

DEMO = [str(PYTHON), str(PROJECT / "local" / "demo.py")]


def begin(
    temporary: Path,
    path: str = os.environ["PATH"],
    environment: dict[str, str] | None = None,
    errors: int = subprocess.STDOUT,
) -> subprocess.Popen[str]:
    """The demo as a process group of its own, with a temporary folder of its own to look for leftovers in."""
    temporary.mkdir(exist_ok=True)
    usual = {"PATH": path, "HOME": os.environ["HOME"], "TMPDIR": str(temporary)}
    return subprocess.Popen(
        DEMO,
        env=usual | (environment or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )


def naming(folder: Path) -> list[int]:
    """Processes whose command line or environment names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in told:
                found.append(int(entry.name))
    return found


def short_folder(tmp_path: Path, name: str) -> Path:
    """Below /tmp, since the agent's socket needs a short path; removed with nothing in it by `nothing_is_left`."""
    return Path("/tmp") / f"{name}{tmp_path.name[-1]}{os.getpid()}"


def nothing_is_left(folder: Path) -> None:
    left = sorted(path.name for path in folder.iterdir())
    shutil.rmtree(folder)
    assert left == []
    processes.wait_until("no process is left", lambda: not naming(folder))


def test_the_whole_demo_in_a_folder_with_a_space(tmp_path: Path) -> None:
    folder = short_folder(tmp_path, "a b")
    demo = begin(folder)
    told, _ = demo.communicate(timeout=10 * LIMIT_S)
    assert demo.returncode == 0, told
    assert re.search(r"ssh -p \d+ ec2-user@127\.0\.0\.1", told)
    assert "prepared on" in told
    assert "admitted by the tag" in told
    assert "logged in without a key" in told
    assert ":assumed-role/data-science/eva" in told
    # In columns, or in lines of their own: in the last hour of a day a certificate's end has a date, which takes the room.
    words = (r"data-science/eva", r"127\.0\.0\.1", "certificate", "stack")
    assert re.search(r"\s[\s│A-Z]*".join(words), told)
    assert "may not log in" in told
    assert "ngrok refuses the token" in told
    assert "through the bastion" in told
    assert "Compared byte for byte: 246 of 246" in told
    nothing_is_left(folder)


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    folder = short_folder(tmp_path, "int")
    demo = begin(folder)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "runs its on-start script" in line:
            break
    assert naming(folder)
    demo.send_signal(signal.SIGINT)
    told, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 130, told
    assert "nothing is left" in told
    nothing_is_left(folder)


def test_even_a_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    folder = short_folder(tmp_path, "kil")
    demo = begin(folder)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "runs its on-start script" in line:
            break
    demo.kill()
    demo.communicate(timeout=LIMIT_S)
    processes.wait_until("no process is left", lambda: not naming(folder))
    nothing_is_left(folder)


def test_a_missing_program_is_named_before_anything_begins(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ssh", "ssh-keygen", "bash"):
        (programs / name).symlink_to(shutil.which(name) or name)
    folder = short_folder(tmp_path, "mis")
    demo = begin(folder, path=str(programs))
    told, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 1
    assert "install curl" in told.replace("sshd, ", "")
    assert told.count("\n") == 1
    nothing_is_left(folder)


def test_a_user_id_without_a_name_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 98765)
    assert "user id 98765 has no entry" in (obstacle() or "")


@pytest.mark.needs_root
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("size=1m", "{} has 1 MB left, and a run needs 250; make room, or name another folder with TMPDIR=..."),
        ("noexec", "no program may be run in {}, as where it is mounted noexec; name another folder with TMPDIR=..."),
        ("ro", "None"),  # Python takes another one
        ("size=1g", "None"),
    ],
)
def test_a_temporary_folder_that_will_not_do_is_named(tmp_path: Path, options: str, sentence: str) -> None:
    needs.root("to mount a temporary folder")
    needs.mounts()
    script = f'mount -t tmpfs -o {options} none "$PWD" && exec "$@"'
    asks = [str(PYTHON), "-c", "from environment import obstacle; print(obstacle())"]
    done = subprocess.run(
        [*namespaces.of_mounts(), "sh", "-c", script, "sh", *asks],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(PROJECT / "local")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{sentence.format(tmp_path)}\n", done.stderr


def test_logs_that_cannot_be_kept_do_not_keep_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.process.PROJECT", tmp_path)
    (tmp_path / ".build").write_text("in the way, as on a full disk")
    emulator = Emulator()
    emulator.log.write_text("what it said")
    assert emulator.close(keep_logs=True) is None
    assert not emulator.home.exists()


def test_a_reader_that_goes_ends_the_story_quietly(tmp_path: Path) -> None:
    """As in `make demo | head -3`."""
    folder = short_folder(tmp_path, "hea")
    demo = begin(folder, errors=subprocess.PIPE)
    assert demo.stdout is not None
    assert demo.stderr is not None
    for _ in range(3):
        assert demo.stdout.readline()
    demo.stdout.close()
    assert demo.stderr.read() == ""
    assert demo.wait(LIMIT_S) == 0
    demo.stderr.close()
    nothing_is_left(folder)


@pytest.mark.nightly(sibling="tests/unit/test_progress.py::test_what_an_encoding_does_not_hold_is_written_otherwise")
@pytest.mark.parametrize("language", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "iso-8859-1"}])
def test_the_demo_is_printed_where_the_locale_holds_little(tmp_path: Path, language: dict[str, str]) -> None:
    """Without what Python does by itself to speak UTF-8 in such a locale (PEP 538, PEP 540)."""
    folder = short_folder(tmp_path, "loc")
    old_python = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    demo = begin(folder, environment=old_python | language)
    assert demo.stdout is not None
    told = ""
    for line in demo.stdout:
        told += line
        if "The block is" in line:
            break
    demo.send_signal(signal.SIGTERM)
    rest, _ = demo.communicate(timeout=LIMIT_S)
    assert demo.returncode == 130, told + rest
    assert "     | prepared on" in told
    assert told.isascii()
    nothing_is_left(folder)


def test_a_port_that_is_taken_is_named() -> None:
    said = r"^the emulated AWS ended at its start .*(?i:address already in use)"
    with (
        closing(Emulator()) as emulator,
        socket.create_server(("127.0.0.1", emulator.port)),
        pytest.raises(processes.DidNotStartError, match=said),
    ):
        emulator.start()
