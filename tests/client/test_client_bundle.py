"""`notebook-ssh doctor --bundle`: a file for a bug report, with nothing in it that may not be published."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from support.laptop import notebook_json

from notebook_ssh_client.bundle import mask

SECRETS = {
    "token": "2abcDEFghiJKLmnoPQRstuVWXyz" + "_4AbCdEfGhIjKlMnOpQrS",
    "short token": "2abc_SECRET",
    "access key": "AKIA" + "EXAMPLEEXAMPLE12",
    "secret key": "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12",
    "account": "111122223333",
    "host": "0.tcp.eu.ngrok.io:17887",
    "address": "10.0.12.34",
    "private key": "-----BEGIN OPENSSH "
    + "PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH "
    + "PRIVATE KEY-----",
    "public key": "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    "mail": "ana@example.com",
}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("around", ["{}", "the value {} is wrong.", "arn:aws:sagemaker:eu-west-1:{}:x", '"{}"', "={}&"])
def test_a_secret_is_masked_wherever_it_stands(kind: str, around: str) -> None:
    assert SECRETS[kind] not in mask(around.format(SECRETS[kind]))


@pytest.mark.parametrize(
    "text",
    [
        "The lifecycle configuration data-science has no room for the block: 16,384 bytes at most.",
        "2026-07-01T08:00:00Z",
        "Stop it and start it, or tag it ssh-restart=now and the stack does both.",
        "~/SageMaker/ssh/authorized_keys on the notebook, then run copy-ssh-keys",
        "config-too-large",
        "1.0.0",
    ],
)
def test_what_explains_a_fault_stays(text: str) -> None:
    assert mask(text) == text


def test_the_file_explains_the_fault_and_holds_no_secret(laptop: Any, api: Any, tmp_path: Path) -> None:
    everything = " ".join(SECRETS.values())
    api.notebooks["demo"] = notebook_json(
        "demo",
        "error",
        message=f"The agent reports: {everything}",
        address=SECRETS["host"],
        host="0.tcp.eu.ngrok.io",
        port=17887,
        host_keys=[f"ssh-ed25519 {SECRETS['public key']}"],
        users=["ana", "mario"],
        problem={"code": "ngrok-ended", "message": everything},
        lifecycle_config="data-science",
    )
    laptop.setup(api)
    done = laptop.run_client("doctor", "demo", "--bundle", cwd=tmp_path)
    file = tmp_path / "notebook-ssh-demo.json"
    assert str(file) in done.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text("utf-8")
    planted = [
        *SECRETS.values(),
        "mario",
        *(
            laptop.environment[name]
            for name in laptop.environment
            if name.startswith("AWS_") and ("KEY" in name or "TOKEN" in name)
        ),
    ]
    assert [secret for secret in planted if secret in text] == []
    bundle = json.loads(text)
    assert bundle["notebook"]["problem"]["code"] == "ngrok-ended"
    assert bundle["notebook"]["lifecycle_config"] == "data-science"
    assert bundle["list"][0]["status"] == "error"
    assert {check["check"] for check in bundle["diagnosis"]["checks"]} == {"tag", "from-here"}
    assert bundle["client"]
