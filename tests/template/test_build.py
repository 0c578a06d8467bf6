"""What is deployed is complete, small, the same every time, and compiled for good."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import artifact
import boto3
import botocore.session
import calls
import pytest
import size
from support.stack import PROJECT, source

from notebook_ssh.adapters.attributes import item_of, to_attribute
from patience import LIMIT_S

MAKE = """
import boto3.session, botocore.session
session = boto3.session.Session(aws_access_key_id="a", aws_secret_access_key="b")
def make(service, region):
    return session.client(service, region_name=region)
"""
DESCRIBE = """
def members(shape, seen=()):
    if shape is None or shape.name in seen:
        return None
    seen = (*seen, shape.name)
    if shape.type_name == "structure":
        return {name: members(part, seen) for name, part in sorted(shape.members.items())}
    if shape.type_name == "list":
        return [members(shape.member, seen)]
    if shape.type_name == "map":
        return [members(shape.key, seen), members(shape.value, seen)]
    return shape.type_name

def describe(session, service):
    model = session.get_service_model(service)
    operations = map(model.operation_model, model.operation_names)
    return {
        operation.name: [
            members(operation.input_shape),
            members(operation.output_shape),
            sorted(error.name for error in operation.error_shapes),
        ]
        for operation in operations
    }
"""

HANDLERS = sorted(path.parent.name for path in (PROJECT / "functions").glob("*/handler.py"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three parts, in a folder whose name has a blank, compiled by the Python that runs the tests."""
    folder = tmp_path_factory.mktemp("the build")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TARGET_PYTHON", sys.executable)
        for part in ("core", "functions", "notebook_agent"):
            artifact.build(part, folder / part)
    return folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pinned dependencies, as the wheels have them."""
    folder = tmp_path_factory.mktemp("wheels")
    artifact._install(folder)
    return folder


def in_lambda(built: Path, program: str) -> Any:
    """What `program` prints as JSON, run with nothing importable but the artifact and the standard library."""
    paths = [str(built / "core" / "python"), str(built / "functions")]
    start = f"import sys, json; sys.path[:0] = {paths!r}\n{program}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", start], capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", HANDLERS)
def test_a_handler_starts_with_nothing_but_what_is_deployed(built: Path, name: str) -> None:
    loaded = in_lambda(built, f"import {name}.handler as h; assert h.handle; print(json.dumps(list(sys.modules)))")
    roots = {module.partition(".")[0] for module in loaded}
    assert not roots & {"pydantic", "aws_xray_sdk"}


def test_every_client_can_be_made_and_speaks_to_the_same_address_as_with_all_of_botocore(built: Path) -> None:
    services = sorted({service for service, _ in calls.all_calls()})
    asked = [(service, region) for service in services for region in ("eu-central-1", "us-gov-west-1", "cn-north-1")]
    found = in_lambda(
        built,
        f"{MAKE}print(json.dumps([make(s, r).meta.endpoint_url for s, r in {asked!r}]))",
    )
    whole = botocore.session.Session()
    keys: dict[str, Any] = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    for (service, region), address in zip(asked, found, strict=True):
        client = whole.create_client(service, region_name=region, **keys)
        assert address == client.meta.endpoint_url, (service, region)


def test_every_operation_that_the_code_calls_is_packed_whole_and_no_other(built: Path) -> None:
    """The models that are packed know the same members and errors as botocore's own."""
    services = sorted({service for service, _ in calls.all_calls()})
    found = in_lambda(
        built,
        f"{MAKE}{DESCRIBE}whole = botocore.session.get_session()\nprint(json.dumps({{s: describe(whole, s) for s in {services!r}}}))",
    )
    scope: dict[str, Any] = {}
    exec(DESCRIBE, scope)
    for service in services:
        whole = scope["describe"](botocore.session.Session(), service)
        expected = {name for name in whole if (service, botocore.xform_name(name)) in calls.all_calls()}
        assert set(found[service]) == expected
        for name in expected:
            # As JSON: `found` came through it.
            assert found[service][name] == json.loads(json.dumps(whole[name])), (service, name)


