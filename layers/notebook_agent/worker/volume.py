"""What the worker keeps on the volume for the next start."""

from __future__ import annotations

import json
import os

from agent import HOME, INSTALL_DIR, PERSIST_DIR, read_text
from worker.files import write_file
from worker.model import Json

# VS Code, Cursor, and of JetBrains: servers, their plugins, and what PyCharm installs for an SSH interpreter.
EDITOR_DIRS = ".vscode-server", ".cursor-server", ".cache/JetBrains", ".local/share/JetBrains", ".pycharm_helpers"


def link_editor_dirs() -> None:
    """Link the editors' directories to the volume, so that they are not installed again at each start."""
    for name in EDITOR_DIRS:
        link, target = f"{HOME}/{name}", f"{PERSIST_DIR}editors/{name}"
        if not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(target, link)
        if os.path.realpath(link) == os.path.realpath(target):
            os.makedirs(target, exist_ok=True)


def persist_for_next_boot(reply: Json) -> None:
    """Save for a next boot without the stack: this program, and the reply without secrets."""
    os.makedirs(PERSIST_DIR, 0o700, exist_ok=True)
    kept = ("modes", "mode", "until", "bastion", "authorized_keys", "certificates")
    saved = {key: value for key, value in reply.items() if key in kept}
    saved["ngrok"] = {"url": (reply.get("ngrok") or {}).get("url")}
    for name, text in (("reply.json", json.dumps(saved)), ("worker.py", read_text(INSTALL_DIR + "worker.py"))):
        if read_text(PERSIST_DIR + name) != text:
            write_file(PERSIST_DIR + name, text, 0o600)
