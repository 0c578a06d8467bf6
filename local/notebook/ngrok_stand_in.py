"""A stand-in for ngrok: the agent's command line, configuration and local API, with its cloud played on 127.0.0.1.

It really forwards TCP. Public addresses are ports of 127.0.0.1; a reserved address keeps its host and port, so that
`tcp://127.0.0.1:4242` can be connected to and `tcp://1.tcp.ngrok.io:12345` is only shown.

The cloud's state is a folder: the one named in $NGROK_STAND_IN, or the one that `ngrok_cloud.py` writes into this text.
`token` in it is the only token accepted (without that file: any that looks like one); `refusal` is the number of the
error that every session gets; `answers.json` has the answers to facts that are not confirmed (`emulator.answers`);
`faults.json` says what goes wrong, and is obeyed whenever it changes:

    {"lost": true}          the session is lost, with reconnecting in vain, until this is taken out
    {"unreachable": true}   the cloud cannot be reached at the start
    {"port": 40123}         the random address is this port; another number while running moves the tunnel
    {"crash": true}         the agent ends at once with status 2
    {"api": "tunnels"}      the local API is an older agent's; "none": there is none

Sources: https://ngrok.com/docs/agent/config/v3 and …/v2, https://ngrok.com/docs/agent/api, https://ngrok.com/docs/errors.
"""

import contextlib
import json
import os
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Most starts only ask for the version: what these would take is more than all the rest.
if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

VERSION = "3.39.8"

CLOUD = "@cloud@"

DEFAULT_PORT = 4040
"""Where the local API is, unless a configuration says otherwise."""

AGENT_KEYS = frozenset(
    {
        "api_key",
        "authtoken",
        "connect_timeout",
        "connect_url",
        "console_ui",
        "console_ui_color",
        "dns_resolver_ips",
        "heartbeat_interval",
        "heartbeat_tolerance",
        "inspect_db_size",
        "log",
        "log_format",
        "log_level",
        "metadata",
        "proxy_url",
        "remote_management",
        "update_channel",
        "update_check",
        "web_addr",
        "web_allow_hosts",
        "crl_noverify",
        "connect_cas",
    }
)
TOP_V3 = frozenset({"version", "agent", "endpoints", "tunnels"})
TOP_V2 = (AGENT_KEYS - {"connect_url", "connect_cas", "update_check"}) | {
    "version",
    "tunnels",
    "region",
    "server_addr",
    "root_cas",
    "update",
}
ENDPOINT_KEYS = frozenset(
    {"name", "url", "upstream", "bindings", "metadata", "description", "traffic_policy", "pooling_enabled"}
)
UPSTREAM_KEYS = frozenset({"url", "protocol", "proxy_protocol"})
TUNNEL_KEYS = frozenset({"proto", "addr", "remote_addr", "inspect", "metadata", "proxy_proto", "schemes", "domain"})

TOKEN = re.compile(r"[A-Za-z0-9]{20,}_[A-Za-z0-9]{10,}")
"""The shape of an authtoken. Anything else is refused as ngrok's cloud refuses it, with ERR_NGROK_105."""


class RefusedError(Exception):
    """ngrok's cloud refuses the session or the endpoint. code: as in ERR_NGROK_…"""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message}\r\n\r\nERR_NGROK_{code}\r\n")


class BadConfigurationError(Exception):
    """A configuration that ngrok does not load."""


@dataclass
class Endpoint:
    """One endpoint: what it is called, where it should be reachable (`tcp://` means anywhere), where it leads."""

    name: str
    requested_url: str
    upstream: str
    url: str = ""
    listener: socket.socket | None = None
    connections: list[socket.socket] = field(default_factory=list)


@dataclass
class Configuration:
    """What a configuration file says, whichever version it has."""

    token: str
    web_address: str
    endpoints: list[Endpoint] = field(default_factory=list)


def read_configuration(*texts: str, merges: bool = True) -> Configuration:
    """The configuration in `texts`, version 2 or 3. Raises BadConfigurationError for what ngrok would not load.

    Several are merged by key, and the later value counts; lists are overwritten (…/agent/config, "Config file merging").
    merges: whether maps are merged, too, or overwritten as lists are.
    """
    import yaml

    loaded: dict[str, Any] = {}
    for text in texts:
        try:
            one = yaml.safe_load(text)
        except yaml.YAMLError as why:
            raise BadConfigurationError(f"Error reading configuration file: {why}") from None
        if not isinstance(one, dict):
            raise BadConfigurationError("Error reading configuration file: it is no mapping")
        if loaded and str(one.get("version")) != str(loaded.get("version")):
            raise BadConfigurationError("Error reading configuration file: the files have different versions")
        for key, value in one.items():
            both = merges and isinstance(value, dict) and isinstance(loaded.get(key), dict)
            loaded[key] = {**loaded[key], **value} if both else value
    match str(loaded.get("version")):
        case "3":
            _only(loaded, TOP_V3, "the configuration")
            agent = loaded.get("agent") or {}
            _only(agent, AGENT_KEYS, "agent")
            endpoints = [_endpoint(each) for each in loaded.get("endpoints") or []]
        case "2":
            _only(loaded, TOP_V2, "the configuration")
            agent, endpoints = loaded, []
        case version:
            raise BadConfigurationError(f"Error reading configuration file: version {version} is not supported")
    named = {each.name for each in endpoints}
    tunnels = loaded.get("tunnels") or {}
    endpoints += [_tunnel(name, each) for name, each in tunnels.items() if name not in named]
    return Configuration(
        str(agent.get("authtoken") or ""), str(agent.get("web_addr") or f"127.0.0.1:{DEFAULT_PORT}"), endpoints
    )


