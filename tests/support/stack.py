"""template.yaml as AWS sees it: after the SAM transform, with its functions (Ref, Fn::If, …) worked out.

Small on purpose: what it does not know, it refuses.
"""

from __future__ import annotations

import copy
import os
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from samtranslator.translator import arn_generator
from samtranslator.translator.transform import transform

PROJECT = Path(__file__).resolve().parents[2]
ACCOUNT = "111122223333"
REGIONS = {"aws": "eu-central-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}

WITH_BASTION = {
    "BastionHost": "bastion.example.com",
    "BastionSecurityGroup": "sg-0a1b2c3d4e5f60718",
    "BastionVpc": "vpc-0a1b2c3d4e5f60718",
    "BastionClientCidrs": "198.51.100.0/24",
}

WITH_ENDPOINT = {
    "EndpointSubnet": "subnet-0a1b2c3d4e5f60718",
    "EndpointVpc": "vpc-0b1c2d3e4f5061728",
}

WITH_CERTIFICATES = {
    "Certificates": "true",
    "LoginPrincipals": "arn:aws:iam::111122223333:role/data-science",
    "CertificateKeys": "1 2",
    "AccessDays": "30",
    "AuditPrincipals": "arn:aws:iam::123456789012:role/auditors",
}

WITH_EVERYTHING = WITH_BASTION | WITH_ENDPOINT | WITH_CERTIFICATES
"""All that brings functions, roles and rights of its own."""

ARNS = {
    "AWS::DynamoDB::Table": ("dynamodb", "table/{}"),
    "AWS::Events::Rule": ("events", "rule/{}"),
    "AWS::IAM::ManagedPolicy": ("iam", "policy/{}"),
    "AWS::IAM::Role": ("iam", "role/{}"),
    "AWS::KMS::Key": ("kms", "key/{}"),
    "AWS::Lambda::Function": ("lambda", "function:{}"),
    "AWS::Logs::LogGroup": ("logs", "log-group:{}:*"),
    "AWS::SNS::Topic": ("sns", "{}"),
    "AWS::SQS::Queue": ("sqs", "{}"),
    "AWS::SecretsManager::Secret": ("secretsmanager", "secret:{}-AbCdEf"),
}
"""By type, the service and the last part of an ARN (Service Authorization Reference, "Resource types")."""


_Loader: Any = type("_Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {})
"""YAML with CloudFormation's short forms: `!Ref x` is `{"Ref": "x"}`. By libyaml, if it is there, in a tenth of the time."""


def _short_form(loader: yaml.Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    match node:
        case yaml.ScalarNode():
            value: Any = loader.construct_scalar(node)
            if suffix == "GetAtt":
                value = value.split(".")
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            value = loader.construct_mapping(node, deep=True)
        case _:
            raise TypeError(f"!{suffix} of a {type(node).__name__}")
    return {name: value}


_Loader.add_multi_constructor("!", _short_form)


@cache
def _source() -> dict[str, Any]:
    return dict(yaml.load((PROJECT / "template.yaml").read_text("utf-8"), _Loader))


def source() -> dict[str, Any]:
    """The template as it is written."""
    return copy.deepcopy(_source())


@cache
def _transformed(region: str, parameters: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """The transform puts parameters' values into what it makes, as it does in AWS, so it is given them."""
    template = source()
    # The transform takes code only from S3, where `sam deploy` puts it.
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/functions"
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["ContentUri"] = "s3://bucket/layer"
    policies = mock.Mock()
    policies.load.return_value = {}
    arn_generator._get_region_from_session.cache_clear()  # it keeps the first region for good
    with mock.patch.dict(os.environ, {"AWS_DEFAULT_REGION": region}):
        return dict(transform(template, dict(parameters), policies))


class Stack:
    """The template with parameter values, in a partition. `resources` holds what would be made, worked out."""

    def __init__(self, partition: str = "aws", **parameters: str) -> None:
        region = REGIONS[partition]
        template = copy.deepcopy(_transformed(region, tuple(sorted(parameters.items()))))
        unknown = set(parameters) - set(template["Parameters"])
        if unknown:
            raise KeyError(f"no such parameters: {unknown}")
        self._values: dict[str, Any] = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Region": region,
            "AWS::Partition": partition,
            "AWS::URLSuffix": "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com",
            "AWS::StackName": "notebook-ssh",
            "AWS::StackId": f"arn:{partition}:cloudformation:{region}:{ACCOUNT}:stack/notebook-ssh/1",
        }
        for name, parameter in template["Parameters"].items():
            value = parameters.get(name, parameter["Default"])
            self._values[name] = str(value)
        self._conditions = template["Conditions"]
        self._types = {name: resource["Type"] for name, resource in template["Resources"].items()}
        self._partition, self._region = partition, region
        self.resources: dict[str, Any] = {
            name: self.work_out(resource)
            for name, resource in template["Resources"].items()
            if "Condition" not in resource or self._holds(resource["Condition"])
        }
        self.outputs: dict[str, Any] = {
            name: self.work_out(output["Value"])
            for name, output in template["Outputs"].items()
            if "Condition" not in output or self._holds(output["Condition"])
        }

    def of_type(self, kind: str) -> dict[str, Any]:
        """Properties of the resources of the type `kind`, by logical id."""
        return {
            name: resource.get("Properties", {})
            for name, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def arn(self, name: str) -> str:
        """The ARN that AWS would give the resource `name`, with a made-up name where CloudFormation makes one up."""
        service, rest = ARNS[self._types[name]]
        region = "" if service == "iam" else self._region
        return f"arn:{self._partition}:{service}:{region}:{ACCOUNT}:{rest.format(f'notebook-ssh-{name}')}"

    def work_out(self, value: Any) -> Any:
        """`value` with every function of CloudFormation in it worked out."""
        match value:
            case {"Ref": "AWS::NoValue"}:
                return _NOTHING
            case {"Ref": str(name)} if len(value) == 1 and self._types.get(name) == "AWS::SNS::Topic":
                return self.arn(name)
            case {"Ref": str(name)} if len(value) == 1:
                return self._values[name] if name in self._values else f"<{self._known(name)}>"
            case {"Fn::GetAtt": [str(name), str(attribute)]} if len(value) == 1:
                self._known(name)
                return self.arn(name) if attribute in ("Arn", "Id") else f"<{name}.{attribute}>"
            case {"Fn::GetAtt": str(path)}:
                return self.work_out({"Fn::GetAtt": path.split(".")})
            case {"Fn::If": [str(condition), yes, no]}:
                return self.work_out(yes if self._holds(condition) else no)
            case {"Fn::Sub": [str(text), dict(names)]}:
                return self._substitute(text, {name: self.work_out(given) for name, given in names.items()})
            case {"Fn::Sub": str(text)}:
                return self._substitute(text, {})
            case {"Fn::Join": [str(glue), parts]}:
                return glue.join(str(part) for part in self.work_out(parts))
            case {"Fn::Split": [str(glue), text]}:
                return str(self.work_out(text)).split(glue)
            case {"Fn::Equals": [left, right]}:
                return self.work_out(left) == self.work_out(right)
            case {"Fn::Not": [what]}:
                return not self.work_out(what)
            case {"Fn::Or": parts}:
                return any(self.work_out(part) for part in parts)
            case {"Fn::And": parts}:
                return all(self.work_out(part) for part in parts)
            case {"Condition": str(name)} if len(value) == 1:
                return self._holds(name)
            case dict():
                unknown = [key for key in value if key.startswith("Fn::")]
                if unknown:
                    raise NotImplementedError(f"{unknown} in {value}")
                worked = {key: self.work_out(part) for key, part in value.items()}
                return {key: part for key, part in worked.items() if part is not _NOTHING}
            case list():
                return [part for part in map(self.work_out, value) if part is not _NOTHING]
        return value

    def _known(self, name: str) -> str:
        if name not in self._types:
            raise KeyError(f"{name} is neither a parameter nor a resource")
        return name

    def _holds(self, condition: str) -> bool:
        return bool(self.work_out(self._conditions[condition]))

    def _substitute(self, text: str, names: dict[str, Any]) -> str:
        pieces = text.split("${")
        result = pieces[0]
        for piece in pieces[1:]:
            name, _, rest = piece.partition("}")
            if name.startswith("!"):
                result += "${" + name[1:] + "}" + rest
            elif name in names:
                result += str(names[name]) + rest
            elif "." in name:
                result += str(self.work_out({"Fn::GetAtt": name.split(".", 1)})) + rest
            else:
                result += str(self.work_out({"Ref": name})) + rest
        return result


_NOTHING = object()
"""Stands for AWS::NoValue: the member that has it is left out."""
