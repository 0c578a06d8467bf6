"""From queue messages to reconciliations: each resource once for a batch, and not when an earlier run covered it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from aws_lambda_powertools import Logger

from notebook_ssh.adapters import sagemaker, sqs
from notebook_ssh.adapters.clients import AWS_ERRORS
from notebook_ssh.adapters.lease import LeaseHeldError
from notebook_ssh.adapters.record_cache import RecordCache
from notebook_ssh.adapters.sagemaker import ScriptChangedError
from notebook_ssh.adapters.write_slots import SlotUnavailableError
from notebook_ssh.controllers import config_records, observe
from notebook_ssh.controllers.dependencies import Dependencies
from notebook_ssh.controllers.follow_ups import send
from notebook_ssh.controllers.lifecycle_config import reconcile_lifecycle_config
from notebook_ssh.controllers.notebook import RecordConflictError, reconcile_notebook
from notebook_ssh.errors import InvalidStateError, NotFoundError, RetryableError
from notebook_ssh.model.text import parse_json
from notebook_ssh.planning.lifecycle_config import includes_change
from notebook_ssh.planning.status_tags import STATUS_TAG_INTERVAL
from notebook_ssh.triggers.correlation import correlation_of_messages
from notebook_ssh.triggers.events import parse_event
from notebook_ssh.triggers.requests import ReconcileLifecycleConfig, ReconcileNotebook, merge, to_message

logger = Logger(child=True)

RETRY_DELAY_S = 30
"""Seconds until the retry when the notebook's state allows no change, or the resource was just deleted."""


class LastRun(NamedTuple):
    """The last reconciliation of a notebook that this process finished. One that changes nothing is not recorded."""

    at: int  # when it began, epoch seconds
    lifecycle_config: str | None  # the configuration that the notebook used, to prefetch its record


_last_runs: dict[str, LastRun] = {}
"""By the notebook's name in lower case."""


def forget() -> None:
    """Clear what this process remembers, for tests."""
    _last_runs.clear()
    observe.forget()
    config_records.forget()
    sagemaker.forget()


def process(messages: list[Mapping[str, Any]], deps: Dependencies, caller: str) -> set[str]:
    """Reconcile everything that the messages name, each thing once; returns the ids of the messages to deliver again.

    caller: the session name of this function's own calls in CloudTrail's events, which are ignored.
    """
    requests = {
        request: causes
        for request, causes in deduplicate(messages, deps.settings.tag_key, caller, deps.clock()).items()
        if not _is_own_write(request, causes)
    }
    failed: set[str] = set()
    cache: RecordCache | None = None
    for number, (request, causes) in enumerate(requests.items()):
        if deps.slots.out_of_time():
            _requeue(dict(list(requests.items())[number:]), 1, deps)
            break
        # A write that has to wait would find an older cache expired, and observe again.
        if cache is None or deps.clock() > cache.at:
            cache = _prefetch(list(requests)[number:], deps)
        if cache.is_tearing_down():
            logger.info("the stack is being deleted: nothing is reconciled any more")
            break
        if not _reconcile_if_new(request, causes, deps, cache):
            failed |= {message["messageId"] for message in causes}
    return failed


def _prefetch(requests: Iterable[ReconcileNotebook | ReconcileLifecycleConfig], deps: Dependencies) -> RecordCache:
    """Read the records of everything that `requests` name, in as few requests as possible."""
    cache = RecordCache(deps.table, deps.clock())
    notebooks = [request.name for request in requests if isinstance(request, ReconcileNotebook)]
    lifecycle_configs = [request.name for request in requests if isinstance(request, ReconcileLifecycleConfig)]
    as_before = (_last_runs[name.lower()].lifecycle_config for name in notebooks if name.lower() in _last_runs)
    cache.prefetch(notebooks, [deps.policy.default_config, *lifecycle_configs, *filter(None, as_before)])
    return cache


def deduplicate(
    messages: list[Mapping[str, Any]], tag_key: str, caller: str, now: int
) -> dict[ReconcileNotebook | ReconcileLifecycleConfig, list[Mapping[str, Any]]]:
    """Parse the messages; returns each request once (names are case-insensitive), with the messages that it stands for.

    A request for a later time (after `now`, epoch seconds) is not merged with one for the present.
    """
    requested: dict[
        tuple[type, str, int], list[tuple[ReconcileNotebook | ReconcileLifecycleConfig, Mapping[str, Any]]]
    ] = {}
    for message in messages:
        for request in parse_event(parse_json(message["body"]), tag_key=tag_key, caller=caller):
            if isinstance(request, ReconcileNotebook | ReconcileLifecycleConfig):
                at = request.at if isinstance(request, ReconcileNotebook) and request.at > now else 0
                requested.setdefault((type(request), request.name.lower(), at), []).append((request, message))
    return {merge([request for request, _ in each]): [message for _, message in each] for each in requested.values()}


