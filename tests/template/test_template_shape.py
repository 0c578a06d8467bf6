"""What holds for the template as a whole: its parameters, its API, its environment, what it keeps and what it hides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from support.stack import PROJECT, WITH_BASTION, WITH_CERTIFICATES, WITH_ENDPOINT, WITH_EVERYTHING, Stack, source

from notebook_ssh.settings import read_settings

TEXT = (PROJECT / "template.yaml").read_text("utf-8")


class Asked(dict[str, str]):
    """An environment in which every variable is set, and that remembers which were asked for."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return super().get(name, "60")

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def environments(stack: Stack) -> dict[str, dict[str, str]]:
    return {
        name: function["Environment"]["Variables"] for name, function in stack.of_type("AWS::Lambda::Function").items()
    }


LOCAL_ONLY = {"ALLOW_LOOPBACK_ADDRESSES"}
"""Read by the settings, and never set by a real stack: the local run puts it into the functions it starts."""

OF_SOME = {
    "API_URL",
    "CERTIFICATE_AUTHORITIES",
    "CERTIFICATE_KEY",
    "CERTIFICATE_SECONDS",
    "END_SESSIONS",
    "ACCESS_DAYS",
}
"""Set for the functions that use it: the API and the public keys cannot be known before some of the others are there."""

BY_LAMBDA = {"AWS_REGION"}
"""Set by Lambda itself."""


def test_the_template_sets_what_the_settings_read_and_nothing_else() -> None:
    asked = Asked({"BASTION_SECURITY_GROUP": "sg-1", "ENDPOINT_ID": "eice-1"})
    read_settings(asked)
    variables = environments(Stack(**WITH_EVERYTHING))
    powertools = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL"}
    set_for_all, set_for_any = set.intersection(*map(set, variables.values())), set.union(*map(set, variables.values()))
    assert set_for_any - set_for_all == OF_SOME
    assert set_for_any - powertools == asked.names - LOCAL_ONLY - BY_LAMBDA


def test_every_function_reads_its_settings_without_error() -> None:
    for name, variables in environments(Stack(**WITH_BASTION)).items():
        assert all(isinstance(value, str) for value in variables.values()), name
        settings = read_settings({**variables, "AWS_REGION": "eu-central-1"})
        assert settings.bastion is not None, name
        assert settings.bastion.client_cidrs == ("198.51.100.0/24",), name
        assert not settings.allow_loopback, name


def test_nothing_in_the_template_can_allow_loopback_addresses() -> None:
    assert "LOOPBACK" not in TEXT.upper()


def test_those_who_write_the_block_know_the_address_of_the_api() -> None:
    variables = environments(Stack())
    knowing = {name for name in variables if "API_URL" in variables[name]}
    assert knowing == {"ReconcileNotebook", "Sweep", "Uninstall"}
    assert variables["Sweep"]["API_URL"] == variables["ReconcileNotebook"]["API_URL"]
    assert variables["Sweep"]["API_URL"] == "https://<Api>.execute-api.eu-central-1.amazonaws.com/v1"
    own = environments(Stack(ApiUrl="https://ssh.example.com/v1"))
    assert own["ReconcileNotebook"]["API_URL"] == own["Sweep"]["API_URL"] == "https://ssh.example.com/v1"


def test_those_who_send_the_agent_carry_it() -> None:
    layers = {name: len(function["Layers"]) for name, function in Stack().of_type("AWS::Lambda::Function").items()}
    assert {name for name, count in layers.items() if count == 2} == {
        "ReconcileNotebook",
        "Sweep",
        "RecordAddress",
        "Uninstall",
    }


def test_every_function_has_a_handler_in_the_tree() -> None:
    for name, function in Stack(**WITH_EVERYTHING).of_type("AWS::Lambda::Function").items():
        module, _, attribute = function["Handler"].rpartition(".")
        path = PROJECT / "functions" / (module.replace(".", "/") + ".py")
        assert path.is_file(), name
        assert f"def {attribute}(" in path.read_text("utf-8"), name


def test_every_handler_in_the_tree_is_deployed() -> None:
    handlers = {function["Handler"] for function in Stack(**WITH_EVERYTHING).of_type("AWS::Lambda::Function").values()}
    found = {f"{path.parent.name}.handler.handle" for path in (PROJECT / "functions").glob("*/handler.py")}
    assert handlers == found


