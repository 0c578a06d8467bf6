"""ngrok's configuration, config.yml."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Sequence

from worker.model import AgentError

AGENT_COMMENT = "  # notebook-ssh"


def edit_yaml(text: str, path: Sequence[str], change: Callable[[str | None], str | None], pad: str = "") -> str:
    """Return `text` (YAML in block style) with the value at `path` replaced by change(value or None); None removes it.

    Everything else is unchanged. A step `- name: x` selects the item of a list that has this line.
    """
    step, rest = path[0], path[1:]
    first = re.match(r"(?:[ \t]*(?:#.*)?\n)*( *)\S", text)
    pad = first[1] if first else pad
    if step.startswith("- "):
        return edit_list_item(text, step[2:], rest, change, pad)
    match = re.search(rf"(?m)^{pad}{step}:[ \t]*(.*)\n((?:{pad}(?: |- ).*\n|[ \t]*(?:#.*)?\n)*)", text)
    at = len(text) if not pad else first.start(1) if first else 0
    begin, middle, end = (match.start(), match.start(2), match.end()) if match else (at, at, at)
    old = match[1].strip() if match else None
    if not rest:
        new = change(old)
        head = text[begin:middle] if new == old else f"{pad}{step}: {new}\n" if new else ""
        return text[:begin] + head + text[middle:]
    if old and not old.startswith("#"):
        message = f"~/SageMaker/.ngrok/config.yml: put what follows `{step}:` on its own lines, indented"
        raise AgentError("ngrok-config", message)
    block = edit_yaml(text[middle:end], rest, change, pad + "  ")
    head = text[begin:middle] or (f"{pad}{step}:\n" if block else "")
    return text[:begin] + head + block + text[end:]


def edit_list_item(
    text: str, line: str, rest: Sequence[str], change: Callable[[str | None], str | None], pad: str
) -> str:
    """Apply `edit_yaml` to the item of a list that has `line`; the item is added if there is none."""
    key, _, value = line.partition(": ")
    items = re.split(rf"(?m)^(?={pad}- )", text)
    pattern = re.compile(rf"(?m)^{pad}[- ] {key}: *[\"']?{value}[\"']?[ \t\r]*(?:#.*)?$")
    index = next((number for number, item in enumerate(items) if pattern.search(item)), None)
    if index is None:
        index = 1
        items.insert(index, f"{pad}- {line}\n")
    edited = edit_yaml(items[index].replace(f"{pad}- ", f"{pad}  ", 1), rest, change)
    items[index] = f"{pad}- " + edited[len(pad) + 2 :]
    return "".join(items)


def free_local_address(old: str | None) -> str:
    """Return a loopback address for ngrok's local API: with the port in `old` if that is free, else with any free one."""
    preferred = re.search(r":(\d{1,5})\b", old or "")
    for port in (int(preferred[1]), 0) if preferred else (0,):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return f"127.0.0.1:{probe.getsockname()[1]}"
            except (OSError, OverflowError):
                continue
    raise AgentError("ngrok-config", "no loopback port is free for ngrok's local API")


def configure_ngrok(text: str, token: str | None, url: str | None, port: int) -> str:
    """Return `text` of config.yml (version 2 or 3) with the endpoint `ssh`, the token, and remote management disabled.

    An address that the user has set is kept unless `url` (from the tag) is given; what the agent sets carries
    AGENT_COMMENT. References: https://ngrok.com/docs/agent/config/v3, …/v2. A text without a version predates both and
    is read as version 2.
    """
    text += "" if text.endswith("\n") or not text else "\n"
    text = edit_yaml(text, ["version"], lambda old: old or ("2" if text.strip() else "3"))
    if re.search(r"(?m)^version:\W*3", text):
        top, update, ssh = ["agent"], "update_check", ["endpoints", "- name: ssh"]
        # An endpoint without url would be https.
        text = edit_yaml(
            text,
            [*ssh, "upstream", "url"],
            lambda old: address_to_keep(old, None) or f"tcp://127.0.0.1:{port}{AGENT_COMMENT}",
        )
        text = edit_yaml(text, [*ssh, "url"], lambda old: address_to_keep(old, url) or "tcp://" + AGENT_COMMENT)
    else:
        top, update, ssh = [], "update", ["tunnels", "ssh"]
        text = edit_yaml(text, [*ssh, "remote_addr"], lambda old: address_to_keep(old, url and url[len("tcp://") :]))
        text = edit_yaml(text, [*ssh, "addr"], lambda old: address_to_keep(old, None) or f"{port}{AGENT_COMMENT}")
        text = edit_yaml(text, [*ssh, "proto"], lambda old: old or "tcp")
    text = edit_yaml(text, [*top, update], lambda old: "false")
    text = edit_yaml(text, [*top, "remote_management"], lambda old: "false")
    text = edit_yaml(text, [*top, "web_addr"], free_local_address)
    return edit_yaml(text, [*top, "authtoken"], lambda old: token or old)


def address_to_keep(old: str | None, desired: str | None) -> str | None:
    """Return the address for config.yml: the tag's, else the one that the user has set, else None."""
    if desired:
        return desired + AGENT_COMMENT
    return old if old and AGENT_COMMENT.strip() not in old and old.strip("\"'") else None
