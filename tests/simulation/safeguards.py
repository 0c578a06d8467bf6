"""Safeguards taken out of a copy of the code, one after the other: how long until the simulation notices?

python -m simulation.safeguards --runs 400          each of them, in the schedules (schedules.py), and then in runs
                                                    with seeds 1, 2, … until one fails
python -m simulation.safeguards --only "next page"  those whose name has this in it
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("layers/core", "functions", "tests")

SCRIPT = "layers/core/notebook_ssh/planning/script.py"
LIFECYCLE_CONFIG = "layers/core/notebook_ssh/planning/lifecycle_config.py"
RULES = "layers/core/notebook_ssh/planning/rules.py"
REVOKE = "layers/core/notebook_ssh/adapters/ec2.py"
SAGEMAKER = "layers/core/notebook_ssh/adapters/sagemaker.py"
TABLE = "layers/core/notebook_ssh/adapters/table.py"
LEASE = "layers/core/notebook_ssh/adapters/lease.py"
OBSERVE = "layers/core/notebook_ssh/controllers/observe.py"
EXCLUSIVE = "layers/core/notebook_ssh/controllers/exclusive.py"
CONFIG_RECORDS = "layers/core/notebook_ssh/controllers/config_records.py"
CONFIG_CONTROLLER = "layers/core/notebook_ssh/controllers/lifecycle_config.py"
APPLY = "layers/core/notebook_ssh/controllers/apply.py"
UPGRADE = "layers/core/notebook_ssh/planning/upgrade.py"
SWEEP = "layers/core/notebook_ssh/controllers/sweep.py"
SESSION_ENDS = "layers/core/notebook_ssh/model/session_ends.py"
CERTIFICATE = "layers/core/notebook_ssh/model/certificate.py"
REVOCATION = "layers/core/notebook_ssh/model/revocation.py"
TEARDOWN = "layers/core/notebook_ssh/controllers/teardown.py"

RULE_PLANNED = (RULES, "if complete and each.stack == stack and", "if complete and")
RULE_REVOKED = (REVOKE, "if fresh.get(found.id) != found or found.stack != stack:", "if False:")
ONLY_ABSENCE = (
    "except NotFoundError:\n        return NotebookObservation(",
    "except Exception:\n        return NotebookObservation(",
)
NOT_READ = "except NotFoundError:\n        return None", "except Exception:\n        return None"
NO_TAGS = "except NotFoundError:\n            continue", "except Exception:\n            continue"


@dataclass(frozen=True, slots=True)
class Safeguard:
    """What is taken out: in each file a text that is there once, and what takes its place."""

    name: str
    edits: tuple[tuple[str, str, str], ...]


SAFEGUARDS = (
    Safeguard(
        "the backup of a script before it is changed",
        ((APPLY, "backups.backup_script(deps.table, lifecycle_config, reason, now)", "pass"),),
    ),
    Safeguard(
        "the sweep's queueing", ((SWEEP, "(to_message(request, now, correlation_id) for request in requests)", "()"),)
    ),
    Safeguard("a failed read of a notebook is not its absence", ((OBSERVE, *ONLY_ABSENCE),)),
    Safeguard("a failed read of a configuration is not its absence", ((OBSERVE, *NOT_READ),)),
    Safeguard(
        "a failed read of the tags of a notebook with the configuration is not their absence", ((OBSERVE, *NO_TAGS),)
    ),
    Safeguard(
        "the next page of a list", ((SAGEMAKER, "if not token:\n            return", "if True:\n            return"),)
    ),
    Safeguard(
        "all notebooks with a configuration known before its script loses the block",
        ((SCRIPT, "if users.complete and not users.invalid else", "if not users.invalid else"),),
    ),
    Safeguard(
        "no notebook loses the block because of a tag that cannot be read",
        ((SCRIPT, "if users.complete and not users.invalid else", "if users.complete else"),),
    ),
    Safeguard(
        "the second observation, after waiting for a write slot",
        ((EXCLUSIVE, "if reobserve or planned.cache.is_expired(slot // 1000):", "if False:"),),
    ),
    Safeguard(
        "the last read before a script is written",
        ((APPLY, "sagemaker.verify_unchanged(action.lifecycle_config)", "pass"),),
    ),
    Safeguard(
        "the last read before a configuration is attached",
        ((APPLY, "sagemaker.verify_detached(action.notebook)", "pass"),),
    ),
    Safeguard(
        "one worker at a time for a configuration",
        ((LEASE, 'held.enter_context(self._acquired(f"lease/{name}"))', "pass"),),
    ),
    Safeguard(
        "a newer reconciliation's record is not overwritten",
        (
            (
                TABLE,
                '"#observed_at = :at_before AND #hash = :hash_before"',
                '"attribute_exists(#observed_at) OR #hash <> :hash_before"',
            ),
        ),
    ),
    Safeguard(
        "a configuration is recorded before it is changed",
        ((CONFIG_RECORDS, "if before is None and after is not None and actions:", "if False:"),),
    ),
    Safeguard(
        "follow-up requests are queued before a change is recorded as observed",
        ((CONFIG_CONTROLLER, "send(plan.follow_ups, deps, cache.at)\n    record_after(before", "record_after(before"),),
    ),
    Safeguard(
        "a cached script is read again after a minute",
        ((OBSERVE, "now <= at + SCRIPT_CACHE_S else None", "True else None"),),
    ),
    Safeguard(
        "a change that no reconciliation has observed is reconciled",
        (
            (
                LIFECYCLE_CONFIG,
                "return config_record is not None and changed % 1000 != 0 and changed <= config_record.modified",
                "return config_record is not None",
            ),
        ),
    ),
    Safeguard(
        "an upgrade waits until it is due",
        ((UPGRADE, "if not policy.upgrade_after:", "if True:"),),
    ),
    Safeguard(
        "a block that works stays until then",
        ((SCRIPT, "if working and target is BlockState.WORKING:", "if False:"),),
    ),
    Safeguard(
        "what is due is upgraded", ((SWEEP, "        sqs.send(settings.notebook_queue, messages)", "        pass"),)
    ),
    Safeguard("ownership of a rule, in the plan only", (RULE_PLANNED,)),
    Safeguard("ownership of a rule, in the plan and before revoking", (RULE_PLANNED, RULE_REVOKED)),
    Safeguard(
        "ownership of a configuration",
        ((OBSERVE, "sagemaker.read_tags(lifecycle_config.arn).get(OWNER_TAG) == stack", "True"),),
    ),
    Safeguard("an invalid tag ends no session", ((SESSION_ENDS, "if spec == NotebookSpec():", "if not spec.modes:"),)),
    Safeguard(
        "no certificate outlives access",
        ((CERTIFICATE, "return end if until is None else min(end, until)", "return end"),),
    ),
    Safeguard(
        "a certificate that is older than a revocation lets no one in",
        ((REVOCATION, "max((each.at for each in revocations), default=0)", "0"),),
    ),
    Safeguard(
        "a certificate is for one notebook, and not for another of its name",
        ((CERTIFICATE, 'return f"{stack}/{notebook}/{created_at}"', 'return f"{stack}/box/1"'),),
    ),
    Safeguard(
        "restoring scripts when the stack is deleted",
        (
            (
                TEARDOWN,
                "_until_done(sorted(names), lambda name: _restore_script(name, deps, result), deps, result)",
                "pass",
            ),
        ),
    ),
    Safeguard(
        "waiting for what others write when it is deleted",
        ((TEARDOWN, "    deps.slots.wait_for_others()\n", ""),),
    ),
    Safeguard(
        "removing records and tags when it is deleted",
        (
            (
                TEARDOWN,
                "_until_done(records, lambda record: _release_notebook(record, deps, result), deps, result)",
                "pass",
            ),
        ),
    ),
    Safeguard(
        "revoking the bastion's rules when it is deleted",
        (
            (
                TEARDOWN,
                """_until_done(["the security-group rules"], lambda what: _revoke_rules(deps, result), deps, result)""",
                "pass",
            ),
        ),
    ),
)

PLAY = """
import sys
from simulation.errors import InvariantError
from simulation.explore import LENGTH
from simulation.run import Run
from simulation.schedules import SCHEDULES
for schedule in SCHEDULES:
    try:
        schedule()
    except (AssertionError, InvariantError) as failure:
        print(f"caught by the schedule {schedule.__name__}: {str(failure):.160}")
        sys.exit()
