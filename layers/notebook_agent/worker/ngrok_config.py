"""ngrok's configuration: config.yml of the user, which is only read, and a file of the agent's that is merged into it.

ngrok merges the files of `--config` by key, and the later value of a key counts; lists are overwritten
(https://ngrok.com/docs/agent/config, "Config file merging"). So the agent's file has no list: its endpoint is in the map
`tunnels`, which both versions of the format have. It is written as JSON, which is YAML.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from agent import PERSIST_DIR, STATE_DIR
from worker.files import remove_file
from worker.model import AgentError, Json
from worker.paths import NGROK_DIR
from worker.sshd import SSH_PORT

USER_CONFIG = NGROK_DIR + "config.yml"
# The only file on the volume that holds the stack's token (docs/security.md).
OWN_CONFIG = PERSIST_DIR + "ngrok.yml"
# A copy of the user's file with the version that it lacks.
VERSIONED_CONFIG = STATE_DIR + "ngrok.yml"
ENDPOINT, OTHER_ENDPOINT = "ssh", "notebook-ssh"


@dataclass(frozen=True)
class UserConfig:
    """What the agent needs to know of the user's config.yml. Read line by line: block style, or braces on one level."""

    # 2 or 3, or None if the file names none: ngrok wants one.
    version: int | None
    token: str
    web_addr: str
    # The text of the endpoint or tunnel named ssh, or "".
    endpoint: str
    # It is in the list `endpoints`, which counts before `tunnels`.
    in_endpoints: bool


def parse_user_config(text: str) -> UserConfig:
    """Return what is read of a config.yml, version 2 or 3; of an empty text, too."""
    text = text.replace("\r\n", "\n") + "\n"
    version = re.search(r"""(?m)^[{ ]*["']?version["']?\s*:\s*["']?(\d+)""", text)
    item = endpoint_item(section_of(text, "endpoints"))
    return UserConfig(
        version=int(version[1]) if version else None,
        token=value_of(text, "authtoken"),
        web_addr=value_of(text, "web_addr"),
        endpoint=item or tunnel_item(section_of(text, "tunnels")),
        in_endpoints=bool(item),
    )


def section_of(text: str, key: str) -> str:
    """Return the text below the top-level `key`, or ""."""
    match = re.search(rf"""(?m)^["']?{key}["']?:(.*\n(?:[ \t-].*\n|[ \t]*(?:#.*)?\n)*)""", text)
    return match[1] if match else ""


def tunnel_item(section: str) -> str:
    """Return the text of the tunnel named ssh in the map `tunnels`, or ""."""
    block = re.search(r"""(?m)^( +)["']?ssh["']?:(.*\n(?:\1 .*\n|[ \t]*(?:#.*)?\n)*)""", section)
    braces = re.search(r"""[{,]\s*["']?ssh["']?\s*:\s*(\{[^{}]*\})""", section)
    return block[2] if block else braces[1] if braces else ""


def endpoint_item(section: str) -> str:
    """Return the text of the endpoint named ssh in the list `endpoints`, without its `upstream`, or ""."""
    first = re.search(r"(?m)^( *)- ", section)
    items = re.split(rf"(?m)^{first[1]}- ", section)[1:] if first else re.findall(r"\{(?:[^{}]|\{[^{}]*\})*\}", section)
    for item in items:
        # As if the item's first key stood on a line of its own.
        lines = f"{first[1]}  {item}" if first else item
        lines = re.sub(r"(?m)^( *)upstream:[ \t]*\n(?:\1 .*\n|[ \t]*\n)*", "", lines)
        lines = re.sub(r"upstream\s*:\s*\{[^{}]*\}", "", lines)
        if value_of(lines, "name") == ENDPOINT:
            return lines
    return ""


def value_of(text: str, key: str) -> str:
    """Return the first scalar of `key` in the text, without quotes, or ""."""
    match = re.search(rf"""(?m)(?:^|[ \t{{,])["']?{key}["']?[ \t]*:[ \t]*["']?([^\s"',}}#]*)""", text)
    return match[1] if match else ""


def own_config(user: UserConfig, token: str | None, url: str | None, port: int) -> tuple[str, Json]:
    """Return (the name of the endpoint for SSH, the agent's configuration, to be merged into the user's).

    token: the stack's, or None: then the user's counts. url: the reserved address of the tag. port: sshd's.
    An endpoint of the user's named ssh serves, with the address that the user has set, unless the tag names another
    one, or sshd is elsewhere; the user's other endpoints run, too.
    """
    is_tcp = value_of(user.endpoint, "proto") == "tcp" or value_of(user.endpoint, "url").startswith("tcp:")
    has_address = url is None or url[len("tcp://") :] in user.endpoint
    name, tunnels = ENDPOINT, {}
    if not (is_tcp and has_address and port == SSH_PORT):
        name = OTHER_ENDPOINT if user.in_endpoints else ENDPOINT
        tunnels = {name: {"proto": "tcp", "addr": f"127.0.0.1:{port}"}}
        if url:
            tunnels[name]["remote_addr"] = url[len("tcp://") :]
    agent: Json = {"web_addr": free_local_address(user.web_addr), "remote_management": False}
    if token:
        agent["authtoken"] = token
    if user.version == 2:
        return name, {"version": "2", **agent, "update": False, "tunnels": tunnels}
    return name, {"version": 3, "agent": {**agent, "update_check": False}, "tunnels": tunnels}


def forget_token() -> None:
    """Remove the agent's configuration, and with it the stack's token, from the volume."""
    for path in OWN_CONFIG, VERSIONED_CONFIG:
        remove_file(path)


def token_of(config: Json) -> str:
    """Return the token in a configuration of the agent's, or ""."""
    return str(config.get("agent", config).get("authtoken") or "")


def free_local_address(preferred: str) -> str:
    """Return a loopback address for ngrok's local API: with the port of `preferred` if that is free, else any free one.

    Not ngrok's default port: another ngrok of the user, started in this moment, could answer there.
    """
    port = re.search(r":(\d{1,5})$", preferred)
    for number in (int(port[1]), 0) if port else (0,):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", number))
                return f"127.0.0.1:{probe.getsockname()[1]}"
            except (OSError, OverflowError):
                continue
    raise AgentError(
        "ngrok-config", "no port of 127.0.0.1 is free for ngrok's local API: end the program that holds them"
    )
