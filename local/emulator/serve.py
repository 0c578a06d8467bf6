"""The embedded AWS as a program: ministack in this process, corrected and extended, on one port of 127.0.0.1.

    python -m emulator.serve --port PORT --home DIRECTORY --api-port PORT [--tag-events aws.tag|cloudtrail|both|none] [--no-machines]

It ends, and everything it started with it, when its standard input closes or on SIGTERM. `process.py` starts it.
IAM is enforced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import time
import traceback
from pathlib import Path
from typing import Any

import processes

ACCOUNT = "123456789012"
REGION = "us-east-1"


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--api-port", type=int, required=True, help="where notebooks reach the API")
    parser.add_argument("--tag-events", default="both", choices=["aws.tag", "cloudtrail", "both", "none"])
    parser.add_argument("--no-machines", action="store_true", help="notebooks have statuses, and nothing behind them")
    return parser.parse_args()


def _prepare_environment(port: int, home: Path) -> None:
    """ministack reads its settings once, when it is imported. Nothing of the person's own AWS set-up stays."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MINISTACK_", "LOCALSTACK_", "PYTHON"))]:
        del os.environ[name]
    scratch = home / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "MOTO_ACCOUNT_ID": ACCOUNT,
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "S3_PERSIST": "0",
        "PERSIST_STATE": "0",
        "TMPDIR": str(scratch),
        "STATE_DIR": str(home / "state"),
        "S3_DATA_DIR": str(home / "s3"),
        "HOME": str(home),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        # Functions inherit these two, whoever deploys them. The first lets notebooks report addresses of this machine;
        # no parameter of the template sets it. The second says where the layer with the agent's text is unpacked.
        "ALLOW_LOOPBACK_ADDRESSES": "true",
        "NOTEBOOK_AGENT": str(home / "opt" / "notebook_agent"),
    }


def main() -> None:
    """Run until told to stop."""
    settings = _settings()
    processes.adopt_orphans()
    _prepare_environment(settings.port, settings.home)

    from ministack import app
    from ministack.core import iam_evaluator
    from ministack.core.responses import get_account_id, request_scope
    from ministack.services import eventbridge, sts

    from emulator import access, corrections, events, moto_services, refusals, sagemaker
    from emulator.faults import Faults
    from emulator.hardware import Hardware
    from notebook.machine import Credentials

    tag_events = events.TagEvents(settings.tag_events)
    logging.getLogger("ministack").setLevel(logging.WARNING)

    def emit(entry: dict[str, Any]) -> None:
        """Put an event of AWS's own on the bus, from the loop that serves requests."""

        def put() -> None:
            with request_scope(ACCOUNT, REGION):
                eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)

        app._MAIN_LOOP.call_soon_threadsafe(put)

    def on_happening(happening: sagemaker.Happening) -> None:
        entry = events.entry_of(happening, tag_events)
        if entry:
            emit(entry)

    def on_call(headers: dict[str, str], body: bytes) -> None:
        operation = headers.get("x-amz-target", "").partition(".")[2]
        if tag_events in (events.TagEvents.CLOUDTRAIL, events.TagEvents.BOTH) and not operation.startswith(
            ("Describe", "List")
        ):
            key = app.extract_access_key_id(headers)
            emit(events.cloudtrail_entry(operation, json.loads(body), _identity(key)))

    def arn_of(key: str) -> str:
        with request_scope(ACCOUNT, REGION):
            return str((iam_evaluator.resolve_caller_identity(key) or {}).get("userArn", ""))

    def _identity(key: str) -> dict[str, Any]:
        caller = iam_evaluator.resolve_caller_identity(key) or {}
        arn = str(caller.get("userArn", ""))
        account = get_account_id()
        if ":assumed-role/" not in arn:
            return {"type": "IAMUser", "arn": arn, "accountId": account}
        role = arn.split("/")[1]
        issuer = {"type": "Role", "arn": f"arn:aws:iam::{account}:role/{role}", "userName": role}
        return {"type": "AssumedRole", "arn": arn, "accountId": account, "sessionContext": {"sessionIssuer": issuer}}

    def credentials(role_arn: str) -> Credentials:
        """A session of the notebook's role, as SageMaker gives it to the instance."""
        role = role_arn.rpartition("/")[2]
        made = Credentials(
            key=f"ASIA{secrets.token_hex(8).upper()}",
            secret=secrets.token_hex(20),
            token=secrets.token_hex(32),
            expires=time.time() + 6 * 3600,
        )
        with request_scope(ACCOUNT, REGION):
            sts.register_session(
                made.key,
                {
                    "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/SageMaker",
                    "UserId": f"{role}:SageMaker",
                    "SecretAccessKey": made.secret,
                    "SessionToken": made.token,
                    "Expiration": made.expires,
                },
            )
        return made

    sagemaker.extend_moto()
    sagemaker.subscribe(on_happening)
    app.SERVICE_HANDLERS["sagemaker"] = moto_services.moto_handler("sagemaker", after=on_call)
    app.SERVICE_HANDLERS["ec2"] = access.with_tag_check(moto_services.moto_handler("ec2"))
    corrections.route_sagemaker()
    corrections.keep_resource_policies()
    corrections.read_method_paths()
    corrections.keep_table_settings()
    corrections.accept_what_is_only_shown()
    corrections.lift_limits()
    corrections.unpack_layers(settings.home / "opt")
    corrections.let_invocations_finish()
    corrections.move_dead_letters()
    corrections.let_clocks_be_set()
    access.teach_access()
    access.trust_the_loopback()
    refusals.refuse_what_is_not_emulated()

    machines = settings.home / "notebooks"
    machines.mkdir(exist_ok=True)
    hardware = Hardware(
        ACCOUNT,
        REGION,
        machines,
        f"http://127.0.0.1:{settings.port}",
        f"http://127.0.0.1:{settings.api_port}",
        credentials,
        boots=not settings.no_machines,
    )
    hardware.start()
    status = 0
    try:
        asyncio.run(_serve(Faults(app.app, settings.port, arn_of), settings.port))
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        processes.end_all(patience=1)
        shutil.rmtree(settings.home / "tmp", ignore_errors=True)
        # At once: ministack's threads wait for functions that are no more.
        os._exit(status)


async def _serve(application: Any, port: int) -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    processes.when_abandoned(lambda: loop.call_soon_threadsafe(ended.set))

    async def until_ended() -> None:
        await ended.wait()

    await serve(application, config, shutdown_trigger=until_ended)


if __name__ == "__main__":
    main()
