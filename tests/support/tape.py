"""Programs that are run once and played back: a second shell gets the same answers, and must ask the same questions.

`Tape(folder)` fills a folder with stand-ins. First in PATH, each runs the next program of its name there and keeps its
arguments, output and exit status; when `$TAPE_PLAYS` is set it only gives back what was kept for the same arguments.
A question whose answer lasts is asked once until `forget`: AWS's command line takes most of a second of a processor.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

NEVER_RUN = 99


class Tape:
    """The stand-ins for the programs `names`, in `folder`, which is made.

    lasting: how the commands begin whose answers outlast `erase`.
    """

    def __init__(self, folder: Path, names: str, lasting: str = "") -> None:
        self.programs, self.file, self.lasting = folder / "bin", folder / "tape", lasting
        self.programs.mkdir(parents=True)
        for name in names.split():
            (self.programs / name).write_text(f"#!/bin/sh\nexec '{sys.executable}' -I '{__file__}' {name} \"$@\"\n")
            (self.programs / name).chmod(0o755)
        self.forget()

    def forget(self) -> None:
        """Begin again, without any answer."""
        self.file.write_text("[]")

    def erase(self) -> None:
        """Begin again, with the answers that last."""
        kept = json.loads(self.file.read_text())
        known = {_command(each): each | {"known": True} for each in kept if self._lasts(each)}
        self.file.write_text(json.dumps(list(known.values())))

    def environment(self, *, plays: bool) -> dict[str, str]:
        """What the stand-ins read."""
        return {"TAPE": str(self.file), **({"TAPE_PLAYS": "yes"} if plays else {})}

    def rewind(self) -> list[str]:
        """What was not played, and now may be again."""
        kept = json.loads(self.file.read_text())
        left = [_command(each) for each in kept if not each["played"] and not each["known"]]
        self.file.write_text(json.dumps([each | {"played": False} for each in kept]))
        return left

    def _lasts(self, entry: dict[str, Any]) -> bool:
        return bool(self.lasting) and _command(entry).startswith(self.lasting) and entry["status"] == 0


def _command(entry: dict[str, Any]) -> str:
    return " ".join([entry["name"], *entry["words"]])


def _change(change: Any) -> Any:
    """Change what is kept while no other stand-in does: pipes run several at once."""
    with open(os.environ["TAPE"], "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = json.load(file)
        result = change(kept)
        file.seek(0)
        file.truncate()
        json.dump(kept, file)
    return result


def _leave_path() -> None:
    parts = os.environ["PATH"].split(os.pathsep)
    own = str(Path(os.environ["TAPE"]).with_name("bin"))
    os.environ["PATH"] = os.pathsep.join(part for part in parts if part != own)


def _run(name: str, words: list[str]) -> int:
    def known(kept: list[dict[str, Any]]) -> dict[str, Any] | None:
        for each in kept:
            if each["known"] and (each["name"], each["words"]) == (name, words):
                kept.append(again := each | {"known": False})
                return again
        return None

    entry = _change(known)
    if entry is None:
        _leave_path()
        done = subprocess.run([name, *words], stdout=subprocess.PIPE, check=False)
        output = base64.b64encode(done.stdout).decode()
        entry = {"name": name, "words": words, "output": output, "status": done.returncode}
        _change(lambda kept: kept.append(entry | {"played": False, "known": False}))
    sys.stdout.buffer.write(base64.b64decode(entry["output"]))
    return int(entry["status"])


def _play(name: str, words: list[str]) -> int:
    if name == "bash":
        sys.stdin.buffer.read()  # as what it runs does; the other programs leave it to the shell

    def next_of(kept: list[dict[str, Any]]) -> dict[str, Any] | None:
        for each in kept:
            if not each["played"] and not each["known"] and (each["name"], each["words"]) == (name, words):
                each["played"] = True
                return each
        return None

    found = _change(next_of)
    if found is None:
        print(f"never run by the first shell: {[name, *words]}", file=sys.stderr)
        return NEVER_RUN
    sys.stdout.buffer.write(base64.b64decode(found["output"]))
    return int(found["status"])


if __name__ == "__main__":
    if sys.argv[1:3] in (["ssh", "-V"], ["ssh", "-G"]):
        # Questions about this machine, which change nothing, and whose files are new each time.
        _leave_path()
        os.execvp("ssh", sys.argv[1:])
    sys.exit((_play if "TAPE_PLAYS" in os.environ else _run)(sys.argv[1], sys.argv[2:]))
