"""A login name of the local run: what programs take this user for, without an account of that name."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import logins

ASKED = "import os, pwd; me = pwd.getpwuid(os.getuid()); print(me.pw_name, me.pw_dir, me.pw_shell)"


def said(command: str, variables: dict[str, str]) -> str:
    return subprocess.run(["sh", "-c", command], env=os.environ | variables, capture_output=True, text=True).stdout


def test_programs_take_this_user_for_the_name_and_find_its_home(tmp_path: Path) -> None:
    assert not logins.is_missing()
    home = tmp_path / "a home"
    variables = logins.as_user("ec2-user", home, tmp_path / "login")
    assert said("id -un; id -gn; whoami", variables).split() == ["ec2-user"] * 3
    assert said(f'python3 -c "{ASKED}"', variables) == f"ec2-user {home} /bin/bash\n"
    assert said("id -u ec2-user", variables) == f"{os.geteuid()}\n"


def test_its_own_name_is_no_user_then_and_all_others_are_there(tmp_path: Path) -> None:
    variables = logins.as_user("ec2-user", tmp_path, tmp_path / "login")
    assert said(f"id -u {pwd.getpwuid(os.geteuid()).pw_name}", variables) == ""
    others = [user for user in pwd.getpwall() if user.pw_uid != os.geteuid()]
    assert [said(f"id -u {user.pw_name}", variables) for user in others] == [f"{user.pw_uid}\n" for user in others]


def test_a_program_without_the_variables_sees_no_such_user(tmp_path: Path) -> None:
    logins.as_user("no-such-login", tmp_path, tmp_path / "login")
    assert said("id -u no-such-login", {}) == ""
