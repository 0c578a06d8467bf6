"""What the dashboard's tables and the saved queries are made of: lines in the logs, in time and with the right numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.bastion_env import bastion_env
from support.builders import a_report
from support.loglines import logged_by
from support.notebook_env import NotebookEnv, notebook_env

from notebook_ssh.adapters import metrics
from notebook_ssh.controllers import rules, status_updates
from notebook_ssh.model.fleet_stats import FleetStats
from notebook_ssh.model.record import Phase
from notebook_ssh.model.status import Code

pytestmark = pytest.mark.slow  # each makes many calls


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch, STATUS_TAGS="true") as env:
        env.lifecycle_config("team")
        yield env


def connects(env: NotebookEnv, boot: str) -> None:
    """The notebook starts, and reports from this boot that people can connect; then it is stopped."""
    env.start("box")
    env.settle()
    record = env.record("box")
    report = replace(a_report(boot=boot, phase=Phase.CONNECTED), booted_at=env.now, received_at=env.now)
    report = replace(report, connected_since=env.now, phase_since=env.now, sequence=1)
    assert env.table.replace_report("box", record.role, report, record.report).written
    env.look("box")
    env.settle()
    env.stop("box")
    env.settle()


def test_the_time_from_the_tag_is_measured_at_the_first_connection_alone(
    env: NotebookEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    env.notebook("box", "team", running=False)
    env.settle()
    with logged_by(monkeypatch, status_updates.logger) as lines:
        env.tag("box", ssh="ngrok")
        tagged = env.now
        env.settle()
        env.now += 500
        connects(env, "first")
        waited = env.now - tagged
        connects(env, "second")
        env.tag("box", ssh="bastion")
        env.settle()
        env.tag("box", ssh="ngrok")
        env.settle()
        connects(env, "third")
    first, second = (line["seconds_since_tag"] for line in lines if "seconds_since_tag" in line)
    assert 500 < first <= waited
    assert 0 < second < 500


def test_each_writing_of_the_status_tags_says_what_they_say(env: NotebookEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.notebook("box", "team")
    env.settle()
    with logged_by(monkeypatch, status_updates.logger) as lines:
        env.tag("box", ssh="ngrok")
        env.settle()
        env.now += 61
        env.untag("box")
        env.settle()
    said = [line["reason"] for line in lines if line["message"] == "write the status tags"]
    assert said == ["it is pending-restart", "it is off"]


def test_a_status_that_no_notebook_has_any_more_is_counted_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table shows the last number of each status: without a zero, the one before would stand for hours."""
    with logged_by(monkeypatch, metrics.logger) as lines:
        metrics.count_fleet(FleetStats({Code.CONNECTED: 2}, {"ngrok-offline": 1}))
    statuses = {line["status"]: line["notebooks"] for line in lines if line["message"] == "fleet by status"}
    assert statuses == {**dict.fromkeys(map(str, Code), 0), "connected": 2}
    assert [line["problem"] for line in lines if line["message"] == "fleet by problem"] == ["ngrok-offline"]


def test_a_dry_run_of_the_bastion_logs_planned_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with bastion_env(monkeypatch) as env:
        group = env.group("notebooks")
        env.notebook("nb", group)
        monkeypatch.setenv("DRY_RUN", "true")
        with logged_by(monkeypatch, rules.logger) as dry:
            env.run()
        monkeypatch.setenv("DRY_RUN", "false")
        with logged_by(monkeypatch, rules.logger) as real:
            env.run()
    (planned,) = (line["plan"] for line in dry if line["message"] == "dry run")
    assert [
        f"authorize {line['rule']}: {line['reason']}" for line in real if line["message"] == "authorize rule"
    ] == planned
    assert planned
    assert not [line for line in dry if line["message"] in ("authorize rule", "revoke rule")]