def test_functions_are_arm_on_the_pinned_python_and_take_no_concurrency_from_the_account() -> None:
    for name, function in Stack().of_type("AWS::Lambda::Function").items():
        assert function["Architectures"] == ["arm64"], name
        assert function["Runtime"] == "python3.13", name
        assert "ReservedConcurrentExecutions" not in function, name
        assert function["TracingConfig"] == {"Mode": "PassThrough"}, name


def test_every_function_logs_into_its_own_group_which_forgets() -> None:
    stack = Stack(LogDays="14")
    groups = stack.of_type("AWS::Logs::LogGroup")
    assert all(group["RetentionInDays"] == "14" for group in groups.values())
    used = [function["LoggingConfig"]["LogGroup"] for function in stack.of_type("AWS::Lambda::Function").values()]
    assert len(set(used)) == len(used)
    assert set(used) <= {f"<{name}>" for name in groups}


def operations(stack: Stack) -> Iterator[tuple[str, str, dict[str, Any]]]:
    (api,) = stack.of_type("AWS::ApiGateway::RestApi").values()
    for path, methods in api["Body"]["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_method_demands_a_signature_and_calls_with_the_apis_own_right() -> None:
    stack = Stack()
    (api,) = stack.of_type("AWS::ApiGateway::RestApi").values()
    schemes = api["Body"]["components"]["securitySchemes"]
    assert schemes["AWS_IAM"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    found = list(operations(stack))
    assert found
    for method, path, operation in found:
        assert operation["security"] == [{"AWS_IAM": []}], (method, path)
        assert "credentials" not in operation["x-amazon-apigateway-integration"], (method, path)


def test_the_routes_are_those_that_the_functions_serve() -> None:
    from notebook_ssh.controllers.lookup import ROUTES

    found = {(method.upper(), path) for method, path, _ in operations(Stack())}
    served = {*ROUTES, ("POST", "/notebooks/{name}/report"), ("POST", "/notebooks/{name}/start")}
    assert found == served


def policy_of_the_api(stack: Stack) -> dict[str, dict[str, Any]]:
    (api,) = stack.of_type("AWS::ApiGateway::RestApi").values()
    return {statement["Sid"]: statement for statement in api["Body"]["x-amazon-apigateway-policy"]["Statement"]}


def test_the_api_is_open_to_the_account_alone() -> None:
    policy = policy_of_the_api(Stack())
    assert set(policy) == {"LookUp", "Report", "Start"}
    for statement in policy.values():
        assert statement["Condition"]["StringEquals"] == {"aws:PrincipalAccount": "111122223333"}
        assert statement["Condition"]["StringLike"] == {"aws:PrincipalArn": ["*"]}


def test_who_may_look_up_start_and_report_can_be_narrowed_apart() -> None:
    people, wakers, notebooks = ("arn:aws:iam::111122223333:role/" + name for name in ("people", "wakers", "nb-*"))
    several = f"{notebooks},{people}"
    policy = policy_of_the_api(Stack(LookupPrincipals=people, StartPrincipals=wakers, ReportPrincipals=several))
    allowed = {name: policy[name]["Condition"]["StringLike"]["aws:PrincipalArn"] for name in policy}
    assert allowed == {"LookUp": [people], "Start": [wakers], "Report": [notebooks, people]}
    assert policy["Report"]["Resource"] == "execute-api:/v1/POST/notebooks/*/report"
    assert policy["Start"]["Resource"] == "execute-api:/v1/POST/notebooks/*/start"


def test_every_route_is_named_by_a_statement_and_no_other() -> None:
    stack = Stack()
    named = [
        resource
        for statement in policy_of_the_api(stack).values()
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    ]
    assert sorted(named) == sorted(
        f"execute-api:/v1/{method.upper()}{path.replace('{name}', '*')}" for method, path, _ in operations(stack)
    )


def test_the_lists_together_are_limited_to_two_a_second() -> None:
    (stage,) = Stack().of_type("AWS::ApiGateway::Stage").values()
    limits = {each["ResourcePath"]: each for each in stage["MethodSettings"]}
    lists = {f"/~1{path}": limits.get(f"/~1{path}") for path in ("notebooks", "ssh-config", "known-hosts", "plan")}
    assert all(limit and limit["HttpMethod"] == "GET" for limit in lists.values())
    assert sum(limit["ThrottlingRateLimit"] for limit in lists.values() if limit) <= 2
    assert limits["/*"]["ThrottlingRateLimit"] >= 100


def test_users_have_a_policy_that_outputs_and_refusals_name() -> None:
    stack = Stack(LookupPrincipals="arn:aws:iam::111122223333:role/nobody")
    statements = stack.of_type("AWS::IAM::ManagedPolicy")["NotebookSshUser"]["PolicyDocument"]["Statement"]
    invoked = {each for statement in statements if statement["Sid"] != "Setup" for each in statement["Resource"]}
    routes = {f"{method.upper()}{path.replace('{name}', '*')}" for method, path, _ in operations(stack)}
    api = "arn:aws:execute-api:eu-central-1:111122223333:<Api>/v1/"
    assert {each.removeprefix(api) for each in invoked} == routes - {"POST/notebooks/*/report"}
    assert stack.outputs["UserPolicyArn"] == "<NotebookSshUser>"
    (api_resource,) = stack.of_type("AWS::ApiGateway::RestApi").values()
    responses = api_resource["Body"]["x-amazon-apigateway-gateway-responses"]
    for kind in ("ACCESS_DENIED", "MISSING_AUTHENTICATION_TOKEN", "INVALID_SIGNATURE", "EXPIRED_TOKEN"):
        template = responses[kind]["responseTemplates"]["application/json"]
        body = json.loads(template.replace("$context.error.messageString", '"no"').replace("$context.error.", ""))
        assert body["policy"].startswith("notebook-ssh-NotebookSshUser"), kind
    assert "WhoMayCall" not in stack.outputs
    assert "Tunnel" not in {statement["Sid"] for statement in statements}
    assert "every principal" in Stack().outputs["WhoMayCall"]


def test_users_may_open_tunnels_to_ssh_through_an_endpoint_that_the_stack_made() -> None:
    """Through one that was there before, they would reach port 22 of whatever its own group permits."""

    def tunnel(given: dict[str, str]) -> list[Any]:
        policy = Stack(**given).of_type("AWS::IAM::ManagedPolicy")["NotebookSshUser"]["PolicyDocument"]
        return [each for each in policy["Statement"] if each["Sid"] == "Tunnel"]

    (statement,) = tunnel(WITH_ENDPOINT)
    assert statement["Action"] == ["ec2-instance-connect:OpenTunnel"]
    assert statement["Resource"] == "arn:aws:ec2:eu-central-1:111122223333:instance-connect-endpoint/<Endpoint>"
    assert statement["Condition"] == {"NumericEquals": {"ec2-instance-connect:remotePort": "22"}}
    assert tunnel({"EndpointId": "eice-0a1b2c3d4e5f60718", "EndpointVpc": "vpc-0a1b2c3d4e5f60718"}) == []


def test_a_private_api_is_reached_through_its_endpoints_alone() -> None:
    (api,) = Stack(ApiVpcEndpoints="vpce-0a1b2c3d,vpce-1a2b3c4d").of_type("AWS::ApiGateway::RestApi").values()
    assert api["EndpointConfiguration"] == {"Types": ["PRIVATE"], "VpcEndpointIds": ["vpce-0a1b2c3d", "vpce-1a2b3c4d"]}
    (api,) = Stack().of_type("AWS::ApiGateway::RestApi").values()
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    denied = policy_of_the_api(Stack(ApiVpcEndpoints="vpce-0a1b2c3d,vpce-1a2b3c4d"))["OnlyThroughTheEndpoints"]
    assert (denied["Effect"], denied["Resource"]) == ("Deny", "execute-api:/*")
    assert denied["Condition"] == {"StringNotEquals": {"aws:SourceVpce": ["vpce-0a1b2c3d", "vpce-1a2b3c4d"]}}


def test_every_parameter_is_described_labelled_grouped_once_and_has_a_default() -> None:
    template = source()
    parameters = template["Parameters"]
    interface = template["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in interface["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(parameters)
    assert set(interface["ParameterLabels"]) == set(parameters)
    for name, parameter in parameters.items():
        assert parameter["Description"], name
        assert "Default" in parameter, name
        free_text = parameter["Type"] == "String" and "AllowedValues" not in parameter
        assert not free_text or ("AllowedPattern" in parameter and "ConstraintDescription" in parameter), name
        if "AllowedPattern" in parameter:
            assert re.fullmatch(parameter["AllowedPattern"], parameter["Default"]), name


GOOD = {
    "TagKey": ["ssh", "team.ssh", "SSH_2"],
    "DefaultLifecycleConfig": ["better-sagemaker", "a"],
    "NgrokSecretArn": ["arn:aws-us-gov:secretsmanager:us-gov-west-1:111122223333:secret:ngrok-AbCdEf"],
    "NgrokDownload": ["https://bucket.s3.amazonaws.com/ngrok-v3-stable-linux-{arch}.tgz"],
    "NgrokSha256": ["0" * 64],
    "LookupPrincipals": ["*", "arn:aws:iam::111122223333:role/*,arn:aws:iam::111122223333:user/maria"],
    "ApiVpcEndpoints": ["vpce-0a1b2c3d,vpce-1a2b3c4d"],
    "BastionHost": ["bastion.example.com", "203.0.113.7", "2001:db8::7"],
    "BastionClientCidrs": ["198.51.100.0/24", "198.51.100.0/24,2001:db8::/32, pl-0a1b2c3d"],
    "BastionHostKeys": ["", "ssh-ed25519 AAAA+/1=", "ssh-ed25519 AAAA, ecdsa-sha2-nistp256 AAAA,ssh-rsa AAAA=="],
    "ApiUrl": ["https://ssh.example.com", "https://ssh.example.com/v1"],
    "PermissionsBoundary": ["arn:aws:iam::111122223333:policy/boundary", "arn:aws-cn:iam::aws:policy/PowerUserAccess"],
    "KeyArn": ["arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-4000-8000-000000000000"],
    "NotebookRoleArns": ["arn:aws:iam::111122223333:role/a,arn:aws-cn:iam::111122223333:role/team/*"],
    "RepositorySecrets": ["arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonSageMaker-git-*"],
}
BAD = {
    "TagKey": ["", "aws:ssh", "9ssh", "ssh key", "s" * 101],
    "DefaultLifecycleConfig": ["Better", "-a", "a-", "a" * 64],
    "NgrokSecretArn": ["ngrok", "arn:aws:s3:::bucket"],
    "NgrokDownload": ["http://example.com/ngrok.tgz", "https://example.com/a b", "https://example.com/$(id)"],
    "NgrokSha256": ["0" * 63, "F" * 64],
    "LookupPrincipals": ["", "a, b", "a,"],
    "ApiVpcEndpoints": ["vpce-", "vpc-0a1b2c3d"],
    "BastionHost": ["-oProxyCommand=id", "a b", "a;b"],
    "BastionUser": ["", "-l", "Maria"],
    "BastionSecurityGroup": ["sg-", "default"],
    "BastionVpc": ["vpc-xyz"],
    "BastionHostKeys": ["AAAA", "ssh-ed25519", "ssh-dss AAAA", "bastion ssh-ed25519 AAAA", "ssh-ed25519 AAAA; x"],
    "BastionClientCidrs": ["everyone", "198.51.100.0/24;"],
    "ApiUrl": ["http://ssh.example.com", "https://ssh.example.com/", "https://ssh.example.com/v1?x=1"],
    "PermissionsBoundary": ["boundary"],
    "KeyArn": ["alias/key"],
    "NotebookRoleArns": ["*", "role/a", "arn:aws:iam::111122223333:user/a", "arn:aws:iam::111122223333:role/a, "],
    "RepositorySecrets": ["*", "secret", "arn:aws:iam::111122223333:role/a"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in GOOD for value in GOOD[name]])
def test_a_sensible_value_is_taken(name: str, value: str) -> None:
    assert re.fullmatch(source()["Parameters"][name]["AllowedPattern"], value)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BAD for value in BAD[name]])
def test_a_value_that_would_fail_later_is_refused_at_once(name: str, value: str) -> None:
    assert not re.fullmatch(source()["Parameters"][name]["AllowedPattern"], value)


def assertion_holds(name: str, **parameters: str) -> bool:
    rule = source()["Rules"][name]
    stack = Stack(**parameters)
    return not stack.work_out(rule.get("RuleCondition", True)) or all(
        stack.work_out(assertion["Assert"]) for assertion in rule["Assertions"]
    )


def test_a_bastion_is_given_whole_or_not_at_all() -> None:
    rule = "BastionWholeOrNot"
    assert assertion_holds(rule)
    assert assertion_holds(rule, **WITH_BASTION)
    assert assertion_holds(rule, **{**WITH_BASTION, "BastionClientCidrs": ""})
    for missing in ("BastionHost", "BastionSecurityGroup", "BastionVpc"):
        assert not assertion_holds(rule, **{**WITH_BASTION, missing: ""}), missing
    assert not assertion_holds(rule, BastionClientCidrs="198.51.100.0/24")


def test_a_checksum_needs_the_file_that_it_is_of() -> None:
    rule = "ChecksumNeedsOwnDownload"
    assert assertion_holds(rule)
    assert not assertion_holds(rule, NgrokSha256="0" * 64)
    assert assertion_holds(rule, NgrokSha256="0" * 64, NgrokDownload="https://example.com/ngrok.tgz")


def test_the_table_outlives_the_stack_and_can_be_set_back() -> None:
    stack = Stack()
    assert stack.resources["Table"]["DeletionPolicy"] == "RetainExceptOnCreate"
    assert stack.resources["Table"]["UpdateReplacePolicy"] == "Retain"
    (table,) = stack.of_type("AWS::DynamoDB::Table").values()
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires", "Enabled": True}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


KEY = "arn:aws:kms:eu-central-1:111122223333:key/1"
KEY_MEMBERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "AWS::DynamoDB::Table": lambda table: table.get("SSESpecification", {}).get("KMSMasterKeyId"),
    "AWS::SecretsManager::Secret": lambda secret: secret.get("KmsKeyId"),
    "AWS::SQS::Queue": lambda queue: queue.get("KmsMasterKeyId"),
    "AWS::Logs::LogGroup": lambda group: group.get("KmsKeyId"),
    "AWS::SNS::Topic": lambda topic: topic.get("KmsMasterKeyId"),
}


