"""Lambda: signals in, notebooks and configurations looked at, each once for a batch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit, single_metric
from aws_lambda_powertools.utilities.typing import LambdaContext

from notebook_ssh.aws import queues
from notebook_ssh.aws.known import Known
from notebook_ssh.aws.notebooks import WrongStatus
from notebook_ssh.aws.pacing import NoTurn, Turns
from notebook_ssh.aws.table import Table
from notebook_ssh.errors import Absent, Transient
from notebook_ssh.rules.correlation import correlation_of_messages
from notebook_ssh.rules.notebook import is_seen
from notebook_ssh.rules.signals import LookAtConfiguration, LookAtNotebook, read_signals, to_message, together
from notebook_ssh.settings import read_settings
from reconcile_notebook import observe
from reconcile_notebook.reconcile import Desk, Overtaken, reconcile_configuration, reconcile_notebook
from reconcile_notebook.terms import read_terms

logger = Logger()

AGAIN = 30
"""Seconds after which to look again when the notebook is in a status that allows nothing, or just went away."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A look of this process at a notebook, which came to its end.

    at: when it began; one that finds nothing new writes nothing. configuration: what to read about next time at once.
    """

    at: int
    configuration: str | None


_looked: dict[str, Looked] = {}
"""The last one at each notebook, by its name in lower case."""


def forget() -> None:
    """Remember nothing of what this process saw."""
    _looked.clear()
    observe.forget()


def handle(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Look at everything that the batch's messages name; answer with the messages to deliver again."""
    logger.append_keys(function_request_id=context.aws_request_id)
    settings = read_settings()
    table = Table(settings.table)
    desk = Desk(
        settings=settings,
        terms=read_terms(settings),
        table=table,
        turns=Turns(
            table,
            remaining=context.get_remaining_time_in_millis,
            clock=lambda: int(time.time() * 1000),
            sleep=time.sleep,
        ),
        clock=lambda: int(time.time()),
    )
    looks = collapse(event["Records"], settings.tag_key, context.function_name)
    failed: set[str] = set()
    known: Known | None = None
    for number, (look, messages) in enumerate(looks.items()):
        if desk.turns.over():
            _again(dict(list(looks.items())[number:]), 1, desk)
            break
        if known is None or desk.clock() > known.at:  # or a write that has to wait would find it old, and look again
            known = _read(list(looks)[number:], desk)
        if known.closed():
            logger.info("the stack is being deleted: nothing is looked at any more")
            break
        if not _answer(look, messages, desk, known):
            failed |= {message["messageId"] for message in messages}
    if failed:
        with single_metric(name="FailedSignals", unit=MetricUnit.Count, value=len(failed), namespace="notebook-ssh"):
            pass  # printed at the end of the block; Lambda counts a run that fails as a whole, and not these
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in sorted(failed)]}


def _read(looks: Iterable[LookAtNotebook | LookAtConfiguration], desk: Desk) -> Known:
    """What the table knows of everything that is to be looked at."""
    known = Known(desk.table, desk.clock())
    notebooks = [look.name for look in looks if isinstance(look, LookAtNotebook)]
    configurations = [look.name for look in looks if isinstance(look, LookAtConfiguration)]
    as_before = (_looked[name.lower()].configuration for name in notebooks if name.lower() in _looked)
    known.read_ahead(notebooks, [desk.terms.fallback, *configurations, *filter(None, as_before)])
    return known


def collapse(
    messages: list[Mapping[str, Any]], tag_key: str, caller: str
) -> dict[LookAtNotebook | LookAtConfiguration, list[Mapping[str, Any]]]:
    """What to look at, once for each name in any capitals, with the messages that ask for it."""
    asked: dict[tuple[type, str], list[tuple[LookAtNotebook | LookAtConfiguration, Mapping[str, Any]]]] = {}
    for message in messages:
        for signal in read_signals(_body(message), tag_key=tag_key, caller=caller):
            if isinstance(signal, LookAtNotebook | LookAtConfiguration):
                asked.setdefault((type(signal), signal.name.lower()), []).append((signal, message))
    return {together([look for look, _ in each]): [message for _, message in each] for each in asked.values()}


def _body(message: Mapping[str, Any]) -> object:
    try:
        return json.loads(message["body"])
    except ValueError:
        return None


def _is_known(look: LookAtNotebook | LookAtConfiguration, messages: list[Mapping[str, Any]], known: Known) -> bool:
    """Whether everything that the messages can tell was there to be seen when the thing was last looked at.

    A message that is delivered again is never known: the look that it asked for did not end.
    """
    if any(message["attributes"].get("ApproximateReceiveCount", "1") != "1" for message in messages):
        return False
    if isinstance(look, LookAtConfiguration):
        return is_seen(look.changed, known.kept(look.name))
    record = known.record(look.name)
    looked = _looked.get(look.name.lower())
    looked_at = max(record.observed_at if record and record.seen else 0, looked.at if looked else 0)
    return all(_moment(message) < looked_at for message in messages)


def _moment(message: Mapping[str, Any]) -> int:
    """When the thing that the message tells of can be seen, in epoch seconds: when it was sent, or as it says itself."""
    body = _body(message)
    at = body.get("at", 0) if isinstance(body, Mapping) else 0
    return max(int(message["attributes"]["SentTimestamp"]) // 1000, at if isinstance(at, int) else 0)


def _answer(
    look: LookAtNotebook | LookAtConfiguration, messages: list[Mapping[str, Any]], desk: Desk, known: Known
) -> bool:
    """Look, unless all was seen already. False when the messages shall be delivered again."""
    ids = correlation_of_messages(messages)
    with logger.append_context_keys(look_at=look.name, because=look.because, correlation_id=ids):
        if _is_known(look, messages, known):
            logger.info("already seen")
            return True
        return _look_at(look, messages, replace(desk, correlation_id=ids), known)


def _look_at(
    look: LookAtNotebook | LookAtConfiguration, messages: list[Mapping[str, Any]], desk: Desk, known: Known
) -> bool:
    """False when it came to no end and nobody will look again by himself."""
    try:
        if isinstance(look, LookAtNotebook):
            configuration = reconcile_notebook(look.name, desk, known)
            _looked[look.name.lower()] = Looked(known.at, configuration)
        else:
            reconcile_configuration(look.name, desk, known)
    except NoTurn as later:
        logger.info("later", extra={"reason": str(later)})
        _again({look: messages}, later.after, desk)
    except Overtaken as later:
        logger.info("later", extra={"reason": str(later)})
        _again({look: messages}, 1, desk)
    except (WrongStatus, Absent) as later:
        logger.info("it changed since it was looked at", extra={"reason": str(later)})
        _again({look: messages}, AGAIN, desk)
    except Transient as error:
        logger.warning("failed for now", extra={"reason": str(error)})
        return False
    except Exception:
        # One notebook that nobody foresaw must not hold up the others: its messages fail, and end in the alarm.
        logger.exception("failed")
        return False
    else:
        logger.info("looked at")
    return True


def _again(
    looks: Mapping[LookAtNotebook | LookAtConfiguration, list[Mapping[str, Any]]], after: int, desk: Desk
) -> None:
    """Into the queue once more, rather than failing: waiting for a turn is no reason to end among the dead letters."""
    again = [to_message(look, desk.clock(), correlation_of_messages(messages)) for look, messages in looks.items()]
    queues.send(desk.settings.notebook_queue, [(message, after) for message, _ in again])
