"""The address of a notebook, the host names that refer to it, and what is valid in both.

Whatever comes from the API, from a file or from ssh's command line is checked here before it is used in a path, in a
command line or in a file of ssh. Without regular expressions, since importing `re` takes longer than all of it.
"""

from __future__ import annotations

from notebook_ssh_client.errors import EXIT_UNKNOWN_NOTEBOOK, CliError

# The end of every host name that this client resolves: `my-notebook.notebook`, `my-notebook.my-stack.notebook`.
HOST_SUFFIX = ".notebook"

MAX_NAME_LENGTH = 63  # CreateNotebookInstance, NotebookInstanceName
MAX_LABEL_LENGTH = 128  # CreateStack, StackName
MAX_HOST_LENGTH = 255

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ALPHANUMERIC = _LETTERS + "0123456789"
_BASE64 = _ALPHANUMERIC + "+/"


class Endpoint:
    """An EC2 Instance Connect Endpoint that leads to a notebook."""

    __slots__ = ("dns_name", "id", "region", "stack")

    def __init__(
        self,
        id: str,  # noqa: A002  its name in AWS
        dns_name: str,  # may have a port, for tests
        region: str,
        stack: str,  # the label of the stack in the settings, whose AWS profile signs
    ) -> None:
        self.id = id
        self.dns_name = dns_name
        self.region = region
        self.stack = stack

    def _values(self) -> tuple[object, ...]:
        return (self.id, self.dns_name, self.region, self.stack)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"Endpoint{self._values()!r}"


class SshAddress:
    """The address of a notebook, by one path or by several, and the host keys to verify it by."""

    # Not a dataclass: importing `dataclasses` takes longer than everything else in this module.
    __slots__ = ("bastion", "bastion_keys", "endpoint", "fetched_at", "host", "host_keys", "mode", "others", "port")

    def __init__(
        self,
        host: str,  # where TCP connects to; with a bastion, as seen from it
        port: int,
        host_keys: tuple[str, ...],  # the notebook's public host keys, `type base64`
        bastion: tuple[str, str, int] | None,  # host, user and port of the bastion
        fetched_at: int,  # when the stack returned it, epoch seconds
        bastion_keys: tuple[str, ...] = (),  # the bastion's public host keys; empty if the stack does not know them
        endpoint: Endpoint | None = None,  # what leads to `host`, an address in its VPC
        mode: str = "",  # the word of the tag that this path is; "" if an older stack does not say so
        others: tuple[SshAddress, ...] = (),  # the notebook's other paths, in the order of the tag
    ) -> None:
        self.host = host
        self.port = port
        self.host_keys = host_keys
        self.bastion = bastion
        self.fetched_at = fetched_at
        self.bastion_keys = bastion_keys
        self.endpoint = endpoint
        self.mode = mode
        self.others = others

    @property
    def paths(self) -> tuple[SshAddress, ...]:
        """Every path to the notebook, in the order of the tag."""
        return (self, *self.others)

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, field) for field in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SshAddress) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def __repr__(self) -> str:
        return f"SshAddress{self._values()!r}"


def invalid_field(address: SshAddress) -> tuple[str, object] | None:
    """Return the first field of `address` that is not valid, and its value; None if all are."""
    host, user, port = address.bastion or ("bastion", "user", 22)
    endpoint = address.endpoint or Endpoint("eice-0", "endpoint", "region", "stack")
    fields: list[tuple[str, object, bool]] = [
        ("host", address.host, _is_host(address.host)),
        ("port", address.port, _is_port(address.port)),
        ("bastion", host, _is_host(host)),
        ("bastion user", user, _is_user(user)),
        ("bastion port", port, _is_port(port)),
        ("endpoint", endpoint.id, _is_word(endpoint.id)),
        ("endpoint's DNS name", endpoint.dns_name, _is_host(endpoint.dns_name)),
        ("region", endpoint.region, _is_word(endpoint.region)),
        ("stack", endpoint.stack, is_label(endpoint.stack)),
        ("mode", address.mode, address.mode == "" or _is_word(address.mode)),
        *(("host key", key, _is_host_key(key)) for key in address.host_keys),
        *(("bastion host key", key, _is_host_key(key)) for key in address.bastion_keys),
    ]
    invalid = next(((field, value) for field, value, is_valid in fields if not is_valid), None)
    return invalid or next((found for other in address.others if (found := invalid_field(other))), None)


def is_notebook_name(text: str) -> bool:
    """Return whether SageMaker allows a notebook instance of this name."""
    is_word = 0 < len(text) <= MAX_NAME_LENGTH and _consists_of(text, _ALPHANUMERIC + "-")
    return is_word and text[0] != "-" and text[-1] != "-"


def is_label(text: str) -> bool:
    """Return whether a stack can have this label: CloudFormation's rule for the names of stacks."""
    return 0 < len(text) <= MAX_LABEL_LENGTH and text[0] in _LETTERS and _consists_of(text, _ALPHANUMERIC + "-")


def split_host(host: str) -> tuple[str, str]:
    """Return the notebook name and the stack's label ("" for none) in `host`.

    Accepts `name`, `name.label`, and both with HOST_SUFFIX. Raises CliError for anything else.
    """
    bare = host[: -len(HOST_SUFFIX)] if host.lower().endswith(HOST_SUFFIX) else host
    name, dot, label = bare.partition(".")
    if not is_notebook_name(name) or (dot and not is_label(label)):
        raise CliError(
            f"{bare!r} is not a valid notebook name: use 1 to 63 letters, digits and hyphens, without a hyphen at "
            "either end; NAME.STACK if several stacks have one of this name",
            EXIT_UNKNOWN_NOTEBOOK,
        )
    return name, label


def normalize_host(host: str) -> str:
    """Return a host name with HOST_SUFFIX in lower case, which is safe as a file name. Raises CliError for any other."""
    if not host.lower().endswith(HOST_SUFFIX):
        raise CliError(f"{host!r} is not a valid notebook name: it must end in {HOST_SUFFIX}", EXIT_UNKNOWN_NOTEBOOK)
    split_host(host)
    return host.lower()


def bastion_alias(host: str, port: int) -> str:
    """Return the name of a bastion in the client's known_hosts file: no notebook's, which ends differently."""
    return f"bastion.{host}.{port}"


def _consists_of(text: str, characters: str) -> bool:
    return not text.strip(characters)  # only these are removed, from both ends


def _is_host(value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_HOST_LENGTH:
        return False
    return value[0] in _ALPHANUMERIC + ":" and _consists_of(value, _ALPHANUMERIC + ".:_-")


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_LENGTH and _consists_of(value, _ALPHANUMERIC + "-")


def _is_user(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    return value[0] in _ALPHANUMERIC + "_" and _consists_of(value, _ALPHANUMERIC + "._-")


def _is_port(value: object) -> bool:
    return isinstance(value, int) and 0 < value < 65536


def _is_host_key(value: object) -> bool:
    """Return whether `value` is `type base64`, as in known_hosts, without markers, options or a comment."""
    kind, space, encoded = value.partition(" ") if isinstance(value, str) else ("", "", "")
    return bool(
        kind
        and space
        and kind[0] in _LETTERS
        and _consists_of(kind, _ALPHANUMERIC + "@.-")
        and encoded.rstrip("=")
        and len(encoded) - len(encoded.rstrip("=")) <= 2
        and _consists_of(encoded.rstrip("="), _BASE64)
    )
