"""A stand-in for the parts of AWS that the measured programs ask: always the same answers, from a process of its own.

It plays an account in the steady state, with `notebooks` notebooks, each with a configuration of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.builders import NOW, a_record, a_report

from notebook_ssh.adapters.attributes import to_attribute
from notebook_ssh.adapters.codec import encode_config_record, encode_record
from notebook_ssh.model.record import NotebookState, Record, Report
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.planning.facts import hash_of_lists
from notebook_ssh.planning.observation import LifecycleConfigRecord, NotebookSummary

PAGE = 100
RECORDS_A_PAGE = 800
"""A page of a Query holds 1 MB; a notebook's record has about 1.2 KB."""

CONFIGURATIONS_A_PAGE = 4_000
"""What is kept of a configuration has about 0.25 KB."""

BLOCK_SINCE = int(time.time()) - 5000
"""When the block was put in, in this machine's epoch seconds."""

ROLE = "arn:aws:iam::123456789012:role/demo-role"


class Account:
    """Every answer, by the operation's name in `X-Amz-Target`. mark: which block the scripts are to hold."""

    def __init__(self, notebooks: int, mark: str) -> None:
        self.mark = mark
        self.lines = [
            NotebookSummary(f"box-{i}", f"arn:aws:x:box-{i}", NotebookState.IN_SERVICE, NOW, f"team-{i}")
            for i in range(notebooks)
        ]
        self.configurations = sorted({str(line.lifecycle_config) for line in self.lines})

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """What AWS would answer to `operation`."""
        match operation:
            case "GetItem":
                return {"Item": self._get(given["Key"])}
            case "UpdateItem":
                return {"Attributes": self.one}
            case "Query":
                partition = given["ExpressionAttributeValues"][":pk"]["S"]
                if partition == "notebook":
                    return self._query(self.records, RECORDS_A_PAGE, given)
                return self._query(self.kept if partition == "lifecycle_config" else [], CONFIGURATIONS_A_PAGE, given)
            case "ListNotebookInstances":
                return _page(self.notebooks, given, "NotebookInstances", "NextToken")
            case "ListNotebookInstanceLifecycleConfigs":
                return _page(self.kept_by_sagemaker, given, "NotebookInstanceLifecycleConfigs", "NextToken")
            case "GetResources":
                (wanted,) = (each["Key"] for each in given["TagFilters"])
                found = self.tagged if wanted == "ssh" else []  # a key in another case is another key
                return _page(found, given, "ResourceTagMappingList", "PaginationToken")
            case "DescribeNotebookInstance":
                return {**self.notebooks[0], "RoleArn": ROLE, "SecurityGroups": ["sg-1"], "SubnetId": "subnet-1"}
            case "ListTags":
                return {"Tags": [{"Key": "ssh", "Value": "ngrok"}]}
        raise ValueError(f"the stand-in knows no {operation}")

    @cached_property
    def one(self) -> dict[str, Any]:
        return _item("demo", _record())

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        items = []
        for line in self.lines:
            seen = hash_of_lists(line, {"ssh": "ngrok"}, "ssh", dry_run=False)
            record = _record(name=line.name, arn=line.arn, observed_hash=seen)
            items.append(_item(line.name, record))
        return items

    @cached_property
    def kept(self) -> list[dict[str, Any]]:
        entries = [
            LifecycleConfigRecord(name, NOW * 1000, self.mark, self.mark, BLOCK_SINCE) for name in self.configurations
        ]
        return [_item(entry.name, entry) for entry in entries]

    @cached_property
    def notebooks(self) -> list[dict[str, Any]]:
        return [
            {
                "NotebookInstanceName": line.name,
                "NotebookInstanceArn": line.arn,
                "NotebookInstanceStatus": str(line.state),
                "CreationTime": NOW,
                "LastModifiedTime": line.state_since,
                "InstanceType": "ml.t3.medium",
                "Url": f"{line.name}.notebook.us-east-1.sagemaker.aws",
                "NotebookInstanceLifecycleConfigName": line.lifecycle_config,
            }
            for line in self.lines
        ] or [{}]

    @cached_property
    def kept_by_sagemaker(self) -> list[dict[str, Any]]:
        return [
            {
                "NotebookInstanceLifecycleConfigName": name,
                "NotebookInstanceLifecycleConfigArn": f"arn:aws:x:{name}",
                "CreationTime": NOW,
                "LastModifiedTime": NOW,
            }
            for name in self.configurations
        ]

    @cached_property
    def tagged(self) -> list[dict[str, Any]]:
        tags = [{"Key": "ssh", "Value": "ngrok"}, {"Key": "team", "Value": "research"}]
        return [{"ResourceARN": line.arn, "Tags": tags} for line in self.lines]

    def _get(self, key: dict[str, Any]) -> dict[str, Any]:
        if key["sk"] == {"S": "deployment"}:
            return key | {"block": {"S": self.mark}, "since": {"N": str(BLOCK_SINCE)}}
        return self.one

    @staticmethod
    def _query(items: list[dict[str, Any]], a_page: int, given: dict[str, Any]) -> dict[str, Any]:
        start = int(given.get("ExclusiveStartKey", {}).get("from", {}).get("N", 0))
        rows, end = items[start : start + a_page], start + a_page
        wanted = _wanted(given)
        more = {"LastEvaluatedKey": {"from": {"N": str(end)}}} if end < len(items) else {}
        return {"Items": [_project(item, wanted) for item in rows] if wanted else rows, "Count": len(rows)} | more


