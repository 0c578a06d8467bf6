"""The worker's way to the notebook: layer, reply, the pin in the block, volume. One flipped byte anywhere is refused."""

from __future__ import annotations

import ast
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent_env import PROGRAMS, WORKER, NotebookHost, Stack, make_reply, wait_until

from notebook_ssh.controllers.agent_layer import worker_program
from notebook_ssh.model.worker_program import join_worker
from patience import LIMIT_S

PIN = hashlib.sha256(WORKER.encode()).hexdigest()


def flipped(text: str) -> str:
    """Return `text` with one bit of a letter in its middle flipped."""
    at = next(place for place in range(len(text) // 2, len(text)) if text[place].isalpha())
    return text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]


def damage_layer(notebook: NotebookHost, folder: Path) -> None:
    layer = folder / "layer"
    shutil.copytree(PROGRAMS, layer)
    module = layer / "worker" / "keys.py"
    module.write_text(flipped(module.read_text()))
    notebook.stack.worker = worker_program(layer)


def damage_reply(notebook: NotebookHost, folder: Path) -> None:
    notebook.stack.worker = flipped(WORKER)


def damage_pin(notebook: NotebookHost, folder: Path) -> None:
    notebook.settings["WORKER"] = PIN[:-1] + ("0" if PIN[-1] != "0" else "1")


class TestAFlippedByte:
    @pytest.mark.parametrize("damage", [damage_layer, damage_reply, damage_pin])
    def test_on_the_way_keeps_the_worker_from_running(
        self, notebook: NotebookHost, stack: Stack, tmp_path: Path, damage: object
    ) -> None:
        assert callable(damage)
        damage(notebook, tmp_path)
        stack.reply = make_reply("bastion", sync_after=1)
        notebook.start()
        wait_until(
            lambda: (stack.last_report().get("problem") or {}).get("code") == "agent-outdated", "refused", notebook
        )
        assert not (notebook.root / "opt/notebook-ssh/worker.py").exists()
        assert not notebook.instructions.exists()

    @pytest.mark.parametrize("place", ["home/ec2-user/SageMaker/.notebook-ssh/worker.py", "opt/notebook-ssh/worker.py"])
    def test_in_a_copy_makes_the_agent_request_another(self, notebook: NotebookHost, stack: Stack, place: str) -> None:
        copy = notebook.root / place
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(flipped(WORKER))
        stack.reply = make_reply("bastion")
        notebook.start()
        notebook.wait_connected()
        assert stack.reports[0]["worker"] == PIN
        wait_until(lambda: copy.read_text() == WORKER, "the copy is replaced", notebook)

    def test_in_the_copy_on_the_volume_is_not_run_without_the_stack(self, notebook: NotebookHost, stack: Stack) -> None:
        stack.reply = make_reply("bastion")
        notebook.start()
        notebook.wait_connected()
        notebook.stop()
        notebook.boot()
        copy = notebook.volume / ".notebook-ssh" / "worker.py"
        copy.write_text(flipped(copy.read_text()))
        notebook.instructions.unlink()
        stack.status = 503
        before = len(stack.reports)
        notebook.start()
        wait_until(lambda: len(stack.reports) > before + 1, "two reports without a reply", notebook)
        assert not notebook.instructions.exists()


class TestTheJoinedProgram:
    def test_is_python_3_9_and_holds_each_module_as_it_is(self) -> None:
        tree = ast.parse(WORKER, feature_version=(3, 9))
        (sources,) = [node.value for node in tree.body if isinstance(node, ast.AnnAssign) and node.value]
        held = ast.literal_eval(sources)
        modules = {path.stem: path.read_text() for path in (PROGRAMS / "worker").glob("*.py")}
        assert held == {f"worker.{name}" if name != "__init__" else "worker": text for name, text in modules.items()}
        assert len(WORKER.encode()) < 400 << 10

    def test_is_in_memory_before_it_runs_and_a_traceback_names_the_module(self, tmp_path: Path) -> None:
        """A program that is replaced or removed under a running process breaks no import."""
        shutil.copy(PROGRAMS / "agent.py", tmp_path)
        program = tmp_path / "worker.py"
        loader = (PROGRAMS / "loader.py").read_text()
        removing = "import os, sys\n\n\ndef main(*words):\n    os.unlink(sys.argv[0])\n    from worker import late\n"
        program.write_text(join_worker(loader, {"__init__.py": "\n", "__main__.py": removing, "late.py": "1 / 0\n"}))
        failed = subprocess.run([sys.executable, "-I", program], capture_output=True, text=True, timeout=LIMIT_S)
        assert 'File "worker/late.py", line 1, in <module>' in failed.stderr

    @pytest.mark.parametrize("source", ["a = '''b'''\n", "a = 1\r\n", "a = 1", ""])
    def test_refuses_a_module_that_it_could_not_hold(self, source: str) -> None:
        with pytest.raises(ValueError, match=r"worker/keys\.py"):
            join_worker((PROGRAMS / "loader.py").read_text(), {"keys.py": source})

    def test_refuses_a_loader_without_its_place(self) -> None:
        with pytest.raises(ValueError, match="0 places"):
            join_worker("import sys\n", {})