@pytest.mark.parametrize("kind", KEY_MEMBERS)
def test_a_key_of_your_own_covers_everything_that_keeps_data(kind: str) -> None:
    with_key, without = Stack(KeyArn=KEY, AccessLogs="true").of_type(kind), Stack(AccessLogs="true").of_type(kind)
    assert with_key
    assert {KEY_MEMBERS[kind](each) for each in with_key.values()} == {KEY}
    assert {KEY_MEMBERS[kind](each) for each in without.values()} == {None}
    # SQS takes one kind of encryption or the other.
    assert not any("SqsManagedSseEnabled" in each for each in with_key.values())


def test_each_role_may_use_the_key_for_what_it_reads_and_writes_and_for_nothing_else() -> None:
    stack = Stack(KeyArn=KEY, **WITH_CERTIFICATES)
    lambdas = {function["Role"]: name for name, function in stack.of_type("AWS::Lambda::Function").items()}
    policies = stack.of_type("AWS::IAM::ManagedPolicy")
    used = {}
    for name, role in stack.of_type("AWS::IAM::Role").items():
        given = [policies[each.strip("<>")] for each in role.get("ManagedPolicyArns", [])]
        used[lambdas.get(stack.arn(name), "")] = {
            (action, statement["Condition"]["StringEquals"]["kms:ViaService"].split(".")[0])
            for policy in given
            for statement in policy["PolicyDocument"]["Statement"]
            if statement["Resource"] == KEY
            for action in statement["Action"]
        }
    table = {("kms:Decrypt", "dynamodb"), ("kms:DescribeKey", "dynamodb")}
    queues = {("kms:Decrypt", "sqs"), ("kms:GenerateDataKey", "sqs")}
    topic = {("kms:Decrypt", "sns"), ("kms:GenerateDataKey", "sns")}
    written = {(f"kms:{action}", "dynamodb") for action in ("Encrypt", "ReEncrypt*", "GenerateDataKey*")}
    read, table = table, table | written
    assert used == {
        **dict.fromkeys(("LookupApi", "AccessApi"), read),
        "IssueCertificate": table,
        "ReadAuthority": set(),
        "StartNotebook": table,
        "Uninstall": table | queues,
        **dict.fromkeys(("ReconcileNotebook", "Sweep"), table | queues | topic),
        "ReconcileRules": table | queues,
        "RecordAddress": table | queues | {("kms:Decrypt", "secretsmanager")},
        "": set(),  # the schedule's role
    }
    assert set(Stack().of_type("AWS::IAM::ManagedPolicy")) == {"StartNotebookPolicy", "NotebookSshUser"}
    for role in Stack().of_type("AWS::IAM::Role").values():
        assert role.get("ManagedPolicyArns", []) in ([], ["<StartNotebookPolicy>"])


