"""Makes the template of a stack set from the processed template of a first deployment.

    python3 packaging/stack_set.py PARAMETERS < PROCESSED > TEMPLATE

PARAMETERS: a file with the first deployment's parameters, as `aws cloudformation describe-stacks` prints them.

SAM's transform writes the values of the parameters `FROZEN` into the API's resource policy. In the processed template
they are constants: another value would be accepted and ignored, and the API would stay as open as it was. So each has
its first value as the only allowed one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FROZEN = (
    "LookupPrincipals",
    "StartPrincipals",
    "ReportPrincipals",
    "LoginPrincipals",
    "AuditPrincipals",
    "ApiVpcEndpoints",
)
"""tests/template/test_stack_set.py finds them by transforming the template with other values."""


def nail(template: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, Any]:
    """Return the processed template with each frozen parameter held to its value.

    Raises KeyError when a frozen parameter has no value: then these are not the parameters of that deployment.
    """
    parameters = dict(template["Parameters"])
    for name in FROZEN:
        fixed = f"Fixed when the template was processed; for another value, process it again. {parameters[name]['Description']}"
        parameters[name] = parameters[name] | {
            "Default": values[name],
            "AllowedValues": [values[name]],
            "Description": fixed,
        }
    return {**template, "Parameters": parameters}


def values_of(listed: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the values of parameters as CloudFormation lists them."""
    return {each["ParameterKey"]: each["ParameterValue"] for each in listed}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 packaging/stack_set.py PARAMETERS < PROCESSED > TEMPLATE")
    known = values_of(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    json.dump(nail(json.load(sys.stdin), known), sys.stdout, indent=1)
