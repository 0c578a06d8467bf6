"""What ministack drops of a template or does more slowly than a short run allows, put right."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime, router
from ministack.core.concurrency import esm_wake
from ministack.core.responses import get_account_id, get_region, request_scope
from ministack.services import apigateway_v1, dynamodb, lambda_svc, sqs
from ministack.services.cloudformation import changesets, engine, handlers, provisioners

from emulator.process import UNPACKED

LONGEST_INVOCATION_S = 900
"""Seconds that an invocation lasts at most."""

REAPER_SECONDS = 1
"""How often expired items are looked for. DynamoDB itself takes up to days."""


def route_sagemaker() -> None:
    """Recognise SageMaker by its target header, as the other JSON services are."""
    router.SERVICE_PATTERNS["sagemaker"] = {"target_prefixes": ["SageMaker."], "host_patterns": []}


def keep_resource_policies() -> None:
    """Keep the resource policy of an API that comes inside its OpenAPI body, as SAM writes it."""
    import_api = apigateway_v1._import_rest_api

    def with_policy(spec: dict[str, Any], base_data: dict[str, Any] | None = None) -> Any:
        policy = spec.get("x-amazon-apigateway-policy")
        given = dict(base_data or {})
        if policy:
            given["policy"] = json.dumps(policy)
        return import_api(spec, given)

    apigateway_v1._import_rest_api = with_policy


def keep_ids_of_apis() -> None:
    """Keep an API's id when its OpenAPI body changes, as PutRestApi does, where ministack makes another API."""
    handlers_of_api = provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::RestApi"]
    replace = handlers_of_api["update"]
    stores = ("_rest_apis", "_resources", "_authorizers_v1", "_models", "_gateway_responses", "_request_validators")

    def update(id_: str, old: dict[str, Any], new: dict[str, Any], stack: str, logical_id: str | None = None) -> Any:
        if new.get("Body") == old.get("Body"):
            return replace(id_, old, new, stack, logical_id)
        made, _ = handlers_of_api["create"](logical_id or id_, new, stack)
        for store in (getattr(apigateway_v1, name) for name in stores):
            store.pop(id_, None)
            if made in store:
                store[id_] = store.pop(made)
        apigateway_v1._rest_apis[id_]["id"] = id_
        return id_, provisioners._apigw_rest_api_attrs(id_)

    handlers_of_api["update"] = update


def transform_with_values() -> None:
    """Let SAM's transform insert the parameters' values, as it does in AWS, where ministack lets it insert the defaults."""
    apply = engine._apply_transforms

    def apply_transforms(template: dict[str, Any], provided: Any = None, previous: Any = None) -> Any:
        values = engine._transform_parameters(template, provided, previous)
        declared = template.get("Parameters") or {}
        given = {name: {**each, "Default": values.get(name, each.get("Default"))} for name, each in declared.items()}
        made = apply({**template, "Parameters": given}, provided, previous)
        return {**made, "Parameters": declared} if isinstance(made, dict) else made

    for module in (engine, changesets, handlers):
        module._apply_transforms = apply_transforms


def read_method_paths() -> None:
    """Read the path of a method's settings as CloudFormation writes it: ~1 for a slash (`MethodSetting`, `ResourcePath`)."""
    settings_of = provisioners._apigw_method_settings

    def with_slashes(raw: Any) -> Any:
        found = settings_of(raw)
        return {path.replace("/~1", "/").replace("~1", "/"): setting for path, setting in found.items()}

    provisioners._apigw_method_settings = with_slashes


def keep_table_settings() -> None:
    """Keep a table's time to live and point-in-time recovery, and let items expire soon after their time."""
    make = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]["create"]

    def create(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        made = make(logical_id, props, stack_name)
        name = made[0]
        lifetime = props.get("TimeToLiveSpecification")
        if lifetime:
            dynamodb._update_ttl({"TableName": name, "TimeToLiveSpecification": lifetime})
            _expire_for_ever(get_account_id(), get_region(), name, lifetime["AttributeName"])
        if props.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            dynamodb._pitr_settings[name] = True
        return made

    provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]["create"] = create


def _expire_for_ever(account: str, region: str, table_name: str, attribute: str) -> None:
    def reap() -> None:
        while True:
            time.sleep(REAPER_SECONDS)
            with request_scope(account, region), dynamodb._lock:
                table = dynamodb._tables.get(table_name)
                if table is None:
                    return
                for pk, items in list(table["items"].items()):
                    for sk, item in list(items.items()):
                        if float(item.get(attribute, {}).get("N", "inf")) <= time.time():
                            dynamodb._remove_item(table, pk, sk)

    threading.Thread(target=reap, name=f"expire-{table_name}", daemon=True).start()


SHOWN_ONLY = ("AWS::Logs::QueryDefinition", "AWS::CloudWatch::Alarm")
"""Resource types that only people look at, and that ministack does not know or, without metrics, cannot act on."""


def accept_what_is_only_shown() -> None:
    """Let a stack have resources of the types `SHOWN_ONLY`. They are accepted, and do nothing."""

    def create(logical_id: str, _props: dict[str, Any], stack_name: str) -> tuple[str, dict[str, str]]:
        made = f"{stack_name}-{logical_id}"
        return made, {"QueryDefinitionId": made, "Arn": made}

    def delete(_physical_id: str, _props: dict[str, Any]) -> None:
        """Nothing was made."""

    for kind in SHOWN_ONLY:
        provisioners._RESOURCE_HANDLERS[kind] = {"create": create, "delete": delete}


ONLY_IN_PRODUCTION = {"SyncSeconds", "SweepMinutes", "NgrokDownload"}
"""Parameters whose limits a real deployment is held to and a short run on one machine cannot live with."""