def test_every_queue_is_encrypted_and_gives_up_into_another() -> None:
    queues = Stack().of_type("AWS::SQS::Queue")
    for name, queue in queues.items():
        assert queue["SqsManagedSseEnabled"] is True, name
        assert ("RedrivePolicy" in queue) != name.endswith("DeadLetterQueue"), name
    for name, consumer in (("NotebookQueue", "ReconcileNotebook"), ("RuleQueue", "ReconcileRules")):
        timeout = Stack().of_type("AWS::Lambda::Function")[consumer]["Timeout"]
        assert queues[name]["VisibilityTimeout"] > timeout, name


def test_the_farewell_is_said_after_the_signals_have_ended_and_before_anything_else_goes() -> None:
    """CloudFormation deletes in the reverse order of dependency."""
    resources = source()["Resources"]
    dependents = {name for name, resource in resources.items() if resource.get("DependsOn") == "Cleanup"}
    assert dependents == {"ReconcileNotebookSignals", "ReconcileRulesSignals", "SweepSchedule"}
    assert resources["Cleanup"]["Properties"]["ServiceToken"] == {"Fn::GetAtt": ["Uninstall", "Arn"]}


def test_the_template_holds_no_secret() -> None:
    template = source()
    (secret,) = (r for r in template["Resources"].values() if r["Type"] == "AWS::SecretsManager::Secret")
    assert not {"SecretString", "GenerateSecretString"} & set(secret["Properties"])
    assert not [name for name in template["Parameters"] if re.search("token|password", name, re.IGNORECASE)]
    assert "resolve:secretsmanager" not in TEXT


def strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for part in value.values():
                yield from strings(part)
        case list():
            for part in value:
                yield from strings(part)


def test_other_partitions_work_by_construction() -> None:
    assert "arn:aws:" not in TEXT
    principals = r"(events|lambda|scheduler|cloudwatch|sagemaker|tagging)\.amazonaws\.com"  # the same in all partitions
    assert "amazonaws.com" not in re.sub(principals, "", TEXT)
    stack = Stack("aws-cn")
    for name, resource in stack.resources.items():
        for text in strings(resource.get("Properties", {})):
            assert not text.startswith("arn:aws:"), (name, text)
    assert stack.outputs["ApiUrl"].endswith(".amazonaws.com.cn/v1")


def test_a_permissions_boundary_reaches_every_role() -> None:
    boundary = "arn:aws:iam::111122223333:policy/boundary"
    roles = Stack(PermissionsBoundary=boundary).of_type("AWS::IAM::Role")
    assert roles
    assert all(role["PermissionsBoundary"] == boundary for role in roles.values())
    assert not any("PermissionsBoundary" in role for role in Stack().of_type("AWS::IAM::Role").values())


def test_no_resource_has_a_fixed_name_so_that_several_stacks_fit_into_an_account() -> None:
    for name, resource in Stack().resources.items():
        for member in ("FunctionName", "RoleName", "TableName", "QueueName", "Name", "LogGroupName", "AlarmName"):
            given = resource.get("Properties", {}).get(member)
            is_reference = isinstance(given, str) and given.startswith("<")
            assert given is None or is_reference or "notebook-ssh" in given, (name, member)


