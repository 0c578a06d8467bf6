"""The local run reaches into ministack and moto. Whatever it uses there must be there, with the same parameters.

The names are read from the source of local/emulator, so none can be forgotten; they are looked up by the emulator's
own Python, since ministack is in no other environment.
"""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

from emulator.process import LOCAL, PYTHON

SOURCES = sorted((LOCAL / "emulator").glob("*.py"))
UPSTREAM = ("ministack", "moto")

LOOK_UP = """
import importlib, json, sys
missing = []
for dotted in json.load(sys.stdin):
    module, _, rest = dotted.partition(":")
    try:
        thing = importlib.import_module(module)
    except ImportError:
        missing.append(dotted)
        continue
    for name in filter(None, rest.split(".")):
        if hasattr(thing, name):
            thing = getattr(thing, name)
            continue
        try:
            thing = importlib.import_module(f"{thing.__name__}.{name}")
        except (ImportError, AttributeError):
            missing.append(dotted)
            break
print(json.dumps(missing))
"""

PARAMETERS = {
    "ministack.core.iam_actions:extract_iam_action": "service method path headers body query_params",
    "ministack.core.iam_actions:extract_resource_arn": (
        "service method path headers body query_params region account_id"
    ),
    "ministack.core.iam_actions:verified_access_resource_arns": "query_params region account_id",
    "ministack.core.iam_actions:request_tag_context": "service iam_action body params",
    "ministack.app:_parse_execute_api_url": "host path",
    "ministack.app:_handle_execute_api_request": (
        "host path method headers body query_params raw_path raw_query_string"
    ),
    "ministack.services.apigateway_v1:_import_rest_api": "spec base_data",
    "ministack.services.apigateway_v1:_build_lambda_event_v1": (
        "api_id stage_name stage resource request_path method headers body query_params path_params"
        " binary_media_types authorizer_context caller_identity"
    ),
    "ministack.services.eventbridge:_put_events": "data allow_aws_source",
    "ministack.services.eventbridge:_dispatch_event": "event view",
    "ministack.services.eventbridge:_matches_pattern_view": "pattern_str view owner",
    "ministack.services.eventbridge:_invoke_target": "target event rule view",
    "ministack.services.kms:_resolve_key": "key_id_or_arn",
    "ministack.services.cloudwatch_logs:_put_log_events": "data",
    "ministack.app:_enforce_execute_api": "api_id stage method execute_path headers query_params iam_action",
    "ministack.services.dynamodb:_update_ttl": "data",
    "ministack.services.dynamodb:_remove_item": "table pk_val sk_val",
    "ministack.app:pin_request_origin": "source_ip secure_transport",
    "ministack.services.cloudformation.engine:_check_parameter_constraints": "name defn ptype value",
    "ministack.services.cloudformation.provisioners:_apigw_method_settings": "raw",
    "ministack.core.lambda_runtime:Worker._spawn": "self",
    "ministack.services.s3:_get_object_data": "bucket_name key version_id",
    "ministack.services.sqs:_queue_by_arn": "arn",
    "ministack.services.sts:register_session": "access_key session",
    "ministack.services.cloudwatch_logs:_compile_filter_pattern": "raw",
    "ministack.services.cloudwatch_logs:_subscription_pattern_matches": "pattern message",
    "ministack.services.cloudwatch_logs:_split_insights_pipes": "query_string",
    "ministack.services.cloudwatch_logs:_compile_insights_filter": "stage",
    "ministack.core.responses:error_response_json": "code message status extra message_key content_type",
    "moto.core.botocore_stubber:BotocoreStubber.process_request": "self request",
    "moto.sagemaker.models:SageMakerModelBackend._get_resource_from_arn": "self arn",
    "moto.moto_api._internal.managed_state_model:ManagedState.__init__": "self model_name transitions",
}
"""What is wrapped or called by name, and the parameters that are counted on."""

SIGNATURES = """
import importlib, inspect, json, sys
told = {}
for dotted in json.load(sys.stdin):
    module, _, rest = dotted.partition(":")
    try:
        thing = importlib.import_module(module)
        for name in rest.split("."):
            thing = getattr(thing, name)
        told[dotted] = " ".join(inspect.signature(thing).parameters)
    except (ImportError, AttributeError) as error:
        told[dotted] = repr(error)
print(json.dumps(told))
"""


def names_used(source: str) -> set[str]:
    """`module:attribute` for each import from upstream, and for each attribute taken from such an import."""
    tree = ast.parse(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(UPSTREAM):
            bound |= {each.asname or each.name: f"{node.module}:{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            bound |= {
                each.asname: f"{each.name}:" for each in node.names if each.asname and each.name.startswith(UPSTREAM)
            }
    used = set(bound.values())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bound:
            head = bound[node.value.id]
            used.add(f"{head}{'' if head.endswith(':') else '.'}{node.attr}")
    return used


def ask(program: str, question: object) -> object:
    done = subprocess.run(
        [str(PYTHON), "-c", program], input=json.dumps(question), capture_output=True, text=True, check=True, cwd="/"
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_every_name_used_of_upstream_is_there() -> None:
    used = sorted(set().union(*(names_used(source.read_text()) for source in SOURCES)))
    assert "ministack.services.eventbridge:_put_events" in [
        name.replace(":eventbridge.", ".eventbridge:") for name in used
    ]
    assert ask(LOOK_UP, used) == []


def test_a_renamed_name_would_be_noticed() -> None:
    source = "from ministack.services import sts\nsts.register_session_renamed({})\n"
    used = sorted(names_used(source))
    assert ask(LOOK_UP, used) == ["ministack.services:sts.register_session_renamed"]


def test_what_is_wrapped_has_the_parameters_counted_on() -> None:
    assert ask(SIGNATURES, list(PARAMETERS)) == PARAMETERS


OUTSIDE = r"""
import json, os, pathlib, re, sys
from emulator import serve
import ministack

serve._prepare_environment(1, pathlib.Path(sys.argv[1]))
variables = set()
for source in pathlib.Path(ministack.__file__).parent.rglob("*.py"):
    variables |= set(re.findall(r"environ\.get\(\s*\"(\w+)\",\s*\"/tmp", source.read_text()))
print(json.dumps({name: os.environ.get(name) for name in variables}))
"""


def test_whatever_ministack_keeps_is_in_the_folder_of_its_run(tmp_path: Path) -> None:
    """Else runs share it, one user's are in another's way, and a key stays on the disk."""
    command = [str(PYTHON), "-c", OUTSIDE, str(tmp_path)]
    kept: dict[str, str | None] = json.loads(
        subprocess.run(command, cwd=LOCAL, capture_output=True, text=True, check=True).stdout
    )
    assert {"STATE_DIR", "S3_DATA_DIR", "TMPDIR"} <= set(kept), "ministack has other names for its folders now"
    assert {name for name, folder in kept.items() if not str(folder).startswith(f"{tmp_path}/")} == set()
