"""The embedded AWS as a program: ministack in this process, corrected and extended, on one port of 127.0.0.1.

    python -m emulator.serve --port PORT --home DIRECTORY --api-port PORT --endpoint-port PORT [--tag-events aws.tag|cloudtrail|both|none] [--no-machines]

It ends, and everything it started with it, when its standard input closes or on SIGTERM. `process.py` starts it.
IAM is enforced.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import signal
import traceback
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session

import processes
from emulator.place import ACCOUNT, REGION

if TYPE_CHECKING:
    from emulator.event_bus import EventBus


def _settings() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--api-port", type=int, required=True, help="where notebooks reach the API")
    parser.add_argument("--endpoint-port", type=int, required=True, help="where tunnels of EC2 endpoints begin")
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
        # Functions inherit these two, however they are deployed. The first lets notebooks report addresses of this machine;
        # no parameter of the template sets it. The second says where the layer with the agent's text is unpacked.
        "ALLOW_LOOPBACK_ADDRESSES": "true",
        "NOTEBOOK_AGENT": str(home / "opt" / "notebook_agent"),
    }


def main() -> None:
    """Run until told to stop."""
    settings = _settings()
    processes.adopt_orphans()
    _prepare_environment(settings.port, settings.home)
    # Each of the many sessions that ministack and moto make would read the same lists of services and regions again.
    botocore.session.create_loader = cache(botocore.session.create_loader)

    from emulator import lean_moto

    lean_moto.leave_out_instance_types()

    from ministack import app

    from emulator import answers, event_bus, sagemaker, script_log, sessions, tunnels
    from emulator.faults import Faults
    from emulator.hardware import Hardware

    logging.getLogger("ministack").setLevel(logging.WARNING)
    answers.share(settings.home)
    bus = event_bus.EventBus(settings.tag_events)
    sagemaker.extend_moto()
    sagemaker.subscribe(bus.on_happening)
    _correct(bus, settings.home)
    machines = settings.home / "notebooks"
    machines.mkdir(exist_ok=True)
    hardware = Hardware(
        ACCOUNT,
        REGION,
        machines,
        f"http://127.0.0.1:{settings.port}",
        f"http://127.0.0.1:{settings.api_port}",
        sessions.of_role,
        script_log.deliver,
        boots=not settings.no_machines,
    )
    hardware.start()
    tunnels.serve_tunnels(settings.home, settings.endpoint_port)
    status = 0
    try:
        faults = Faults(bus.with_trail_of_keys(app.app), settings.port, sessions.caller)
        asyncio.run(_serve(answers.with_answers(faults), settings.port))
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        processes.end_all(patience=1)
        shutil.rmtree(settings.home / "tmp", ignore_errors=True)
        # At once: ministack's threads wait for functions that are no more.
        os._exit(status)


def _correct(bus: EventBus, home: Path) -> None:
    """Route SageMaker and EC2 to moto, and correct and extend what ministack does itself."""
    from ministack import app

    from emulator import (
        access,
        corrections,
        event_bus,
        moto_services,
        queues,
        refusals,
        start_permissions,
        template_resources,
    )

    called = moto_services.moto_handler("sagemaker", after=bus.on_call)
    app.SERVICE_HANDLERS["sagemaker"] = start_permissions.with_start_check(called)
    app.SERVICE_HANDLERS["ec2"] = access.with_tag_check(moto_services.moto_handler("ec2"))
    corrections.route_sagemaker()
    corrections.keep_resource_policies()
    corrections.keep_ids_of_apis()
    corrections.transform_with_values()
    corrections.read_method_paths()
    corrections.keep_table_settings()
    corrections.accept_what_is_only_shown()
    corrections.lift_limits()
    corrections.unpack_layers(home / "opt")
    corrections.let_invocations_finish()
    corrections.move_dead_letters()
    corrections.let_clocks_be_set()
    event_bus.deliver_calls_that_read()
    queues.limit_fifo_queues()
    template_resources.make_in_moto()
    access.teach_access()
    access.trust_the_loopback()
    refusals.refuse_what_is_not_emulated()


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
