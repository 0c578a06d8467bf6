"""What counts as a public key. The samples in `REAL` were made by ssh-keygen."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from support.builders import HOST_KEY, RSA_KEY, wire

from notebook_ssh.model.ssh_keys import InvalidKeyError, admitted, central_key, host_key, option_names, public_key

POINT = bytes([4]) + bytes(64)
P256 = f"ecdsa-sha2-nistp256 {wire(b'ecdsa-sha2-nistp256', b'nistp256', POINT)}"
SECURITY_KEY = f"sk-ssh-ed25519@openssh.com {wire(b'sk-ssh-ed25519@openssh.com', bytes(32), b'ssh:')}"
SECURITY_KEY_P256 = "sk-ecdsa-sha2-nistp256@openssh.com " + wire(
    b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, b"ssh:"
)
CERTIFICATE = "ssh-ed25519-cert-v01@openssh.com " + wire(
    b"ssh-ed25519-cert-v01@openssh.com", bytes(16), bytes(32), b"the rest"
)
REAL = [
    "ecdsa-sha2-nistp521 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAAuh2aBhoUHqxXyLZVF7gYQVLIE92+C1wy0Du0eXtVMl/PO9iwxOS9vUluVQVAuL+CO6KzvHZB4H0Sc1whdPdE8IQAJ82tXTV/gGHYbipAGkWk8qa9S3tjR3L1xBjbJBFbBImu47h9Qhhl1DJXC7nJlK1zwobyA7X8JKqJFtAAQHcdv3w==",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com "
    "AAAAKGVjZHNhLXNoYTItbmlzdHAyNTYtY2VydC12MDFAb3BlbnNzaC5jb20AAAAg46kTEVPlPcj1tyUpLzHg4cpEBIuvWbGRjcmUeIHokY8AAAAIbmlzdHAyNTYAAABBBHSZSugklNAFf+1aNeoN8uvSMlM6nXNA+FpoCWKpLUYLfK4a4mInG8zT8EshDunk+S7bHro0IYIhCgqpXChSnlkAAAAAAAAAAAAAAAEAAAACaWQAAAAFAAAAAXUAAAAAAAAAAP//////////AAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgOoGAv5pNENCdE6i7yPHe8RCWA4ozQEXtexnRIb64QuwAAABTAAAAC3NzaC1lZDI1NTE5AAAAQA99Tm+yHRlHbybTFdygssIXMEkC2ZF9Uw2KrEyJkSHGXPJbe6owbeOWrjmktv2G245CWm6VoswG4gcw9+cGVQ8=",
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHSZSugklNAFf+1aNeoN8uvSMlM6nXNA+FpoCWKpLUYLfK4a4mInG8zT8EshDunk+S7bHro0IYIhCgqpXChSnlk=",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDqBgL+aTRDQnROou8jx3vEQlgOKM0BF7XsZ0SG+uELs",
    "ssh-rsa-cert-v01@openssh.com "
    "AAAAHHNzaC1yc2EtY2VydC12MDFAb3BlbnNzaC5jb20AAAAgQYgKnx01g6EhEWo5aXav6oIXlWIj/04tUu6udsi8gL4AAAADAQABAAABgQCUoepu4525OfILuu0Fy8ZIQDmCO0boaHKq85kAoZCAK5bDoEz151HIKs3T+7ibOcwrV0JwNoUGFUioS1IuSbSMzPGTXS3Ra8x1r8rHtW4lQMmtAnO++K5NA11rxbanm3VihCN/gllTyRjT4+P4Om4v4JtW8qlWTchIefyOJKQtzGp7Hs4229C8s3sOWJ90GuNBwY8N6G5Jd9CARhGsCDeSgAvtJnTGpGakw3a6VWvW7nFDy1gg9UwKK/h91BcLatIPtXoOTkNMnGUjazgT5Pp0n6DGl878awMoi2+qn5o4UJMl3C5Ru0v8HSeOlJFdeIojncf1eu7sCvQQ82oy733/cb7Pul9rTBwKzue/OoJGC88cUgP9Nfz9sb1dlyJNRU1vTkg5/jYznCk6+f311uy/CBexo+fuIyvMbP4MsyJzS7AAXe7zsdyMQYmrPXpNf3PdhTiYWDy3X4VUNu0hlmnjsyyF/O9Vw3zq5SyQEaTyO/sq1a0YnYYjU4iJPIzsjX8AAAAAAAAAAAAAAAEAAAACaWQAAAAFAAAAAXUAAAAAAAAAAP//////////AAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9yd2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMAAAALc3NoLWVkMjU1MTkAAAAgOoGAv5pNENCdE6i7yPHe8RCWA4ozQEXtexnRIb64QuwAAABTAAAAC3NzaC1lZDI1NTE5AAAAQMrhKGYhZU85e39B7Wqm9fbOFGBZZmH/Uj+nBJ/zuVfae3ru51w0E7EkoqJZuLuKPOfni7mkts+9E6y8lk6CtA0=",
    "ssh-rsa "
    "AAAAB3NzaC1yc2EAAAADAQABAAABgQCUoepu4525OfILuu0Fy8ZIQDmCO0boaHKq85kAoZCAK5bDoEz151HIKs3T+7ibOcwrV0JwNoUGFUioS1IuSbSMzPGTXS3Ra8x1r8rHtW4lQMmtAnO++K5NA11rxbanm3VihCN/gllTyRjT4+P4Om4v4JtW8qlWTchIefyOJKQtzGp7Hs4229C8s3sOWJ90GuNBwY8N6G5Jd9CARhGsCDeSgAvtJnTGpGakw3a6VWvW7nFDy1gg9UwKK/h91BcLatIPtXoOTkNMnGUjazgT5Pp0n6DGl878awMoi2+qn5o4UJMl3C5Ru0v8HSeOlJFdeIojncf1eu7sCvQQ82oy733/cb7Pul9rTBwKzue/OoJGC88cUgP9Nfz9sb1dlyJNRU1vTkg5/jYznCk6+f311uy/CBexo+fuIyvMbP4MsyJzS7AAXe7zsdyMQYmrPXpNf3PdhTiYWDy3X4VUNu0hlmnjsyyF/O9Vw3zq5SyQEaTyO/sq1a0YnYYjU4iJPIzsjX8=",
]


@pytest.mark.parametrize("line", [HOST_KEY, RSA_KEY, P256, SECURITY_KEY, SECURITY_KEY_P256, CERTIFICATE, *REAL])
def test_a_key_is_read(line: str) -> None:
    key = public_key(f"  {line}\r\n")
    assert line.startswith(key.material)
    assert key.options == ""


def test_options_and_comment_are_parsed_apart_from_the_key() -> None:
    key = public_key(f'from="10.0.0.0/8,*.example.com",command="echo \\"a b\\"" {HOST_KEY} Mario, on his laptop')
    assert key.options == 'from="10.0.0.0/8,*.example.com",command="echo \\"a b\\""'
    assert key.material == HOST_KEY
    assert key.comment == "Mario, on his laptop"
    assert option_names(key.options) == [("from", True), ("command", True)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "no known key type"),
        ("hello", "no known key type"),
        ("ssh-dss AAAA", "no known key type"),
        ("ssh-ed25519", "ends too early"),
        (HOST_KEY[:-8], "ends too early"),
        (HOST_KEY[:-1] + "!", "not base64"),
        (HOST_KEY.replace("ssh-ed25519 ", "ssh-rsa ", 1), "another type"),
        (f"ssh-ed25519 {wire(b'ssh-ed25519', bytes(31))}", "32 bytes"),
        (f"ssh-ed25519 {wire(b'ssh-ed25519', bytes(32), b'more')}", "holds more"),
        (f"ssh-rsa {wire(b'ssh-rsa', bytes([3]), bytes([1]) * 64)}", "fewer than 2048 bits"),
        (f"ssh-rsa {wire(b'ssh-rsa', bytes([3]), bytes(1) + bytes([255]) * 255)}", "fewer than 2048 bits"),
        (f"ssh-rsa {wire(b'ssh-rsa', bytes([1]), bytes([1]) * 256)}", "fewer than 2048 bits"),
        (f"ssh-rsa {wire(b'ssh-rsa', bytes([3]), bytes([0x80]) + bytes(255))}", "fewer than 2048 bits"),
        (f"ecdsa-sha2-nistp256 {wire(b'ecdsa-sha2-nistp256', b'nistp384', POINT)}", "another curve"),
        (f"ecdsa-sha2-nistp256 {wire(b'ecdsa-sha2-nistp256', b'nistp256', POINT[:-1])}", "wrong size"),
        (f"ecdsa-sha2-nistp256 {wire(b'ecdsa-sha2-nistp256', b'nistp256', bytes(65))}", "wrong size"),
        (f'from="a {HOST_KEY}', "no known key type"),
        (f"{HOST_KEY} \x1b[2J", "cannot be printed"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
        ("a" * 9000, "longer than"),
    ],
)
def test_what_is_no_key_is_refused_with_the_reason(line: str, reason: str) -> None:
    with pytest.raises(InvalidKeyError, match=reason) as refused:
        public_key(line)
    secret = line.split(" ")[-1]
    assert len(secret) < 16 or secret not in str(refused.value)


@pytest.mark.parametrize(
    "line", [SECURITY_KEY, CERTIFICATE, f"{HOST_KEY} comment", f"{HOST_KEY}\n", f"restrict {HOST_KEY}", "x"]
)
def test_a_host_key_is_a_plain_type_and_base64_alone(line: str) -> None:
    with pytest.raises(InvalidKeyError):
        host_key(line)


def test_a_host_key_comes_back_as_it_is() -> None:
    assert [host_key(key) for key in (HOST_KEY, RSA_KEY, P256)] == [HOST_KEY, RSA_KEY, P256]


@pytest.mark.parametrize(
    "options",
    [
        "restrict",
        "restrict,pty",
        'from="10.0.0.0/8"',
        'command="rsync --server"',
        "no-port-forwarding",
        'expiry-time="20300101"',
        "NO-PTY",
    ],
)
def test_a_central_key_may_be_narrowed(options: str) -> None:
    assert central_key(f"{options} {HOST_KEY}").options == options


@pytest.mark.parametrize(
    "options",
    [
        *("cert-authority", 'principals="root"', 'environment="LD_PRELOAD=/x"', 'tunnel="0"', "no-touch-required"),
        *("restrict,cert-authority", "Cert-Authority", 'from="a,b",tunnel="1"', "from", 'restrict="x"', "unheard-of"),
    ],
)
def test_a_central_key_may_not_be_widened(options: str) -> None:
    with pytest.raises(InvalidKeyError, match="the option"):
        central_key(f"{options} {HOST_KEY}")


def test_one_bad_line_never_breaks_the_others() -> None:
    texts = {
        "mario": f"# Mario's keys\n\n{HOST_KEY} mario@laptop\nssh-ed25519 broken\n{RSA_KEY}\n{HOST_KEY} again\n",
        "ana": f"restrict {P256}",
        "nobody asked": RSA_KEY,
    }
    keys = admitted(["ana", "mario", "eve"], texts, "/keys", "demo")
    assert keys.lines == (
        ("ana", (f"restrict {P256} ana",)),
        ("mario", (f"{HOST_KEY} mario", f"{RSA_KEY} mario")),
    )
    assert keys.problem is not None
    assert keys.problem.code == "central-key-malformed"
    assert "Line 4 of /keys/mario" in keys.problem.message


def test_a_missing_person_is_named_with_the_command() -> None:
    problem = admitted(["eve"], {}, "/keys", "demo").problem
    assert problem is not None
    assert problem.code == "central-key-missing"
    assert "--name /keys/eve" in problem.message


@given(st.one_of(st.text(max_size=200), st.text(max_size=50).map(lambda text: f"{text} {HOST_KEY}")))
def test_whatever_the_line_it_is_a_key_or_refused(line: str) -> None:
    try:
        key = central_key(line)
    except InvalidKeyError:
        return
    assert key.material == HOST_KEY
    assert all(character.isprintable() or character == "\t" for character in key.options + key.comment)


@pytest.mark.parametrize(
    ("first", "enters"),
    [
        ("", True),
        ("# Mario's laptop", True),
        ("# notebooks: demo", True),
        ("# notebooks: team-a-* DEMO", True),
        ("#notebooks:box-? d*", True),
        ("#  Notebooks :  *", True),
        ("# notebooks: team-a-* box-7", False),
        ("# notebooks: demo2", False),
    ],
)
def test_a_parameter_names_the_notebooks_that_its_keys_may_enter(first: str, enters: bool) -> None:
    keys = admitted(["mario"], {"mario": f"{first}\n{HOST_KEY}\n"}, "/keys", "Demo")
    assert keys.lines == ((("mario", (f"{HOST_KEY} mario",)),) if enters else ())
    assert (keys.problem and keys.problem.code) == (None if enters else "central-key-not-here")


@pytest.mark.parametrize(
    "text",
    [
        f"# notebooks:\n{HOST_KEY}",
        f"# notebooks: [a-z]*\n{HOST_KEY}",
        f"# notebooks: team_a\n{HOST_KEY}",
        f"# notebooks: team-a-*, box-7\n{HOST_KEY}",
        f"# notebook: *\n{HOST_KEY}",
        f"# notebooks = *\n{HOST_KEY}",
        f"# Mario's laptop\n# notebooks: *\n{HOST_KEY}",
        f"{HOST_KEY}\n# notebooks: *",
    ],
)
def test_a_list_of_notebooks_that_cannot_be_read_admits_nowhere(text: str) -> None:
    keys = admitted(["mario", "ana"], {"mario": text, "ana": RSA_KEY}, "/keys", "demo")
    assert keys.lines == (("ana", (f"{RSA_KEY} ana",)),)
    assert keys.problem
    assert keys.problem.code == "central-key-malformed"
    assert "/keys/mario" in keys.problem.message
    assert "# notebooks: team-a-* box-7" in keys.problem.message
