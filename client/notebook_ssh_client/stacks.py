"""The stacks this laptop knows, the notebooks each of them named last, and what a host name means among them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, replace

from notebook_ssh_client import files
from notebook_ssh_client.failures import UNKNOWN_NOTEBOOK, USAGE, Failure
from notebook_ssh_client.remembered import SUFFIX

NOTEBOOK_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""As SageMaker allows it (CreateNotebookInstance, NotebookInstanceName)."""

STACK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,127}")
"""As CloudFormation allows it (CreateStack, StackName)."""


@dataclass(frozen=True)
class Stack:
    """One deployed stack, and as whom to ask it.

    label: what people write in `my-notebook.<label>.notebook`; the stack's name, made unique.
    name, region: as deployed. api: the API's address with its stage, no slash at the end.
    profile: the AWS profile to sign with, or None for whatever the environment says.
    """

    label: str
    name: str
    region: str
    api: str
    profile: str | None = None


@dataclass(frozen=True)
class Known:
    """What `setup` was told: the stacks, the first one first, and the configuration of ssh that includes our hosts."""

    stacks: list[Stack]
    ssh_config: str


def load(home: str) -> Known:
    """What `setup` was told. Raises Failure when it never ran."""
    text = files.read(_path(home))
    if text is None:
        raise Failure("no stack is known on this machine yet; run: notebook-ssh setup", USAGE)
    try:
        told = json.loads(text)
        return Known([Stack(**item) for item in told["stacks"]], str(told["ssh_config"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(
            f"{_path(home)} is damaged ({error}); run: notebook-ssh setup --remove, then set up again", USAGE
        ) from error


def add(home: str, stack: Stack, ssh_config: str) -> Known:
    """Know `stack` too, or anew if it was known, and answer all that is known."""
    before = load(home).stacks if os.path.exists(_path(home)) else []
    same = next((other for other in before if _is_same(other, stack)), None)
    label = same.label if same else _free_label(stack, {other.label.lower() for other in before})
    stack = replace(stack, label=label)
    known = Known([stack if other is same else other for other in before] if same else [*before, stack], ssh_config)
    files.write(_path(home), json.dumps(asdict(known), indent=2) + "\n")
    return known


def meant_by(host: str, stacks: list[Stack]) -> tuple[str, list[Stack]]:
    """The notebook's name in `host`, and the stacks that may know it.

    Understands `name`, `name.notebook` and `name.label.notebook`. Raises Failure for anything else.
    """
    bare = host[: -len(SUFFIX)] if host.lower().endswith(SUFFIX) else host
    name, _, label = bare.partition(".")
    if not NOTEBOOK_NAME.fullmatch(name):
        raise Failure(
            f"{name!r} cannot be a notebook's name: those have 1 to 63 letters, digits and hyphens, "
            "and no hyphen at either end",
            UNKNOWN_NOTEBOOK,
        )
    if not label:
        return name, stacks
    meant = [stack for stack in stacks if stack.label.lower() == label.lower()]
    if not meant:
        labels = ", ".join(stack.label for stack in stacks)
        raise Failure(f"no stack is called {label!r} on this machine; there is {labels}", USAGE)
    return name, meant


def load_names(home: str) -> dict[str, list[str]]:
    """The notebooks' names that each stack (by label) gave last. A damaged file counts as empty: it is made anew."""
    try:
        return {str(label): [str(name) for name in names] for label, names in json.loads(_names(home)).items()}
    except (ValueError, AttributeError, TypeError):
        return {}


def save_names(home: str, names: dict[str, list[str]]) -> None:
    """Keep these names."""
    files.write(os.path.join(home, "names.json"), json.dumps(names, indent=1) + "\n")


def names_age(home: str, now: float) -> float:
    """Seconds since the names were asked for last; infinite when they never were."""
    try:
        return now - os.stat(os.path.join(home, "names.json")).st_mtime
    except FileNotFoundError:
        return float("inf")


def _names(home: str) -> str:
    return files.read(os.path.join(home, "names.json")) or "{}"


def _path(home: str) -> str:
    return os.path.join(home, "stacks.json")


def _is_same(one: Stack, other: Stack) -> bool:
    return one.api == other.api or (one.name, one.region, one.profile) == (other.name, other.region, other.profile)


def _free_label(stack: Stack, taken: set[str]) -> str:
    wanted = [stack.name, f"{stack.name}-{stack.region}", f"{stack.name}-{stack.region}-{stack.profile}"]
    numbered = (f"{stack.name}-{number}" for number in range(2, len(taken) + 3))
    return next(label for label in [*wanted, *numbered] if label.lower() not in taken and STACK_NAME.fullmatch(label))
