"""The pure core answers 20,000 drawn inputs as it did on the day they were stored (`draw.py`); by day 9,100 of them.

Names may change: `names.toml` has each old name with its new one. Anything else that differs is a change of behaviour.
"""

from __future__ import annotations

import json
import lzma
from collections import Counter
from functools import cache
from typing import Any

import pytest
from golden.codec import decode, encode, names
from golden.draw import CASES, MANY
from golden.subjects import SUBJECTS

SLICE = 1_000
"""Cases of one test, so that workers can share a kind. The first of each kind is tried by day, all at night."""


@cache
def cases() -> dict[str, list[dict[str, Any]]]:
    """Every stored case by its kind."""
    told: dict[str, list[dict[str, Any]]] = {}
    with lzma.open(CASES, "rt", encoding="utf-8") as lines:
        for line in lines:
            case = json.loads(line)
            told.setdefault(case["kind"], []).append(case)
    return told


def difference(expected: Any, found: Any, place: str = "") -> str | None:
    """Where two encoded values differ first, and how; None when they are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        if expected.get("!") in names().replaced:
            return difference(names().replaced[expected["!"]], found.get("!"), f"{place}.!")
        for name in sorted({*expected, *found}):
            if f"{expected.get('!')}.{name}" in names().uncompared:
                continue
            if name not in expected or name not in found:
                return f"{place}.{name}: {expected.get(name, 'nothing')!r} became {found.get(name, 'nothing')!r}"
            if told := difference(expected[name], found[name], f"{place}.{name}"):
                return told
        return None
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return next(
            (
                told
                for i, pair in enumerate(zip(expected, found, strict=True))
                if (told := difference(*pair, f"{place}[{i}]"))
            ),
            None,
        )
    return None if expected == found else f"{place}: {expected!r} became {found!r}"


@pytest.mark.parametrize(
    ("kind", "start"),
    [
        pytest.param(kind, at, marks=[pytest.mark.nightly(sibling="test_the_code_answers_as_it_did")] if at else [])
        for kind, many in MANY.items()
        for at in range(0, many, SLICE)
    ],
)
def test_the_code_answers_as_it_did(kind: str, start: int) -> None:
    for number, case in enumerate(cases()[kind][start : start + SLICE], start):
        found = encode(SUBJECTS[kind](decode(case["given"])))
        changed = meant(kind, number, case, found)
        expected, answered = ({key: each[key] for key in each.keys() - changed} for each in (case["expected"], found))
        told = difference(expected, answered)
        assert told is None, f"case {number} of {kind}: {told}"


def without_extras(plan: Any, extras: list[str]) -> Any:
    """A plan without the actions of these classes, or a list without the sentences that begin so."""
    if isinstance(plan, list):
        return [sentence for sentence in plan if not sentence.startswith(tuple(extras))]
    actions = [action for action in plan.get("actions", ()) if action["!"] not in extras]
    rest = {name: part for name, part in plan.items() if name != "actions"}
    return rest | {"actions": actions} if actions else rest


def meant(kind: str, number: int, case: dict[str, Any], found: dict[str, Any]) -> set[str]:
    """The parts that differ on purpose (names.toml, `changed`)."""
    expected, given = case["expected"], json.dumps(case["given"])
    changes = {name.partition(".")[2]: each for name, each in names().changed.items() if name.startswith(f"{kind}.")}
    return {
        key
        for key, each in changes.items()
        if number in each.get("cases", ())
        or any(text in given for text in each.get("given", ()))
        or ("was" in each and (expected[key], found[key]) == (each["was"], each["now"]))
        or (
            "extras" in each
            and not difference(*(without_extras(plan[key], each["extras"]) for plan in (expected, found)))
        )
    }


def test_all_of_them_are_there() -> None:
    assert {kind: len(stored) for kind, stored in cases().items()} == MANY
    assert sum(MANY.values()) == 20_000


def test_every_kind_of_answer_occurs() -> None:
    """A net with holes would hold as well: what the drawn inputs must have met at least twenty times."""
    statuses = Counter(case["expected"]["status"]["code"]["value"] for case in cases()["record"])
    # `ready` is of a mode that the stored cases do not have.
    assert set(statuses) == {member.value for member in names().class_of("status.Code")} - {"ready"}
    assert min(statuses.values()) >= 20, statuses
    planned = Counter(
        action["!"]
        for kind in ("notebook", "configuration")
        for case in cases()[kind]
        for action in case["expected"]["plan"].get("actions", ())
    )
    assert len(planned) == 11, planned
    assert min(planned.values()) >= 20, planned


def test_a_difference_is_named() -> None:
    assert difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ".a[1].b: 2 became 3"
    assert difference({"a": 1}, {}) == ".a: 1 became 'nothing'"
    assert difference([1], [1, 2]) == ": [1] became [1, 2]"
    assert difference({"a": [1]}, {"a": [1]}) is None


def test_a_field_that_is_new_or_gone_is_not_compared_in_its_own_class() -> None:
    field = next(iter(names().uncompared))
    owner, _, name = field.rpartition(".")
    assert difference({"!": owner, name: 1}, {"!": owner}) is None
    assert difference({"!": owner}, {"!": owner, name: 1}) is None
    assert difference({"!": "another", name: 1}, {"!": "another"}) == f".{name}: 1 became 'nothing'"


def test_what_is_replaced_is_replaced_by_what_the_table_names() -> None:
    gone, instead = next(iter(names().replaced.items()))
    assert difference({"!": gone, "reason": "schedule"}, {"!": instead, "reason": "no event of ours"}) is None
    assert difference({"!": gone}, {"!": gone}) == f".!: {instead!r} became {gone!r}"