def _wanted(given: dict[str, Any]) -> list[list[str]]:
    """The attributes of a ProjectionExpression, each as its path."""
    names = given.get("ExpressionAttributeNames", {})
    expression = given.get("ProjectionExpression", "")
    return [[names[part] for part in path.strip().split(".")] for path in expression.split(",") if path]


def _project(item: dict[str, Any], wanted: list[list[str]]) -> dict[str, Any]:
    projected: dict[str, Any] = {}
    for path in wanted:
        source, target = item, projected
        for part in path[:-1]:
            source = source.get(part, {}).get("M", {})
            target = target.setdefault(part, {"M": {}})["M"]
        if path[-1] in source:
            target[path[-1]] = source[path[-1]]
    return projected


def _page(rows: list[dict[str, Any]], given: dict[str, Any], field: str, token: str) -> dict[str, Any]:
    start = int(given.get(token) or 0)
    more = {token: str(start + PAGE)} if start + PAGE < len(rows) else {}
    return {field: rows[start : start + PAGE]} | more


def _item(name: str, part: Any) -> dict[str, Any]:
    parts = encode_record(part) if isinstance(part, Record) else encode_config_record(part)
    attributes = {key: to_attribute(value) for key, value in parts.items()}
    return attributes | {"pk": {"S": "notebook"}, "sk": {"S": name}}


def _fresh() -> Report:
    """A report that was received just now by this machine's clock, which the handlers read."""
    now = int(datetime.now(UTC).timestamp())
    return a_report(received_at=now, booted_at=now - 550, connected_since=now - 400, phase_since=now - 400)


def _record(**parts: Any) -> Record:
    """A connected notebook by this machine's clock."""
    now = int(datetime.now(UTC).timestamp())
    times = {"state_since": now - 500, "started_at": now - 600, "block_since": BLOCK_SINCE, "observed_at": now - 500}
    return a_record(spec=NotebookSpec((Mode.NGROK,)), report=_fresh(), notified_status="connected", **times, **parts)


class _Server:
    """The account behind HTTP, counting what it is asked."""

    def __init__(self, account: Account, certificate: Path | None) -> None:
        self.calls: Counter[str] = Counter()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self) -> None:
                given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                outer.calls[operation] += 1
                body = json.dumps(account.answer(operation, given)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("x-amzn-RequestId", "4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)


def _serve(connection: Any, notebooks: int, mark: str, certificate: Path | None) -> None:
    import threading

    server = _Server(Account(notebooks, mark), certificate)
    threading.Thread(target=server.http.serve_forever, daemon=True).start()
    connection.send(server.http.server_address[1])
    while connection.recv() == "calls":
        connection.send(dict(server.calls))
        server.calls.clear()


@contextmanager
def standing_in(
    notebooks: int = 1, mark: str = "", certificate: Path | None = None
) -> Iterator[tuple[str, Callable[[], dict[str, int]]]]:
    """The address of a stand-in, and a function for the calls since it was last asked. certificate: speak TLS with it."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(there, notebooks, mark, certificate))
    process.start()
    port = here.recv()

    def calls() -> dict[str, int]:
        here.send("calls")
        counted: dict[str, int] = here.recv()
        return counted

    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{port}", calls
    finally:
        here.send("end")
        process.join(10)
        process.terminate()


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    path = folder / "stand-in.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True)
    with open(path, "a") as file:
        file.write((folder / "certificate.pem").read_text())
    return path