KEPT = {
    "text": "ä",
    "none": None,
    "yes": True,
    "number": 7,
    "list": ["a", 1, []],
    "map": {"deep": {"deeper": [None, {"x": "y"}]}},
}
EXCHANGE = """
import json
from botocore.awsrequest import AWSResponse
def exchange(client, item, answer):
    sent, log = [], client.meta.events
    class Raw:
        def stream(self, **_):
            yield json.dumps(answer).encode()
    def respond(request, **_):
        sent.append(json.loads(request.body))
        return AWSResponse("https://x/", answer.pop("status"), {}, Raw())
    log.register("before-send", respond)
    try:
        got = client.update_item(TableName="t", Key={"pk": item["text"]}, ExpressionAttributeValues=item)
        got = [got["Attributes"]]
    except client.exceptions.ConditionalCheckFailedException as refused:
        got = [refused.response["Item"], refused.response["Error"]["Code"]]
    return [sent, got]
"""


@pytest.mark.parametrize("status", [200, 400])
def test_the_packed_client_sends_and_answers_items_as_all_of_botocore_does(built: Path, status: int) -> None:
    """Also within the answer to a write that was refused."""
    item = {name: to_attribute(value) for name, value in KEPT.items()}
    kind = "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException"
    answer: dict[str, Any] = {"Attributes": item} if status == 200 else {"__type": kind, "message": "", "Item": item}
    answer["status"] = status
    asked = f"{item!r}, {answer!r}"
    packed = in_lambda(built, f"{MAKE}{EXCHANGE}print(json.dumps(exchange(make('dynamodb', 'eu-central-1'), {asked})))")
    scope: dict[str, Any] = {}
    exec(f"{MAKE}{EXCHANGE}whole = exchange(make('dynamodb', 'eu-central-1'), {asked})", scope)
    assert packed == scope["whole"]
    assert item_of(packed[1][0]) == KEPT


@pytest.mark.parametrize("value", [b"bytes", {"a", "set"}])
def test_what_the_packed_client_would_not_translate_is_never_kept(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        to_attribute(value)


def test_the_code_of_every_library_is_what_its_wheel_has(built: Path) -> None:
    """Only data is left out: all code is there, and no byte of it is another."""
    whole = Path(boto3.__file__).parent.parent
    packages = {line.partition("/")[0] for line in files(built / "core" / "python")} - {"notebook_ssh"}
    seen = 0
    for package in sorted(name for name in packages if not name.endswith(".dist-info")):
        modules = [whole / package] if package.endswith(".py") else sorted((whole / package).rglob("*.py"))
        for module in modules:
            packed = built / "core/python" / module.relative_to(whole)
            assert packed.read_bytes() == module.read_bytes(), packed
            seen += 1
    assert seen > 300


def test_what_is_left_of_the_data_says_what_the_wheel_says(built: Path) -> None:
    """Documentation and what no operation of ours names are left out; whatever is there is as it was."""
    packed, whole = (folder / "botocore/data" for folder in (built / "core/python", Path(boto3.__file__).parent.parent))
    seen = 0
    for path in packed.rglob("*.json*"):
        source = whole / path.relative_to(packed)
        source = source if source.is_file() else source.with_name(f"{source.name}.gz")
        assert_part_of(_json(path), _json(source), str(path.relative_to(packed)))
        seen += 1
    assert seen > 20


def _json(path: Path) -> Any:
    return json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())


def assert_part_of(found: Any, whole: Any, place: str) -> None:
    if isinstance(found, dict):
        for name, value in found.items():
            assert name in whole, f"{place}.{name}"
            assert_part_of(value, whole[name], f"{place}.{name}")
    elif isinstance(found, list) and found and isinstance(found[0], dict):
        assert len(found) == len(whole), place
        for number, pair in enumerate(zip(found, whole, strict=True)):
            assert_part_of(*pair, f"{place}[{number}]")
    else:
        assert found == whole, place


def test_the_layer_trusts_whom_botocore_trusts(built: Path) -> None:
    own = Path(botocore.session.__file__).parent / "cacert.pem"
    assert (built / "core/python/botocore/cacert.pem").read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("used", "why"),
    [
        ({"dynamodb": {"get_item"}, "sqs": {"shred_queue"}}, "sqs has no operation shredqueue"),
        ({"notebookssh": {"connect"}}, "no data for notebookssh"),
    ],
)
def test_what_botocore_does_not_know_fails_the_build(wheels: Path, tmp_path: Path, used: Any, why: str) -> None:
    site = shutil.copytree(wheels, tmp_path / "site")
    with pytest.raises(artifact.BuildError, match=why):
        artifact._prune(site, used)