def test_the_outputs_are_ready_to_paste() -> None:
    outputs = Stack().outputs
    assert outputs["Try"] == (
        "curl --fail-with-body --aws-sigv4 aws:amz:eu-central-1:execute-api "
        '--user "${AWS_ACCESS_KEY_ID}:${AWS_SECRET_ACCESS_KEY}" -H "x-amz-security-token: $AWS_SESSION_TOKEN" '
        "https://<Api>.execute-api.eu-central-1.amazonaws.com/v1/notebooks"
    )
    assert outputs["PutToken"].startswith('read -rs TOKEN && printf %s "$TOKEN" | aws secretsmanager put-secret-value')


def test_an_existing_secret_is_used_instead_of_a_new_one() -> None:
    arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:ngrok-AbCdEf"
    stack = Stack(NgrokSecretArn=arn)
    assert not stack.of_type("AWS::SecretsManager::Secret")
    assert environments(stack)["RecordAddress"]["NGROK_SECRET"] == arn
    role = json.dumps(stack.of_type("AWS::IAM::Role")["RecordAddressRole"])
    assert arn in role


# ---- names of a stack ----------------------------------------------------------------------------


def test_a_stack_of_any_name_can_have_central_keys_and_a_topic() -> None:
    """SSM refuses names that begin with aws or ssm, and SNS a display name of more than 100 characters."""
    path = environments(Stack())["RecordAddress"]["KEYS_PATH"]
    assert path == "/notebook-ssh/notebook-ssh/authorized-keys" == Stack().outputs["KeysPath"]
    assert source()["Resources"]["AlarmTopic"]["Properties"]["DisplayName"] == "notebook-ssh"
    role = json.dumps(Stack().of_type("AWS::IAM::Role")["RecordAddressRole"])
    assert f"parameter{path}/*" in role