def _only(value: Any, known: frozenset[str], where: str) -> None:
    if not isinstance(value, dict):
        raise BadConfigurationError(f"Error reading configuration file: {where} is no mapping")
    if unknown := sorted(set(value) - known):
        raise BadConfigurationError(f"Error reading configuration file: field {unknown[0]} not found in {where}")


def _endpoint(value: Any) -> Endpoint:
    _only(value, ENDPOINT_KEYS, "endpoint")
    upstream = value.get("upstream") or {}
    _only(upstream, UPSTREAM_KEYS, "upstream")
    # Without a url, an endpoint is https.
    return Endpoint(str(value.get("name", "")), str(value.get("url") or "https://"), str(upstream.get("url", "")))


def _tunnel(name: str, value: Any) -> Endpoint:
    _only(value, TUNNEL_KEYS, f"tunnel {name}")
    scheme = "tcp" if value.get("proto") == "tcp" else "https"
    address = str(value.get("addr", ""))
    upstream = address if "://" in address else f"tcp://{address if ':' in address else f'127.0.0.1:{address}'}"
    return Endpoint(name, f"{scheme}://{value.get('remote_addr') or ''}", upstream)


class Cloud:
    """What ngrok's cloud would do, and what it is told to do wrong."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._orders: tuple[tuple[int, ...], dict[str, Any]] = (), {}

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text().strip()
        except OSError:
            return ""

    def merges(self) -> bool:
        """Whether maps of two configuration files are merged (the answer to `ngrok-merge`)."""
        answers = self._read("answers.json")
        return not answers or json.loads(answers).get("ngrok-merge") != "replaces"

    def orders(self) -> dict[str, Any]:
        """What is asked for now; a file that is half written asks for nothing. It is read again when it has changed."""
        try:
            seen = os.stat(self._folder / "faults.json")
            state = seen.st_ino, seen.st_mtime_ns, seen.st_size
        except OSError:
            return {}
        if self._orders[0] != state:
            try:
                self._orders = state, dict(json.loads(self._read("faults.json")))
            except ValueError:
                return {}
        return self._orders[1]

    def admit(self, token: str) -> None:
        """Open a session, or raise RefusedError."""
        accepted = self._read("token")
        if token != accepted if accepted else not TOKEN.fullmatch(token):
            raise RefusedError(
                105, f"authentication failed: The authtoken you specified is no proper one. Your authtoken: {token}"
            )
        if code := self._read("refusal"):
            raise RefusedError(int(code), f"the request was refused. Your authtoken: {token}")

    def open(self, endpoint: Endpoint) -> None:
        """Make `endpoint` reachable, and forward what arrives."""
        host, _, port = endpoint.requested_url.removeprefix("tcp://").rpartition(":")
        if not endpoint.requested_url.startswith("tcp://"):
            endpoint.url = f"https://{endpoint.name}.ngrok.app"
            return
        requested_port = int(port) if port else int(self.orders().get("port", 0))
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", requested_port))
        except OSError:
            listener.close()
            raise RefusedError(334, f"The endpoint '{endpoint.requested_url}' is already online.") from None
        listener.listen(64)
        endpoint.listener = listener
        endpoint.url = f"tcp://{host or '127.0.0.1'}:{listener.getsockname()[1]}"
        threading.Thread(target=_accept, args=(listener, endpoint), daemon=True).start()

    def close(self, endpoint: Endpoint) -> None:
        """Let nothing through any more, and cut what is connected."""
        if endpoint.listener:
            # shutdown wakes the thread that waits in accept; close alone does not.
            with contextlib.suppress(OSError):
                endpoint.listener.shutdown(socket.SHUT_RDWR)
            endpoint.listener.close()
        for connection in endpoint.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        endpoint.listener, endpoint.url, endpoint.connections = None, "", []


def _accept(listener: socket.socket, endpoint: Endpoint) -> None:
    host, _, port = endpoint.upstream.removeprefix("tcp://").rpartition(":")
    while True:
        try:
            outside, _ = listener.accept()
        except OSError:
            return
        try:
            inside = socket.create_connection((host or "127.0.0.1", int(port)), 10)
        except OSError:
            outside.close()
            continue
        inside.settimeout(None)
        endpoint.connections.append(outside)
        for one, other in ((outside, inside), (inside, outside)):
            threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Agent:
    """`ngrok start`: one session, its endpoints, its log on standard output."""

    def __init__(self, configuration: Configuration, cloud: Cloud) -> None:
        self._configuration, self._cloud = configuration, cloud

    def run(self) -> int:
        """Until it is ended, or gives up."""
        log("starting web service", obj="web", addr=self._serve_api())
        while self._cloud.orders().get("unreachable"):
            log("failed to reconnect session", lvl="eror", obj="tunnels.session", err="dial tcp: lookup failed")
            time.sleep(0.1)
        try:
            self._connect()
            while True:
                self._obey()
                time.sleep(0.03)
        except RefusedError as why:
            log("session closing", obj="tunnels.session", err=str(why))
            for line in str(why).split("\r\n"):
                print(f"ERROR:  {line}", flush=True)
            return 1

    def _connect(self) -> None:
        self._cloud.admit(self._configuration.token)
        log("client session established", obj="tunnels.session")
        for endpoint in self._configuration.endpoints:
            self._cloud.open(endpoint)
            log("started tunnel", obj="tunnels", name=endpoint.name, addr=endpoint.upstream, url=endpoint.url)

    def _obey(self) -> None:
        orders = self._cloud.orders()
        if orders.get("crash"):
            os._exit(2)
        random = next((e for e in self._configuration.endpoints if e.requested_url == "tcp://"), None)
        moved = random and "port" in orders and random.url and not random.url.endswith(f":{orders['port']}")
        if not orders.get("lost") and not moved:
            return
        log("session closed, starting reconnect loop", lvl="eror", obj="tunnels.session", err="session closed")
        for endpoint in self._configuration.endpoints:
            self._cloud.close(endpoint)
        while self._cloud.orders().get("lost"):
            log("failed to reconnect session", lvl="eror", obj="tunnels.session", err="dial tcp: i/o timeout")
            time.sleep(0.1)
        self._connect()

    def _serve_api(self) -> str:
        from http.server import BaseHTTPRequestHandler

        agent = self

        class Api(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = agent.listing(self.path)
                body = json.dumps(content or {"error_code": 100, "status_code": 404}).encode()
                self.send_response(200 if content else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Nothing: standard output is ngrok's log."""

        host, _, port = self._configuration.web_address.rpartition(":")
        server = _listen(host or "127.0.0.1", int(port), Api)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"{host}:{server.server_address[1]}"

    def listing(self, path: str) -> dict[str, Any] | None:
        """What the local API says at `path`, or None for not found."""
        kind = self._cloud.orders().get("api")
        online = [each for each in self._configuration.endpoints if each.url]
        if path == "/api/endpoints" and kind not in ("tunnels", "none"):
            return {"endpoints": [{"name": e.name, "url": e.url, "upstream": {"url": e.upstream}} for e in online]}
        if path == "/api/tunnels" and kind != "none":
            return {"tunnels": [{"name": e.name, "public_url": e.url, "proto": "tcp"} for e in online], "uri": path}
        return None