done = 0
for seed in range(1, int(sys.argv[1]) + 1):
    run = Run(seed, LENGTH)
    try:
        run.play()
    except AssertionError as failure:
        print(f"caught after {done + run.step:,} steps: {str(failure).splitlines()[0]:.160}")
        break
    done += run.counts["steps"]
else:
    print(f"not caught in {done:,} steps")
"""


def without(safeguard: Safeguard, runs: int) -> str:
    """What the runs with seeds 1 to `runs` say of the code without the safeguard."""
    with tempfile.TemporaryDirectory(prefix="notebook-ssh-broken-") as copy:
        for folder in FOLDERS:
            shutil.copytree(ROOT / folder, Path(copy, folder), ignore=shutil.ignore_patterns("__pycache__"))
        for file, text, instead in safeguard.edits:
            source = Path(copy, file)
            source.write_text(source.read_text().replace(text, instead))
        path = os.pathsep.join(str(Path(copy, folder)) for folder in FOLDERS)
        done = subprocess.run(
            [sys.executable, "-B", "-c", PLAY, str(runs)],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="simulation.safeguards")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--only", default="", metavar="TEXT", help="part of a name")
    given = parser.parse_args()
    for safeguard in SAFEGUARDS:
        if given.only in safeguard.name:
            print(f"without {safeguard.name}:\n    {without(safeguard, given.runs)}", flush=True)


if __name__ == "__main__":
    main()