def test_every_module_has_bytecode_that_is_never_checked_against_its_source(built: Path) -> None:
    seen = 0
    for part in ("core", "functions"):
        for module in (built / part).rglob("*.py"):
            compiled = Path(importlib.util.cache_from_source(str(module)))
            assert compiled.is_file(), module
            flags = int.from_bytes(compiled.read_bytes()[4:8], "little")
            assert flags == 0b01, module  # PEP 552: hash-based, not checked
            seen += 1
    assert seen > 300


def test_tracebacks_show_the_paths_of_lambda(built: Path) -> None:
    compiled = importlib.util.cache_from_source(str(built / "core/python/notebook_ssh/settings.py"))
    content = Path(compiled).read_bytes()
    assert b"/opt/python/notebook_ssh/settings.py" in content
    assert str(built).encode() not in content


def test_without_the_runtimes_python_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TARGET_PYTHON", str(tmp_path / "no-such-python"))
    artifact.build("functions", tmp_path / "functions")
    assert "no bytecode" in capsys.readouterr().err
    assert not list((tmp_path / "functions").rglob("*.pyc"))
    assert (tmp_path / "functions" / HANDLERS[0] / "handler.py").is_file()


def test_the_same_source_gives_the_same_bytes_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("functions", "layers"):
        shutil.copytree(PROJECT / part, tmp_path / "source" / part)
    monkeypatch.setattr(artifact, "PROJECT", tmp_path / "source")
    monkeypatch.setenv("TARGET_PYTHON", sys.executable)
    for part in ("core", "functions", "notebook_agent"):
        artifact.build(part, tmp_path / "first" / part)
        artifact.build(part, tmp_path / "second" / part)
        assert files(tmp_path / "first" / part) == files(tmp_path / "second" / part), part
    times = {path.stat().st_mtime for path in (tmp_path / "first").rglob("*") if path.is_file()}
    assert times == {artifact.EARLIEST}


def test_a_given_time_is_the_files_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    artifact.build("notebook_agent", tmp_path / "agent")
    assert {os.stat(path).st_mtime for path in (tmp_path / "agent").rglob("*")} == {1700000000}


def test_the_agent_is_built_where_the_functions_read_it(built: Path) -> None:
    assert {f"notebook_agent/{name}" for name in ("agent.py", "block.sh", "loader.py", "worker/daemon.py")} <= set(
        files(built / "notebook_agent")
    )


def test_nothing_is_packed_that_no_function_uses(built: Path) -> None:
    for name in (*files(built / "core"), *files(built / "functions")):
        assert not name.endswith((".so", "Makefile", "/RECORD", "examples-1.json.gz")), name
        assert not name.startswith(("python/boto3/data/", "python/boto3/examples/", "python/bin/")), name


def test_all_of_it_stays_below_the_limit(built: Path) -> None:
    found = size.sizes(built)
    assert sum(found.values()) <= size.LIMIT, found


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(artifact.BuildError, match="not empty"):
        artifact.build("core", tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_build_is_for_the_runtime_that_the_template_names() -> None:
    assert source()["Globals"]["Function"]["Runtime"] == f"python{artifact.RUNTIME}"
    assert source()["Globals"]["Function"]["Architectures"] == ["arm64"]
    assert "aarch64" in artifact.PLATFORM


def test_sam_finds_a_target_for_everything_it_builds() -> None:
    for name, resource in source()["Resources"].items():
        folder = {
            "AWS::Serverless::Function": "functions",
            "AWS::Serverless::LayerVersion": resource.get("Properties", {}).get("ContentUri"),
        }.get(resource["Type"])
        if folder is None:
            continue
        # SAM warns of a layer that does not say for which architecture it is built.
        layers = {"BuildArchitecture": "arm64"} if resource["Type"] == "AWS::Serverless::LayerVersion" else {}
        assert resource["Metadata"] == {"BuildMethod": "makefile", "WorkingDirectory": "."} | layers, name
        done = subprocess.run(
            ["make", "--dry-run", "--makefile", f"{folder}/Makefile", f"build-{name}", "ARTIFACTS_DIR=somewhere"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "packaging/artifact.py" in done.stdout
