"""Values of the pure core as JSON and back, under one table of names (`names.toml`).

A dataclass or a named tuple is `{"!": "record.Record", field: value, …}`, fields with their defaults left out; an
enum's member is `{"!": "record.Mode", "value": …}`. Old names are those that the stored cases use, new ones those of the code.
"""

from __future__ import annotations

import base64
import importlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGE = "notebook_ssh"


@dataclass(frozen=True, slots=True)
class Names:
    """The table of names.

    classes: new dotted name below the package by old one. fields: new name of a field by `old class.old field`.
    keys: new key of a JSON object by `what it is.old key`.
    merged: by new dotted name, the old names of classes that became one, by whether a field is None.
    replaced: old name of the class that is returned in place of an old one that is gone.
    texts: new words of sentences by the old ones.
    tuples: by `old class.old field` with one member of an enum, the enum's old name: today it is a tuple, without any for `off`.
    mappings: by `old class.old field` with one value, the old name and the value of the enum's member under which a mapping has it.
    changed: by `kind.key of the answer`, what else may differ there on purpose, and why: the answer `was` and is `now`, the
    numbers of the `cases`, or the classes of which a plan may have more or fewer actions (`extras`).
    uncompared: fields that are new, or are gone, by `old class.field`, and why.
    """

    classes: Mapping[str, str]
    fields: Mapping[str, str]
    keys: Mapping[str, str]
    merged: Mapping[str, Mapping[str, str]]
    replaced: Mapping[str, str]
    texts: Mapping[str, str]
    tuples: Mapping[str, str]
    mappings: Mapping[str, str]
    changed: Mapping[str, Mapping[str, Any]]
    uncompared: Mapping[str, str]

    def class_of(self, old: str) -> Any:
        """The class that the stored name `old` means now. Raises AttributeError or ModuleNotFoundError."""
        module, _, name = self.classes.get(old, f"rules.{old}").rpartition(".")
        return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)

    def field_of(self, old_class: str, old_field: str) -> str:
        """The name that a field has now."""
        return self.fields.get(f"{old_class}.{old_field}", old_field)

    def old_text(self, text: str) -> str:
        """`text` in its old words."""
        for old, new in self.texts.items():
            text = text.replace(new, old)
        return text

    def merger_of(self, cls: type) -> Mapping[str, str] | None:
        """How `cls` was made of several old classes, if it was."""
        return self.merged.get(self._dotted(cls))

    def old_of(self, cls: type) -> str:
        """The stored name of `cls`."""
        dotted = self._dotted(cls)
        old = next((old for old, new in self.classes.items() if new == dotted), None)
        return old or dotted.removeprefix("rules.")

    @staticmethod
    def _dotted(cls: type) -> str:
        return f"{cls.__module__.removeprefix(f'{PACKAGE}.')}.{cls.__qualname__}"

    def old_field_of(self, old_class: str, new_field: str) -> str:
        """The stored name of a field."""
        head = f"{old_class}."
        return next(
            (old.removeprefix(head) for old, new in self.fields.items() if new == new_field and old.startswith(head)),
            new_field,
        )


@cache
def names() -> Names:
    """The committed table."""
    told = tomllib.loads((HERE / "names.toml").read_text())
    return Names(**told)


# Asked a million times of a few hundred names.


@cache
def _class_of(old: str) -> Any:
    return names().class_of(old)


@cache
def _named_tuples() -> frozenset[type]:
    """The named tuples that the cases hold by a name of their own, as they do dataclasses."""
    classes = map(_class_of, names().classes)
    return frozenset(cls for cls in classes if issubclass(cls, tuple))


@cache
def _old_of(cls: type) -> str:
    return names().old_of(cls)


@cache
def _old_field_of(old_class: str, new_field: str) -> str:
    return names().old_field_of(old_class, new_field)


@cache
def _old_text(text: str) -> str:
    return names().old_text(text)


def old_class(cls: type) -> str:
    """The stored name of a class that is named without its module."""
    return _old_of(cls).rpartition(".")[2]


