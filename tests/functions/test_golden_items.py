"""Items that an earlier version stored (tests/golden/items.json) are read, kept and written by this one.

The items of a released version are never edited: a format that changes gets new items next to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.notebook_env import NotebookEnv, notebook_env

from notebook_ssh.adapters import backups, codec, deployments
from notebook_ssh.adapters.attributes import from_attribute, item_of, to_attribute
from notebook_ssh.adapters.clients import client
from notebook_ssh.adapters.codec import UnreadableRecordError
from notebook_ssh.adapters.lease import LeaseHeldError, Leases
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.workers import read_worker, save_worker
from notebook_ssh.adapters.write_slots import MIN_INTERVAL_MS, SlotUnavailableError, WriteSlots
from notebook_ssh.errors import Problem
from notebook_ssh.model.record import (
    ROUTED,
    Endpoint,
    Mails,
    Network,
    NotebookState,
    PathReport,
    Phase,
    Record,
    RejectedKey,
    Report,
    Restart,
    RestartStep,
    Route,
)
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.planning.observation import Deployment, LifecycleConfig, LifecycleConfigRecord

ITEMS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent.parent / "golden" / "items.json").read_text())
MOMENT = 1_780_000_000
FULL, SPARSE = "record, all attributes", "record, as sparse as it is written"
CONFIG, SPARSE_CONFIG = "lifecycle configuration, all attributes", "lifecycle configuration, sparse"
REPLACED = "lifecycle configuration, whose block took another one's place"
WORKER = "print('größer')\n"

RECORDS = {
    FULL: Record(
        name="Churn-Model",
        arn="arn:aws:sagemaker:eu-central-1:111122223333:notebook-instance/churn-model",
        created_at=MOMENT + 50,
        role="DataScience",
        spec=NotebookSpec(
            modes=(Mode.BASTION,),
            ngrok_url="tcp://1.tcp.eu.ngrok.io:20001",
            users=("ana", "mario"),
            until=1_790_000_000,
            restart=True,
            wake=True,
            problem=Problem("bad-users", "ssh-users: a name is missing."),
        ),
        state=NotebookState.IN_SERVICE,
        state_since=MOMENT,
        lifecycle_config="data-science",
        block_since=MOMENT + 100,
        network=Network("subnet-0123456789abcdef0", ("sg-0123456789abcdef0",), "eni-0123456789abcdef0"),
        problem=Problem("config-not-shell", "The script is not a shell script."),
        observed_hash="0123456789abcdef",
        observed_at=MOMENT + 200,
        started_at=MOMENT + 300,
        attached_config="better-sagemaker",
        attached_hash="fedcba9876543210",
        restart=Restart(RestartStep.STOP, MOMENT + 400, MOMENT + 500),
        planned=("attach better-sagemaker",),
        status_tags_at=MOMENT + 600,
        status_tags_left=True,
        notified_status="error:config-not-shell",
        unsupported_platform="notebook-al2-v3",
        failure="OnStart took longer than 5 minutes",
        mails=Mails(sent_at=1780000610, held=2, digest_at=1780000620),
        spec_changed_at=MOMENT + 700,
        first_connected=True,
        wake_at=MOMENT + 800,
        routes={
            Mode.BASTION: Route(
                True,
                "10.0.12.34",
                MOMENT + 900,
                Problem("rule-limit", "The group is full."),
                Endpoint("eice-0123456789abcdef0", "eice.example.com"),
            ),
            Mode.EICE: Route(
                True,
                "10.0.12.35",
                MOMENT + 950,
                Problem("rule-limit", "The other group is full."),
                Endpoint("eice-0123456789abcdef1", "other.example.com"),
            ),
        },
        report=Report(
            boot="b6c1e1b6-0000-4000-8000-000000000001",
            booted_at=MOMENT + 1000,
            sequence=7,
            received_at=MOMENT + 1100,
            modes=(Mode.NGROK,),
            phase=Phase.CONNECTED,
            agent="1.0.0",
            host="0.tcp.eu.ngrok.io",
            port=17887,
            host_keys=("ssh-ed25519 AAAA",),
            keys_own=2,
            keys_central=3,
            authorities=2,
            unknown_sessions=1,
            rejected=(RejectedKey(4, "not a public key"),),
            sessions=1,
            active_at=MOMENT + 1200,
            problem=Problem("token-refused", "ngrok refused the token."),
            connected_since=MOMENT + 1300,
            phase_since=MOMENT + 1400,
            paths=(PathReport(Mode.NGROK, Phase.CONNECTED, Problem("files", "A file is full.")),),
            paths_since=(MOMENT + 1500,),
        ),
    ),
    SPARSE: Record(name="box"),
    "record with a sparse route and report": Record(
        name="box",
        role="DataScience",
        spec=NotebookSpec((Mode.NGROK,)),
        observed_hash="0123456789abcdef",
        observed_at=MOMENT + 200,
        routes={Mode.BASTION: Route()},
        report=Report("b", 1, 2, 3, (), Phase.OFF),
    ),
}
CONFIG_RECORDS = {
    CONFIG: LifecycleConfigRecord(
        name="data-science",
        modified=MOMENT * 1000 + 123,
        block="1.0.0:0123456789ab",
        tried="1.0.0:0123456789ab",
        block_since=MOMENT,
        problem=Problem("script-too-large", "The script has no room for the block."),
    ),
    SPARSE_CONFIG: LifecycleConfigRecord("data-science"),
    REPLACED: LifecycleConfigRecord(
        name="data-science",
        modified=MOMENT * 1000 + 123,
        block="1.0.0:0123456789ab",
        tried="1.1.0:ba9876543210",
        block_since=MOMENT,
        replaced_at=MOMENT + 100,
    ),
}
FROM_A_NEWER_VERSION = {"mood": {"M": {"today": {"S": "sunny"}}}}


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotebookEnv]:
    with notebook_env(monkeypatch) as env:
        yield env


def store(name: str, **more: Any) -> dict[str, Any]:
    item = ITEMS[name] | more
    client("dynamodb").put_item(TableName="records", Item=item)
    return item


def stored(name: str) -> dict[str, Any]:
    key = {part: ITEMS[name][part] for part in ("pk", "sk")}
    return client("dynamodb").get_item(TableName="records", Key=key)["Item"]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_as_it_was_meant(name: str) -> None:
    assert codec.decode_record(item_of(ITEMS[name])) == RECORDS[name]


@pytest.mark.parametrize("name", CONFIG_RECORDS)
def test_the_record_of_a_configuration_is_read_as_it_was_meant(name: str) -> None:
    assert codec.decode_config_record(item_of(ITEMS[name])) == CONFIG_RECORDS[name]


@pytest.mark.parametrize("name", [FULL, SPARSE])
def test_a_record_is_written_as_it_was(name: str) -> None:
    written = {part: to_attribute(value) for part, value in codec.encode_record(RECORDS[name]).items()}
    assert written | {part: ITEMS[name][part] for part in ("pk", "sk")} == ITEMS[name]


def test_modes_are_stored_as_the_tag_has_them() -> None:
    """A version that knows one mode only reads `ngrok` as this one does, and finds that it does not know two words."""
    several = codec.encode_record(Record("box", spec=NotebookSpec((Mode.NGROK, Mode.BASTION))))
    assert several["spec"] == {"mode": "ngrok bastion"}
    assert codec.decode_record(several).spec.modes == (Mode.NGROK, Mode.BASTION)


@pytest.mark.parametrize("name", CONFIG_RECORDS)
def test_the_record_of_a_configuration_is_written_as_it_was(env: NotebookEnv, name: str) -> None:
    backups.save_config_record(env.table, CONFIG_RECORDS[name])
    assert stored(name) == ITEMS[name]


def test_every_mode_with_an_entrance_has_an_attribute_for_its_route() -> None:
    assert {path.partition(".")[2] for path in codec.ROUTES} == set(ROUTED)


def test_every_field_has_an_attribute_that_the_golden_item_uses() -> None:
    """A field that is added to the model gets its stored name, its default and a new golden item."""
    shapes: dict[str, Any] = {
        "": Record,
        "spec": NotebookSpec,
        "network": Network,
        "restart": Restart,
        "report": Report,
    }
    paths = [
        f"{part}.{field}".strip(".")
        for part, kind in (shapes | dict.fromkeys(codec.ROUTES, Route)).items()
        for field in kind.__match_args__
    ]
    for path in (*codec.ROUTES, *(path for path in paths if path != "routes")):
        attribute: Any = {"M": ITEMS[FULL]}
        for name in codec.stored_path(path).split("."):
            attribute = attribute["M"][name]


@pytest.mark.parametrize("part", sorted({*codec.RECONCILER_FIELDS, "wake_at", "report"} - {"name"}))
def test_a_missing_attribute_is_its_default(part: str) -> None:
    item = item_of(ITEMS[FULL])
    del item[codec.stored_path(part)]
    assert getattr(codec.decode_record(item), part) == getattr(Record(name=""), part)


@pytest.mark.parametrize("path", codec.ROUTES)
def test_a_missing_route_is_no_route(path: str) -> None:
    item = item_of(ITEMS[FULL])
    del item[codec.stored_path(path)]
    assert path.partition(".")[2] not in codec.decode_record(item).routes


def test_a_path_that_no_record_has_is_an_error() -> None:
    assert codec.stored_path("network.security_groups") == "network.groups"
    assert codec.stored_path("routes.bastion.private_ip") == "route.private_ip"
    for path in ("mood", "report.mood", "name.mood", "routes", "routes.ngrok"):
        with pytest.raises(KeyError):
            codec.stored_path(path)


# ---- what a newer version wrote ----------------------------------------------------------------


def test_an_unknown_attribute_of_a_record_survives_every_writer(env: NotebookEnv) -> None:
    store(FULL, **FROM_A_NEWER_VERSION)
    record = env.table.record("churn-model")
    assert record == RECORDS[FULL]
    assert record.report
    assert env.table.save_observed(record, record)
    env.table.save_route(record.name, Mode.BASTION, Route())
    assert env.table.replace_report(record.name, record.role, record.report, record.report).written
    env.table.release_wake(record)
    assert env.table.claim_wake(Record("Churn-Model"), 5)
    assert stored(FULL)["mood"] == FROM_A_NEWER_VERSION["mood"]


def test_an_unknown_attribute_of_a_configurations_record_survives_a_save(env: NotebookEnv) -> None:
    store(CONFIG, **FROM_A_NEWER_VERSION)
    RecordCache(env.table, env.now).save(CONFIG_RECORDS[SPARSE_CONFIG])
    assert stored(CONFIG) == ITEMS[SPARSE_CONFIG] | FROM_A_NEWER_VERSION


def test_unknown_attributes_of_the_others_survive_as_well(env: NotebookEnv) -> None:
    others = ("write slots", "lease", "rule sync", "backup", "deployment", "worker")
    for name in others:
        store(name, **FROM_A_NEWER_VERSION)
    slots = WriteSlots(env.table, lambda: 60_000, lambda: MOMENT * 1000, lambda seconds: None, is_teardown=True)
    slots.reserve()
    slots.reserve_upgrade()
    before = deployments.read(env.table)
    assert deployments.save(env.table, before._replace(block="1.2.0:0"), before)
    save_worker(env.table, WORKER, "1.2.0")
    slots.cancel_teardown()
    env.table.save_rule_sync(MOMENT + 1)
    backups.set_backup_expiry(env.table, "data-science", None)
    with Leases(env.table, lambda: 60_000, lambda: MOMENT * 1000 + 60_000).lease("configuration/data-science"):
        for name in others:
            assert stored(name)["mood"] == FROM_A_NEWER_VERSION["mood"]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("spec.mode", {"S": "tailscale"}),
        ("spec.mode", {"S": "ngrok tailscale"}),
        ("spec.mode", {"S": ""}),
        ("spec.mode", {"L": [{"S": "ngrok"}]}),
        ("report.phase", {"S": "resting"}),
        ("report.mode", {"S": "tailscale"}),
        ("report.rejected", {"L": [{"M": {"line": {"S": "first"}, "reason": {"S": ""}}}]}),
        ("restart.step", {"S": "reboot"}),
        ("network", {"S": "none"}),
        ("observed_at", {"S": "now"}),
        ("planned", {"S": "nothing"}),
        ("route.open", {"N": "1"}),
    ],
)
def test_an_unknown_value_makes_the_record_unreadable_and_is_named(attribute: str, value: Any) -> None:
    item = json.loads(json.dumps(ITEMS[FULL]))
    target, *parts = item, *attribute.split(".")
    for part in parts[:-1]:
        target = target[part]["M"]
    target[parts[-1]] = value
    with pytest.raises(UnreadableRecordError, match=f"Churn-Model .* {attribute}") as refused:
        codec.decode_record(item_of(item))
    assert (refused.value.record, refused.value.attribute.startswith(attribute)) == ("Churn-Model", True)


def test_an_unknown_state_of_sagemaker_is_kept_as_it_is() -> None:
    item = item_of(ITEMS[FULL]) | {"state": "Hibernating"}
    record = codec.decode_record(item)
    assert (str(record.state), record.state.is_known, record.state in set(NotebookState)) == (
        "Hibernating",
        False,
        False,
    )
    assert codec.encode_record(record)["state"] == "Hibernating"


def test_an_unreadable_record_hides_no_other_and_is_not_hidden(env: NotebookEnv) -> None:
    env.table.save_observed(Record("a"), None)
    store(FULL, spec={"M": {"mode": {"S": "tailscale"}}})
    env.table.save_observed(Record("d"), None)
    read: list[str] = []
    with pytest.raises(UnreadableRecordError, match="Churn-Model"):
        read.extend(each.name for each in env.table.records(consistent=True))
    assert read == ["a", "d"]
    errors: list[UnreadableRecordError] = []
    assert [each.name for each in env.table.records(on_unreadable=errors.append)] == ["a", "d"]
    assert [error.record for error in errors] == ["Churn-Model"]


def test_an_unreadable_record_stops_neither_its_batch_nor_the_others(env: NotebookEnv) -> None:
    env.lifecycle_config("team")
    env.notebook("other", "team", ssh="ngrok")
    env.notebook("churn-model", "team", ssh="ngrok")
    store(FULL, spec={"M": {"mode": {"S": "tailscale"}}})
    assert len(env.deliver()["batchItemFailures"]) == 2  # both messages about the notebook
    assert env.has_block("team")
    assert env.record("other").observed_hash
    assert stored(FULL)["spec"] == {"M": {"mode": {"S": "tailscale"}}}


# ---- coordination and backups ------------------------------------------------------------------


def test_write_slots_leases_and_the_rule_sync_are_read_as_they_were_meant(env: NotebookEnv) -> None:
    for name in ("write slots", "lease", "rule sync"):
        store(name)
    now = MOMENT * 1000
    assert RecordCache(env.table, 0).is_tearing_down()
    with pytest.raises(SlotUnavailableError):
        WriteSlots(env.table, lambda: 60_000, lambda: now, lambda seconds: None).reserve()
    last = WriteSlots(env.table, lambda: 60_000, lambda: now, lambda seconds: None, is_teardown=True)
    assert last.reserve() == now + 500
    assert last.reserve() == now + 500 + MIN_INTERVAL_MS
    leases = Leases(env.table, lambda: 60_000, lambda: now)
    with pytest.raises(LeaseHeldError), leases.lease("configuration/data-science"):
        raise AssertionError("held twice")
    assert env.table.last_rule_sync() == MOMENT


def test_the_deployment_and_a_worker_are_read_as_they_were_meant(env: NotebookEnv) -> None:
    for name in ("deployment", "worker"):
        store(name)
    sha256 = ITEMS["worker"]["sk"]["S"]
    assert deployments.read(env.table) == Deployment(
        "1.1.0:ba9876543210", MOMENT + 200, ("0123456789abcdef", sha256[:16]), (MOMENT + 300) * 1000
    )
    assert RecordCache(env.table, 0).deployment() == deployments.read(env.table)
    assert read_worker(env.table, sha256) == WORKER


def test_a_backup_is_written_as_it_was(env: NotebookEnv) -> None:
    config = LifecycleConfig("data-science", "arn", 0, None, b"#!/bin/bash\necho hello\n")
    backups.backup_script(env.table, config, "install the block", 1_796_000_400)
    backups.set_backup_expiry(env.table, "data-science", 1_790_000_000)
    assert item_of(stored("backup")) == {name: from_attribute(value) for name, value in ITEMS["backup"].items()}
