"""What a stack set may set: the transform writes some parameters' values into the processed template."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import stack_set
from support import stack
from support.stack import PROJECT, WITH_BASTION, WITH_ENDPOINT, source

OTHER = {
    **WITH_BASTION,
    **WITH_ENDPOINT,
    "EndpointId": "eice-0a1b2c3d4e5f60718",
    "TagKey": "remote",
    "NgrokSecretArn": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:x",
    "NgrokDownload": "https://example.com/ngrok.tgz",
    "NgrokSha256": "0" * 64,
    "BastionUser": "jumper",
    "BastionHostKeys": "ssh-ed25519 AAAA",
    "DefaultLifecycleConfig": "other",
    "LookupPrincipals": "arn:aws:iam::111122223333:role/a",
    "StartPrincipals": "arn:aws:iam::111122223333:role/b",
    "ReportPrincipals": "arn:aws:iam::111122223333:role/c",
    "LoginPrincipals": "arn:aws:iam::111122223333:role/e",
    "AuditPrincipals": "arn:aws:iam::111122223333:role/f",
    "ApiUrl": "https://ssh.example.com",
    "ApiVpcEndpoints": "vpce-0a1b2c3d",
    "PermissionsBoundary": "arn:aws:iam::111122223333:policy/b",
    "KeyArn": "arn:aws:kms:eu-central-1:111122223333:key/1",
    "NotebookRoleArns": "arn:aws:iam::111122223333:role/d",
    "RepositorySecrets": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:y",
    "AlarmEmail": "a@example.com",
}
"""Another value for each parameter that takes any text."""


def processed(**parameters: str) -> dict[str, Any]:
    template = dict(stack._transformed("eu-central-1", tuple(sorted(parameters.items()))))
    return {name: part for name, part in template.items() if name != "Parameters"}


def another(name: str, parameter: dict[str, Any]) -> str:
    default = str(parameter["Default"])
    if "AllowedValues" in parameter:
        return next(str(value) for value in parameter["AllowedValues"] if str(value) != default)
    return str(parameter["MaxValue"]) if parameter["Type"] == "Number" else OTHER[name]


def test_every_parameter_takes_effect_or_is_nailed() -> None:
    """One whose value changes the processed template is a constant in it."""
    frozen = {
        name
        for name, parameter in source()["Parameters"].items()
        if processed(**{name: another(name, parameter)}) != processed()
    }
    assert frozen == set(stack_set.FROZEN)
    page = (PROJECT / "docs" / "deploy.md").read_text("utf-8")
    assert "packaging/stack_set.py" in page
    assert all(f"`{name}`" in page for name in frozen)


def test_a_nailed_parameter_has_its_first_value_and_no_other(tmp_path: Path) -> None:
    values = {"LookupPrincipals": "arn:aws:iam::111122223333:role/a"}
    template = stack._transformed("eu-central-1", tuple(values.items()))
    first = {name: str(each["Default"]) for name, each in source()["Parameters"].items()} | values
    listed = [{"ParameterKey": name, "ParameterValue": value} for name, value in first.items()]
    (tmp_path / "parameters.json").write_text(json.dumps(listed))
    done = subprocess.run(
        [sys.executable, str(PROJECT / "packaging/stack_set.py"), str(tmp_path / "parameters.json")],
        input=json.dumps(template),
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(done.stdout)
    assert made["Resources"] == template["Resources"]
    nailed = {
        name: each["AllowedValues"] for name, each in made["Parameters"].items() if "Fixed when" in each["Description"]
    }
    assert nailed == {
        "LookupPrincipals": [values["LookupPrincipals"]],
        "StartPrincipals": ["*"],
        "ReportPrincipals": ["*"],
        "LoginPrincipals": [""],
        "AuditPrincipals": [""],
        "ApiVpcEndpoints": [""],
    }
    assert all(made["Parameters"][name]["Default"] == value for name, (value,) in nailed.items())
    assert all(
        made["Parameters"][name] == template["Parameters"][name] for name in made["Parameters"] if name not in nailed
    )