def _listen(host: str, port: int, handler: "type[BaseHTTPRequestHandler]") -> "ThreadingHTTPServer":
    """Listen on a port, or on a later one when the default is taken."""
    from http.server import ThreadingHTTPServer

    for candidate in range(port, port + (10 if port == DEFAULT_PORT else 1)):
        with contextlib.suppress(OSError):
            return ThreadingHTTPServer((host, candidate), handler)
    return ThreadingHTTPServer((host, port), handler)


def log(message: str, lvl: str = "info", **more: str) -> None:
    """One line as `--log-format=json` writes it."""
    print(json.dumps({"lvl": lvl, "msg": message, **more, "t": time.strftime("%FT%T+0000", time.gmtime())}), flush=True)


def main(arguments: list[str]) -> int:
    """The command line, as far as the notebook's agent and the demo use it. `start` returns when it gives up."""
    match arguments:
        case ["version"] | ["--version"]:
            print(f"ngrok version {VERSION}")
            return 0
        case ["start", "--all" | "--none", "--config", path, "--log=stdout", "--log-format=json"]:
            pass
        case ["config", "check", "--config", path]:
            pass
        case _:
            print(f"ERROR:  unknown command: {' '.join(arguments)}", file=sys.stderr)
            return 1
    cloud = Cloud(Path(os.environ.get("NGROK_STAND_IN") or CLOUD))
    try:
        texts = [Path(each).read_text() for each in path.split(",")]
        configuration = read_configuration(*texts, merges=cloud.merges())
    except (OSError, BadConfigurationError) as why:
        print(f"ERROR:  {why}", file=sys.stderr)
        return 1
    if arguments[0] == "config":
        print(f"Valid configuration file at {path}")
        return 0
    if arguments[1] == "--none":
        configuration.endpoints.clear()
    return Agent(configuration, cloud).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
