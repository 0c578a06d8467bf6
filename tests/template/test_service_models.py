"""What the code knows of AWS's services, compared with the SDK's models of them: each night with the newest SDK's.

A state, a limit or an operation that AWS changes is found here before a notebook finds it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore import xform_name
from botocore.loaders import Loader
from botocore.model import ServiceModel
from support.stack import PROJECT

from notebook_ssh.adapters.sagemaker import PAGE
from notebook_ssh.model.managed_block import LIMIT
from notebook_ssh.model.record import NotebookState, is_notebook_name

CALL = re.compile(r'client\("([a-z0-9]+)"\)\.([a-z_]+)')
GENERAL = {"get_paginator", "exceptions", "meta"}
"""Attributes of every client that are no operations."""

PINNED = pytest.param("pinned", id="pinned")
NEWEST = pytest.param(
    "newest",
    id="newest",
    marks=pytest.mark.nightly(sibling="test_each_operation_that_the_code_calls_is_there"),
)


class Models:
    """The models of an SDK's services, in its folder `data`."""

    def __init__(self, data: Path) -> None:
        self._loader = Loader(extra_search_paths=[str(data)], include_default_search_paths=False)

    def service(self, name: str) -> ServiceModel:
        return ServiceModel(self._loader.load_service_model(name, "service-2"), name)

    def shape(self, name: str) -> Any:
        """A shape of SageMaker's."""
        return self.service("sagemaker").shape_for(name)


@pytest.fixture(scope="module", params=[PINNED, NEWEST])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Those of the SDK that is pinned here, or of the newest one."""
    package = Path(botocore.__file__).parent
    if request.param == "newest":
        folder = tmp_path_factory.mktemp("newest-sdk")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "install",
            "--no-deps",
            "--no-compile",
        ]
        subprocess.run([*pip, "--target", str(folder), "botocore"], check=True, timeout=600)
        package = folder / "botocore"
    return Models(package / "data")


def calls() -> set[tuple[str, str]]:
    """The operations that the layer's adapters call, each with its service."""
    sources = (PROJECT / "layers/core/notebook_ssh").rglob("*.py")
    found = {call for source in sources for call in CALL.findall(source.read_text("utf-8"))}
    return {(service, operation) for service, operation in found if operation not in GENERAL}


def test_the_states_of_a_notebook_are_those_of_the_service(models: Models) -> None:
    assert set(models.shape("NotebookInstanceStatus").enum) == set(NotebookState)


def test_a_script_of_the_limit_is_the_longest_that_fits(models: Models) -> None:
    content = models.shape("NotebookInstanceLifecycleConfigContent").metadata
    assert content["max"] == (LIMIT + 2) // 3 * 4
    assert content["min"] == 1  # so a script without content is written as a first line alone


def test_a_hook_has_one_script(models: Models) -> None:
    assert models.shape("NotebookInstanceLifecycleConfigList").metadata == {"min": 0, "max": 1}


@pytest.mark.parametrize("name", ["a", "A1", "a-b", "a--b", "-a", "a-", "a_b", "a.b", "é", "a" * 63, "a" * 64, "a\n"])
def test_names_are_those_that_the_service_allows(name: str, models: Models) -> None:
    allowed = models.shape("NotebookInstanceName").metadata
    fits = len(name) <= allowed["max"] and re.fullmatch(allowed["pattern"], name, re.ASCII) is not None
    assert is_notebook_name(name) is fits


def test_pages_are_as_long_as_the_service_allows(models: Models) -> None:
    assert models.shape("MaxResults").metadata["max"] == PAGE


def test_each_operation_that_the_code_calls_is_there(models: Models) -> None:
    assert len(calls()) >= 20
    for service in {service for service, _ in calls()}:
        known = {xform_name(operation) for operation in models.service(service).operation_names}
        assert {operation for of, operation in calls() if of == service} <= known, service


def test_a_call_that_no_service_has_would_be_found(models: Models) -> None:
    assert "describe_notebook" not in {xform_name(name) for name in models.service("sagemaker").operation_names}


def test_a_notebook_is_described_with_what_is_read_of_it(models: Models) -> None:
    source = (PROJECT / "layers/core/notebook_ssh/adapters/sagemaker.py").read_text("utf-8")
    read = set(re.findall(r'response(?:\.get\(|\[)"([A-Za-z]+)"', source))
    assert "FailureReason" in read
    described = models.service("sagemaker").operation_model("DescribeNotebookInstance").output_shape
    configuration = models.service("sagemaker").operation_model("DescribeNotebookInstanceLifecycleConfig").output_shape
    assert described is not None
    assert configuration is not None
    assert read <= {*described.members, *configuration.members}
