"""The ngrok path, by the real program: what is wished, what is told, and what people see."""

from __future__ import annotations

import subprocess

from agent_world import NAME, TOKEN, Notebook, Stack, an_answer, until


def test_from_boot_to_a_shell(notebook: Notebook, stack: Stack) -> None:
    """Identity, report, ngrok, address, report, instructions; and the address really leads to sshd."""
    stack.answers = an_answer("ngrok")
    notebook.start()
    report = notebook.connected()
    assert report["agent"] == "1.2.3"
    assert report["host"] == "127.0.0.1"
    assert report["host_keys"] == [
        " ".join((notebook.sshd.folder / "ssh_host_ed25519_key.pub").read_text().split()[:2])
    ]
    line = f"ssh -p {report['port']} ec2-user@127.0.0.1"
    assert line in notebook.instructions.read_text()
    assert f"SSH to {NAME}: connected" in notebook.instructions.read_text()
    shown = subprocess.run(
        ["ssh-keyscan", "-p", str(report["port"]), "-t", "ed25519", "127.0.0.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert report["host_keys"][0] in shown.stdout
    assert TOKEN in notebook.config.read_text()
    assert notebook.config.stat().st_mode & 0o777 == 0o600


def test_off_leaves_nothing_running_and_says_so(notebook: Notebook, stack: Stack) -> None:
    stack.answers = an_answer("ngrok", sync_after=1)
    notebook.start()
    notebook.connected()
    stack.answers = an_answer("off", sync_after=1)
    until(lambda: stack.last()["mode"] == "off", f"off is reported; {notebook.told()}")
    assert "is off" in notebook.instructions.read_text()
    assert not notebook.authorized.exists() or "notebook-ssh" not in notebook.authorized.read_text()
