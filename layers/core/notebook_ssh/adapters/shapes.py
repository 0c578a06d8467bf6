"""How a dataclass is stored as a map of plain values: field by field, by names and defaults that are written down.

`codec` has the shapes of records. Nothing is read off the dataclasses: a field that is renamed keeps its stored name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

REQUIRED = object()
"""Marks an attribute without which its part cannot be read. It is always stored."""


class UnknownValueError(ValueError):
    """A stored value could not be read. args: path of the attribute, value."""


class Type(NamedTuple):
    """How one attribute's value is read and written."""

    read: Callable[[Any], Any]
    """Converts the stored value. Raises ValueError or TypeError when this version does not know it."""
    write: Callable[[Any], Any]
    """Converts the field's value to a plain value."""
    shape: Shape | None = None
    """The parts of the value, when it is a map."""
    plain: type | None = None
    """The type of values that are stored as they are, and need not be converted."""


class Attribute(NamedTuple):
    """One field of a dataclass, and how it is stored."""

    field: str
    stored: str
    """Its name in the table, which never follows a new name of the field."""
    type: Type
    default: Any
    """The value when the attribute is missing; REQUIRED when there is none."""
    always: bool = False
    """Whether it is stored even when equal to its default: conditions of updates compare it."""
    key: str | None = None
    """The key whose value it is, when the field is a mapping; it has no default then."""


class Shape:
    """The stored form of one dataclass, as a map or as an item."""

    def __init__(self, make: Callable[..., Any], *attributes: Attribute) -> None:
        self.make = make
        self.attributes = attributes
        self._plain = {attribute.stored: attribute for attribute in attributes if attribute.key is None}
        self._required = tuple(name for name, each in self._plain.items() if each.default is REQUIRED)
        self._defaults = {each.field: each.default for each in self._plain.values() if each.default is not REQUIRED}
        self._keyed = tuple(attribute for attribute in attributes if attribute.key is not None)

    def decode(self, stored: Mapping[str, Any]) -> Any:
        """Return the dataclass. Raises UnknownValueError."""
        for name in self._required:
            if stored.get(name) is None:
                raise UnknownValueError(name, None)
        values = self._defaults.copy()
        # Only what is stored, and without a call for the usual values: a sweep decodes every record of the fleet.
        for name, value in stored.items():
            if value is None or name not in self._plain:
                continue
            field, _, kind, _, _, _ = self._plain[name]
            values[field] = value if type(value) is kind.plain else _read(kind, name, value)
        for field, name, kind, _, _, key in self._keyed:
            if (value := stored.get(name)) is not None:
                values.setdefault(field, {})[key] = _read(kind, name, value)
        return self.make(**values)

    def encode(self, value: Any) -> dict[str, Any]:
        """Return the attributes to store: all but those that are None or equal to their default."""
        plain: dict[str, Any] = {}
        for attribute in self.attributes:
            part = getattr(value, attribute.field)
            if attribute.key is not None:
                part = part.get(attribute.key)
            if part is not None and (attribute.always or part != attribute.default):
                plain[attribute.stored] = attribute.type.write(part)
        return plain

    def path(self, fields: Sequence[str]) -> Iterator[str]:
        """Yield the stored name of each field of a path into nested parts. Raises KeyError when there is no such field."""
        by_path = {(a.field,) if a.key is None else (a.field, a.key): a for a in self.attributes}
        found = next((path for path in by_path if path == tuple(fields[: len(path)])), None)
        if found is None:
            raise KeyError(fields[0])
        attribute, inner = by_path[found], fields[len(found) :]
        yield attribute.stored
        if inner:
            if attribute.type.shape is None:
                raise KeyError(inner[0])
            yield from attribute.type.shape.path(inner)


def _read(kind: Type, name: str, value: Any) -> Any:
    try:
        return kind.read(value)
    except UnknownValueError as inner:
        raise UnknownValueError(f"{name}.{inner.args[0]}", inner.args[1]) from None
    except (ValueError, TypeError, AttributeError):
        raise UnknownValueError(name, value) from None


def exactly(kind: type) -> Type:
    """Return the type of values that are stored as they are, of exactly this Python type: True is no number."""

    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError
        return value

    return Type(read, lambda value: value, plain=kind)


def enum_of(kind: type[Enum]) -> Type:
    """Return the type of an enum's members, stored by value."""
    return Type(kind, lambda value: str(value.value))


def part_of(shape: Shape) -> Type:
    """Return the type of a dataclass that is stored as a map."""
    return Type(shape.decode, shape.encode, shape)


def list_of(kind: Type) -> Type:
    """Return the type of a tuple, stored as a list."""

    def read(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise TypeError
        return tuple(map(kind.read, value))

    return Type(read, lambda value: [kind.write(each) for each in value])
