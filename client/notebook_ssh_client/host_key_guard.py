"""Verifies a server's host key on behalf of a program that does not, by reading the key exchange that passes through.

The first packets of a connection are not encrypted (RFC 4253, section 6), the one with the server's host key among them.
Every SSH client verifies that the server owns the key in that packet, by its signature of the exchange (section 8); what
careless ones do not verify is which key it is. So it is enough to pass on no other key than one that the notebook
reported, and nothing encrypted before that. The connection stays encrypted between the program and the notebook.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator

# Message numbers: RFC 4253 section 12; 31 for all methods with one reply (RFC 4253 section 8, RFC 5656, RFC 8731),
# 31 and 33 for the group exchange (RFC 4419 section 5).
DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG = 1, 2, 3, 4
KEXINIT, NEWKEYS = 20, 21
REPLY, GROUP, GROUP_REPLY = 31, 31, 33

COOKIE_SIZE = 16
MAX_PACKET_SIZE = 256 * 1024  # OpenSSH's own limit
MAX_BANNER_SIZE = 16 * 1024


class HostKeyError(Exception):
    """The server presented no host key that the notebook reported; the text says what it did instead."""


class HostKeyGuard:
    """Reads both directions of one connection until its keys are exchanged."""

    def __init__(self, host_keys: tuple[str, ...]) -> None:
        """host_keys: the public keys that the notebook reported, `type base64`."""
        self._keys = {binascii.a2b_base64(key.split(" ")[1]) for key in host_keys}
        self._client, self._server = _ClearPackets(), _ClearPackets()
        self._client_methods: list[bytes] = []
        self._server_methods: list[bytes] = []
        self._is_verified = False
        self._is_over = False

    def from_client(self, data: bytes) -> None:
        """Read bytes of the client, all of which may be passed on. Call it before they are."""
        if self._client_methods or self._is_over:
            return  # everything else of the client is its own business
        for payload in self._client.feed(data):
            if payload[0] == KEXINIT:
                self._client_methods = _kex_methods(payload)
                return

    def from_server(self, data: bytes) -> bytes:
        """Read bytes of the server; return those that may be passed on now. Raises HostKeyError."""
        if self._is_over:
            return data
        passed = self._server.take_banner(data)
        for payload in self._server.feed(b""):
            self._check(payload)
            passed += self._server.last_packet
            if payload[0] == NEWKEYS:
                self._is_over = True
                return passed + self._server.rest()
        return passed

    def _check(self, payload: bytes) -> None:
        kind = payload[0]
        if kind in (DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG):
            return
        if kind == KEXINIT and not self._server_methods:
            self._server_methods = _kex_methods(payload)
        elif kind == NEWKEYS and self._is_verified:
            return
        elif kind == self._reply_kind() and not self._is_verified:
            if _first_string(payload) not in self._keys:
                raise HostKeyError("presented a host key that the notebook never reported")
            self._is_verified = True
        elif kind != GROUP or self._reply_kind() != GROUP_REPLY or self._is_verified:
            raise HostKeyError(f"sent message {kind} before it presented its host key")

    def _reply_kind(self) -> int:
        """Return the message that carries the host key: by the first method of the client that the server has too."""
        method = next((method for method in self._client_methods if method in self._server_methods), None)
        if method is None:
            raise HostKeyError("has no method of key exchange in common with the program")
        return GROUP_REPLY if b"group-exchange" in method else REPLY


class _ClearPackets:
    """Splits a stream into its banner and the payloads of its packets, up to the first encrypted one."""

    def __init__(self) -> None:
        self._buffer = b""
        self._has_banner = False
        self.last_packet = b""

    def take_banner(self, data: bytes) -> bytes:
        """Add `data`, and return the lines up to the banner as soon as they are complete."""
        self._buffer += data
        if self._has_banner:
            return b""
        taken = b""
        while not self._has_banner:
            line, newline, rest = self._buffer.partition(b"\n")
            if not newline:
                if len(taken) + len(line) > MAX_BANNER_SIZE:
                    raise HostKeyError("sent no SSH banner")
                self._buffer = taken + line
                return b""
            taken, self._buffer = taken + line + newline, rest
            self._has_banner = line.startswith(b"SSH-")
        return taken

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add `data`, and yield the payload of each complete packet; `last_packet` is then all of it."""
        self.take_banner(data)
        while self._has_banner and len(self._buffer) >= 5:
            size, padding = struct.unpack_from(">IB", self._buffer)
            if size > MAX_PACKET_SIZE or size < padding + 2:
                raise HostKeyError("sent no SSH packet")
            if len(self._buffer) < 4 + size:
                return
            self.last_packet, self._buffer = self._buffer[: 4 + size], self._buffer[4 + size :]
            yield self.last_packet[5 : 4 + size - padding]

    def rest(self) -> bytes:
        """Return what was not read yet, and forget it."""
        rest, self._buffer = self._buffer, b""
        return rest


def _kex_methods(payload: bytes) -> list[bytes]:
    """Return the methods of key exchange in a KEXINIT message (RFC 4253 section 7.1)."""
    return _first_string(payload[COOKIE_SIZE:]).split(b",")


def _first_string(payload: bytes) -> bytes:
    """Return the string after the first byte (RFC 4251 section 5). Raises HostKeyError if it is not complete."""
    if len(payload) < 5:
        raise HostKeyError("sent an incomplete message")
    (size,) = struct.unpack_from(">I", payload, 1)
    if len(payload) < 5 + size:
        raise HostKeyError("sent an incomplete message")
    return payload[5 : 5 + size]