def old_keys(kind: str, value: Any) -> Any:
    """The JSON objects in `value`, which is a `kind` of names.toml, by their old keys."""
    if isinstance(value, list | tuple):
        return [old_keys(kind, each) for each in value]
    if not isinstance(value, Mapping):
        return value
    old = {new: old.removeprefix(f"{kind}.") for old, new in names().keys.items() if old.startswith(f"{kind}.")}
    return {old.get(key, key): old_keys(kind, each) for key, each in value.items()}


def new_keys(kind: str, value: Any) -> Any:
    """The inverse of `old_keys`, for one object and the objects that it names by a renamed key."""
    if not isinstance(value, dict):
        return value
    new = {old.removeprefix(f"{kind}."): new for old, new in names().keys.items() if old.startswith(f"{kind}.")}
    return {new.get(key, key): new_keys(kind, each) if key in new else each for key, each in value.items()}


def encode(value: Any) -> Any:
    """`value` as JSON can hold it, by its old names. Raises TypeError for what no case may hold."""
    match value:
        case Enum():
            return {"!": _old_of(type(value)), "value": value.value}
        case str():
            return _old_text(value)
        case None | bool() | int():
            return value
        case bytes():
            return {"!": "bytes", "base64": base64.b64encode(value).decode()}
        case tuple() if type(value) in _named_tuples():
            return _encode_parts(value)
        case tuple() | list():
            return [encode(each) for each in value]
        case frozenset() | set():
            return {"!": "set", "members": sorted((encode(each) for each in value), key=repr)}
        case Mapping():
            if all(isinstance(key, str) for key in value):
                return {key: encode(each) for key, each in value.items()}
            return {"!": "pairs", "pairs": [[encode(key), encode(each)] for key, each in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        return _encode_parts(value)
    raise TypeError(f"no case holds a {type(value).__name__}")


def _encode_parts(value: Any) -> Any:
    kind: type = type(value)
    old, apart = _old_of(kind), ""
    if merger := names().merger_of(kind):
        apart = merger["field"]
        old = merger["none" if getattr(value, apart) is None else "other"]
    told = {
        _old_field_of(old, name): _encode_field(old, name, part) for name, part in _told_fields(value) if name != apart
    }
    return {"!": old, **told}


def _told_fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass or a named tuple that count in a comparison and differ from their defaults."""
    if not is_dataclass(value):
        defaults = value._field_defaults
        for name, part in value._asdict().items():
            if name not in defaults or part != defaults[name]:
                yield name, part
        return
    for field in fields(value):
        part = getattr(value, field.name)
        if field.compare and not _is_default(field, part):
            yield field.name, part


def _encode_field(old_class: str, field: str, value: Any) -> Any:
    old = f"{old_class}.{_old_field_of(old_class, field)}"
    if key := names().mappings.get(old):
        (only,) = value
        assert only == _member(key)
        return encode(value[only])
    enum = names().tuples.get(old)
    return encode_single(enum, value) if enum else encode(value)


def encode_single(old_enum: str, members: Sequence[Any]) -> Any:
    """A tuple of members as the member that it was, `off` without any; several, which no old answer had, as their words."""
    return {"!": old_enum, "value": " ".join(member.value for member in members) or "off"}


def _member(key: str) -> Any:
    enum, _, value = key.rpartition(".")
    return _class_of(enum)(value)


def _decode_field(old_class: str, field: str, told: Any) -> Any:
    if key := names().mappings.get(f"{old_class}.{field}"):
        return {_member(key): decode(told)}
    if f"{old_class}.{field}" not in names().tuples:
        return decode(told)
    return () if told["value"] == "off" else (decode(told),)


def decode(told: Any) -> Any:
    """The inverse of `encode`, but that lists become tuples."""
    if isinstance(told, list):
        return tuple(decode(each) for each in told)
    if not isinstance(told, dict):
        return told
    match told:
        case {"!": "bytes", "base64": text}:
            return base64.b64decode(text)
        case {"!": "set", "members": members}:
            return frozenset(map(decode, members))
        case {"!": "pairs", "pairs": pairs}:
            return {decode(key): decode(each) for key, each in pairs}
        case {"!": old, **parts}:
            cls = _class_of(old)
            if issubclass(cls, Enum):
                return cls(parts["value"])
            return cls(**{names().field_of(old, name): _decode_field(old, name, each) for name, each in parts.items()})
    return {key: decode(each) for key, each in told.items()}


def _is_default(field: Field[Any], value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())
