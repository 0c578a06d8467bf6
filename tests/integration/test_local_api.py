"""Who may ask the deployed API what, over HTTP, with IAM and the resource policy enforced."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from environment import STACK, LocalEnv

OUTSIDER = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Action": "execute-api:*", "Resource": "*"}],
}


def http_status(url: str) -> int:
    """Without any signature."""
    done = subprocess.run(
        ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_a_user_without_any_policy_may_look_up(env: LocalEnv) -> None:
    keys = env.make_user("nobody-special")
    answer = env.curl("/notebooks", keys)
    assert (answer.status, isinstance(json.loads(answer.body), list | dict)) == (200, True)


def test_an_unsigned_request_is_refused(env: LocalEnv) -> None:
    assert http_status(f"{env.stack.api}/notebooks") == 403


def test_a_wrong_secret_is_refused(env: LocalEnv) -> None:
    keys = {**env.person.keys, "AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    assert env.curl("/notebooks", keys).status == 403


def test_an_explicit_deny_is_stronger_than_the_resource_policy(env: LocalEnv) -> None:
    keys = env.make_user("kept-out", OUTSIDER)
    assert env.curl("/notebooks", keys).status == 403


def test_an_unknown_notebook_is_reported_as_unknown(env: LocalEnv) -> None:
    answer = env.curl("/notebooks/there-is-no-such-notebook")
    assert (answer.status, "error" in json.loads(answer.body)) == (404, True)


def report(env: LocalEnv, name: str, keys: dict[str, str]) -> int:
    body: dict[str, Any] = {
        "agent": "1.0.0",
        "boot": "0b5e0c4e-8f6b-4a52-9c5e-1f6a2f1d0a55",
        "booted_at": 1,
        "sequence": 1,
        "modes": [],
        "phase": "off",
        "host": None,
        "port": None,
        "host_keys": [],
        "keys": {"own": 0, "central": 0, "rejected": []},
        "sessions": {"open": 0, "active_at": None},
        "problem": None,
        "token_version": None,
    }
    done = subprocess.run(
        [
            *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"),
            *("--aws-sigv4", "aws:amz:us-east-1:execute-api"),
            *("--user", f"{keys['AWS_ACCESS_KEY_ID']}:{keys['AWS_SECRET_ACCESS_KEY']}"),
            *("-H", "Content-Type: application/json", "--data", json.dumps(body)),
            f"{env.stack.api}/notebooks/{name}/report",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def test_only_the_notebooks_own_role_may_report(env: LocalEnv, requested: str) -> None:
    assert report(env, requested, env.person.keys) == 403


def test_the_table_keeps_what_the_template_says(env: LocalEnv) -> None:
    table = env.stack.outputs["TableName"]
    client = env.emulator.client("dynamodb")
    lifetime = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    backups = client.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    assert (lifetime["TimeToLiveStatus"], lifetime["AttributeName"]) == ("ENABLED", "expires")
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"


@pytest.fixture(scope="module")
def requested(env: LocalEnv) -> str:
    """A notebook for which SSH is requested."""
    import processes

    name = "api-requested"
    env.create_notebook(name)
    env.tag(name, ssh="ngrok")
    processes.wait_until(f"{STACK} knows {name}", lambda: env.curl(f"/notebooks/{name}").status == 200)
    return name


def test_a_flood_of_lists_is_refused_and_leaves_single_lookups_alone(env: LocalEnv) -> None:
    keys = env.make_user("flooder")
    lists = [http_code(env, f"/{path}", keys) for _ in range(16) for path in ("notebooks", "ssh-config", "known-hosts")]
    single = [http_code(env, "/notebooks/there-is-no-such-notebook", keys) for _ in range(8)]
    assert lists.count(429) > len(lists) // 2
    assert set(lists) <= {200, 429}
    assert set(single) == {404}


def http_code(env: LocalEnv, path: str, keys: dict[str, str]) -> int:
    return int(env.curl(path, keys).status)