def _is_own_write(request: ReconcileNotebook | ReconcileLifecycleConfig, messages: list[Mapping[str, Any]]) -> bool:
    """Whether the messages report a write of this very process: known without a request to the table."""
    if not isinstance(request, ReconcileLifecycleConfig) or _are_redelivered(messages):
        return False
    return config_records.is_own_write(request.name, request.changed)


def _are_redelivered(messages: list[Mapping[str, Any]]) -> bool:
    return any(message["attributes"].get("ApproximateReceiveCount", "1") != "1" for message in messages)


def _is_covered(
    request: ReconcileNotebook | ReconcileLifecycleConfig, messages: list[Mapping[str, Any]], cache: RecordCache
) -> bool:
    """Whether the last reconciliation observed everything that the messages report.

    A message that is delivered again is never covered: the reconciliation that it requested did not finish. Nor does a
    record cover one that is from the future.
    """
    if _are_redelivered(messages):
        return False
    if isinstance(request, ReconcileLifecycleConfig):
        return includes_change(request.changed, cache.config_record(request.name))
    record = cache.record(request.name)
    last = _last_runs.get(request.name.lower())
    observed_at = record.observed_at if record and record.observed_hash else 0
    reconciled_at = max(observed_at if observed_at <= cache.at else 0, last.at if last else 0)
    return all(_visible_from(message) < reconciled_at for message in messages)


def _visible_from(message: Mapping[str, Any]) -> int:
    """Return when the change that a message reports can be observed (epoch seconds): when it was sent, or its own `at`."""
    body = parse_json(message["body"])
    at = body.get("at", 0) if isinstance(body, Mapping) else 0
    return max(int(message["attributes"]["SentTimestamp"]) // 1000, at if isinstance(at, int) else 0)


def _reconcile_if_new(
    request: ReconcileNotebook | ReconcileLifecycleConfig,
    messages: list[Mapping[str, Any]],
    deps: Dependencies,
    cache: RecordCache,
) -> bool:
    """Reconcile, unless an earlier run covered all messages. False: deliver the messages again."""
    ids = correlation_of_messages(messages)
    with logger.append_context_keys(resource=request.name, trigger=request.reason, correlation_id=ids):
        return _reconcile(request, messages, replace(deps, correlation_id=ids), cache)


def _reconcile(
    request: ReconcileNotebook | ReconcileLifecycleConfig,
    messages: list[Mapping[str, Any]],
    deps: Dependencies,
    cache: RecordCache,
) -> bool:
    """Reconcile under the messages' correlation ids. False: it failed, and only their redelivery retries it."""
    try:
        if isinstance(request, ReconcileNotebook) and request.at > deps.clock():
            _forward(request, deps, cache)
            return True
        if _is_covered(request, messages, cache):
            logger.info("already covered")
            return True
        if isinstance(request, ReconcileNotebook):
            lifecycle_config = reconcile_notebook(request.name, deps, cache, tags_changed=request.tags_changed)
            _last_runs[request.name.lower()] = LastRun(cache.at, lifecycle_config)
        else:
            reconcile_lifecycle_config(request.name, deps, cache)
    except (SlotUnavailableError, LeaseHeldError) as later:
        return _defer(request, messages, later, later.retry_after, deps)
    except (RecordConflictError, ScriptChangedError) as later:
        return _defer(request, messages, later, 1, deps)
    except (InvalidStateError, NotFoundError) as later:
        return _defer(request, messages, later, RETRY_DELAY_S, deps)
    except RetryableError as error:
        logger.warning("failed, will be retried", extra={"reason": str(error)})
        return False
    except Exception:
        # An unforeseen error of one notebook must not hold up the others: its messages fail, and the alarm fires.
        logger.exception("failed")
        return False
    else:
        logger.info("reconciled")
    return True


def _forward(request: ReconcileNotebook, deps: Dependencies, cache: RecordCache) -> None:
    """Send a request that is early once more: the next link of its chain, or none when the record has another end."""
    now, record = deps.clock(), cache.record(request.name)
    if request.at <= now + STATUS_TAG_INTERVAL or (record is not None and record.spec.until == request.at):
        send((request,), deps, now)


def _defer(
    request: ReconcileNotebook | ReconcileLifecycleConfig,
    messages: list[Mapping[str, Any]],
    cause: Exception,
    after: int,
    deps: Dependencies,
) -> bool:
    """Queue the request again in `after` seconds. False: that failed, and the messages are to be delivered again."""
    logger.info("deferred", extra={"reason": str(cause)})
    try:
        _requeue({request: messages}, after, deps)
    except AWS_ERRORS as error:
        logger.warning("not queued again", extra={"reason": str(error)})
        return False
    return True


def _requeue(
    requests: Mapping[ReconcileNotebook | ReconcileLifecycleConfig, list[Mapping[str, Any]]],
    after: int,
    deps: Dependencies,
) -> None:
    """Queue the requests again rather than fail: waiting for a write slot must not fill the dead-letter queue."""
    again = [
        to_message(request, deps.clock(), correlation_of_messages(messages)) for request, messages in requests.items()
    ]
    sqs.send(deps.settings.notebook_queue, [(message, after) for message, _ in again])