# ---- a key of your own ---------------------------------------------------------------------------

WRITES = {"dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"}


def test_who_writes_the_table_may_use_its_key_for_that() -> None:
    """DynamoDB Developer Guide, "How DynamoDB uses AWS KMS": authorizing the use of a customer managed key."""
    stack = Stack(**WITH_BASTION, KeyArn=KEY)
    policies = stack.of_type("AWS::IAM::ManagedPolicy")
    for name, role in stack.of_type("AWS::IAM::Role").items():
        own = [each for policy in role["Policies"] for each in policy["PolicyDocument"]["Statement"]]
        writes = any(WRITES & set(each["Action"]) for each in own if isinstance(each["Action"], list))
        given = {
            action
            for policy in role.get("ManagedPolicyArns", [])
            for each in policies[policy.strip("<>")]["PolicyDocument"]["Statement"]
            if "dynamodb" in str(each.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", ""))
            for action in each["Action"]
        }
        assert ({"kms:Encrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:Decrypt"} <= given) is writes, name


@pytest.mark.parametrize(
    ("given", "made", "identifier"),
    [
        ({}, False, ""),
        (WITH_ENDPOINT, True, "<Endpoint>"),
        (
            {"EndpointId": "eice-0a1b2c3d4e5f60718", "EndpointVpc": "vpc-0a1b2c3d4e5f60718"},
            False,
            "eice-0a1b2c3d4e5f60718",
        ),
    ],
)
def test_an_endpoint_is_made_only_where_a_subnet_is_given(given: dict[str, str], made: bool, identifier: str) -> None:
    stack = Stack(**given)
    assert bool(stack.of_type("AWS::EC2::InstanceConnectEndpoint")) is made
    assert bool(stack.of_type("AWS::EC2::SecurityGroup")) is made
    assert {each["ENDPOINT_ID"] for each in environments(stack).values()} == {identifier}
    assert stack.outputs.get("EndpointId", "") == identifier


def test_the_endpoint_reaches_nothing_until_a_notebook_needs_it() -> None:
    stack = Stack(**WITH_ENDPOINT)
    (group,) = stack.of_type("AWS::EC2::SecurityGroup").values()
    assert [rule["CidrIp"] for rule in group["SecurityGroupEgress"]] == ["127.0.0.1/32"]
    (endpoint,) = stack.of_type("AWS::EC2::InstanceConnectEndpoint").values()
    assert endpoint["PreserveClientIp"] is False