def lift_limits() -> None:
    """Take any value for the parameters `ONLY_IN_PRODUCTION`; all others keep their limits."""
    check = engine._check_parameter_constraints

    def lifted(name: str, defn: dict[str, Any], ptype: str, value: str) -> None:
        if name not in ONLY_IN_PRODUCTION:
            check(name, defn, ptype, value)

    engine._check_parameter_constraints = lifted


def unpack_layers(place: Path) -> None:
    """Show what a layer holds in `place`, which stands for /opt; ministack mounts nothing there.

    A newer version takes the place of the older one at once, as functions may be reading it. A function imports from the
    version that it was deployed with: ministack would unpack that once more for each process of each function.
    """
    make = provisioners._RESOURCE_HANDLERS["AWS::Lambda::LayerVersion"]["create"]
    versions: dict[str, Path] = {}

    def create(logical_id: str, props: dict[str, Any], stack_name: str) -> Any:
        archive = provisioners._s3._get_object_data(props["Content"]["S3Bucket"], props["Content"]["S3Key"])
        place.mkdir(parents=True, exist_ok=True)
        unpacked = _unpacked(archive)
        for part in list(unpacked.iterdir()):
            link = place / f"{part.name}.link"
            link.symlink_to(part)
            link.replace(place / part.name)
        made = make(logical_id, props, stack_name)
        versions[made[0]] = unpacked
        return made

    provisioners._RESOURCE_HANDLERS["AWS::Lambda::LayerVersion"]["create"] = create
    _import_from(versions)


def _unpacked(archive: bytes) -> Path:
    """The folder with what `archive` holds, kept for later runs: to unpack a layer is a third of a deployment."""
    folder = UNPACKED / hashlib.sha256(archive).hexdigest()[:16]
    if not folder.exists():
        UNPACKED.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=UNPACKED))
        with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
            zipped.extractall(new)
        try:
            new.rename(folder)
        except OSError:  # another run was faster
            shutil.rmtree(new)
    folder.touch()
    return folder


def _import_from(versions: Mapping[str, Path]) -> None:
    """Let functions' processes import layers from the folders `versions`, by the layer version's ARN."""
    spawn = lambda_runtime.Worker._spawn

    def spawn_without_unpacking(worker: Any) -> Any:
        config = worker.config
        folders = [versions[layer["Arn"]] for layer in config.get("Layers", ())]
        variables = config.get("Environment", {}).get("Variables", {})
        places = {"_LAMBDA_LAYERS_DIRS": os.pathsep.join(map(str, folders))}
        worker.config = {**config, "Layers": [], "Environment": {"Variables": {**variables, **places}}}
        try:
            return spawn(worker)
        finally:
            worker.config = config

    lambda_runtime.Worker._spawn = spawn_without_unpacking


def let_invocations_finish() -> None:
    """Let an invocation end on the version on which it began when its function gets other code or settings, as Lambda does.

    ministack kills it, and its messages would come back only after their queue's visibility timeout.
    """
    kill, updating = lambda_runtime.kill_workers, threading.local()

    def kill_when_idle(workers: Iterable[Any]) -> None:
        found = [each for each in workers if each is not None]
        busy = [each for each in found if each.in_use] if getattr(updating, "now", False) else []
        kill([each for each in found if each not in busy])
        if busy:
            threading.Thread(target=_kill_later, args=(busy, kill), daemon=True).start()

    def gently(update: Callable[[str, dict[str, Any]], Any]) -> Callable[[str, dict[str, Any]], Any]:
        def updated(name: str, data: dict[str, Any]) -> Any:
            updating.now = True
            try:
                return update(name, data)
            finally:
                updating.now = False

        return updated

    lambda_runtime.kill_workers = kill_when_idle
    lambda_svc._update_code = gently(lambda_svc._update_code)
    lambda_svc._update_config = gently(lambda_svc._update_config)


def _kill_later(workers: list[Any], kill: Callable[[list[Any]], None]) -> None:
    deadline = time.monotonic() + LONGEST_INVOCATION_S
    while any(each.in_use for each in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    kill(workers)


def move_dead_letters() -> None:
    """Know StartMessageMoveTask: dead letters go back to the queue that they came from, and count as new there."""

    def start(data: dict[str, Any], _url: str) -> dict[str, str]:
        source = str(data.get("SourceArn", ""))
        dead = sqs._queue_by_arn(source)
        if dead is None:
            raise sqs._Err("ResourceNotFoundException", f"There is no queue {source}.")
        for queue in list(sqs._queues.values()):
            policy = json.loads(queue["attributes"].get("RedrivePolicy", "{}"))
            if policy.get("deadLetterTargetArn") == source:
                _move_all(dead, queue)
                esm_wake.set()
                return {"TaskHandle": source}
        raise sqs._Err("InvalidParameterValue", f"No queue sends its dead letters to {source}.")

    sqs._HANDLERS["StartMessageMoveTask"] = start


def _move_all(dead: dict[str, Any], queue: dict[str, Any]) -> None:
    for message in dead["messages"]:
        queue["messages"].append(message | {"receive_count": 0, "receipt_handle": None, "visible_at": time.time()})
    dead["messages"] = []


CLOCK = """
import os, time

def _set_clock(ahead, now=time.time):
    time.time = lambda: now() + ahead

_set_clock(float(os.environ.get("CLOCK_AHEAD", "0")))
"""
"""What a function runs before all else: its clock is ahead by as many seconds as its environment says."""


def let_clocks_be_set() -> None:
    """Let a function's clock be wrong (`LocalEnv.set_functions_clocks`). Signatures keep the machine's time."""
    lambda_runtime._PYTHON_WORKER_SCRIPT = CLOCK + lambda_runtime._PYTHON_WORKER_SCRIPT
