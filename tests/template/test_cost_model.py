"""The cost page says what the model computes, and the model has sane limits."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from support.stack import PROJECT


@pytest.fixture(scope="module")
def model() -> ModuleType:
    path = PROJECT / "docs" / "cost" / "model.py"
    spec = importlib.util.spec_from_file_location("cost_model", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["cost_model"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_models_tables(model: ModuleType) -> None:
    page = (PROJECT / "docs" / "cost.md").read_text("utf-8")
    assert model.table(300) in page
    assert model.knobs() in page


def test_the_page_names_the_three_dearest_first(model: ModuleType) -> None:
    page = (PROJECT / "docs" / "cost.md").read_text("utf-8")
    lines = model.month(10_000).lines
    dearest = sorted(lines, key=lambda name: -lines[name])[:3]
    assert [f"{number}. **{name}.**" in page for number, name in enumerate(dearest, 1)] == [True] * 3


def test_fewer_reports_cost_less_and_more_notebooks_cost_more(model: ModuleType) -> None:
    assert model.month(1_000, 900).total < model.month(1_000, 300).total < model.month(10_000, 300).total


def test_the_model_counts_what_the_template_has(model: ModuleType) -> None:
    from support.stack import Stack, source

    assert len(Stack().of_type("AWS::CloudWatch::Alarm")) == model.ALARMS
    metrics = (PROJECT / "layers/core/notebook_ssh/adapters/metrics.py").read_text("utf-8")
    assert metrics.count('\n    _count("') == model.METRICS
    assert source()["Parameters"]["SweepMinutes"]["Default"] * 60 == model.SWEEP_SECONDS
    assert source()["Globals"]["Function"]["MemorySize"] / 1024 == model.FUNCTION_GIGABYTES
    assert source()["Parameters"]["SyncSeconds"]["Default"] == 300
