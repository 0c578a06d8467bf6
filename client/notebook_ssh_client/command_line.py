"""The command line: its parser, its help, and its completion in shells."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from notebook_ssh_client import __version__
from notebook_ssh_client.errors import EXIT_USAGE, CliError

# Seconds between two lists of --watch. The stack returns a list that is at most ten seconds old.
WATCH_INTERVAL_S = 10.0

EXAMPLES = """\
examples:
  notebook-ssh setup --profile work    once, and again for each further stack
  notebook-ssh list                    the notebooks, and what to type for each
  ssh my-notebook                      also scp, rsync, git, VS Code, ...
  ssh my-notebook.notebook             a notebook that was tagged a moment ago
  notebook-ssh doctor my-notebook      why it does not connect
  notebook-ssh forward my-notebook     for programs with an SSH of their own

editors, file copies, other programs, proxies, troubleshooting:
  notebook-ssh help                    lists the topics
  notebook-ssh help vs code            prints those with these words
"""

SSH_HELP = """\
usage: notebook-ssh ssh NAME [OPTION]... [COMMAND]

Runs `ssh NAME.notebook` with the options and the command, also for a name
that ssh does not know yet: a notebook that was tagged a moment ago, or one
whose short name is yours. For all others, type `ssh NAME`.

examples:
  notebook-ssh ssh my-notebook
  notebook-ssh ssh my-notebook -L 6006:localhost:6006
"""

BASH_COMPLETION = """\
# In ~/.bashrc: eval "$(notebook-ssh completion bash)"
_notebook_ssh() {
    local IFS=$'\\n'
    COMPREPLY=($(notebook-ssh complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _notebook_ssh notebook-ssh
"""

ZSH_COMPLETION = """\
# In ~/.zshrc, below compinit: eval "$(notebook-ssh completion zsh)"
_notebook_ssh() {
    compadd -- ${(f)"$(notebook-ssh complete "${(@)words[2,CURRENT]}" 2>/dev/null)"}
}
compdef _notebook_ssh notebook-ssh
"""

FISH_COMPLETION = """\
# In ~/.config/fish/completions/notebook-ssh.fish
complete -c notebook-ssh -f -a '(notebook-ssh complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
"""

COMPLETIONS = {"bash": BASH_COMPLETION, "zsh": ZSH_COMPLETION, "fish": FISH_COMPLETION}

# The commands whose first argument is a notebook.
NOTEBOOK_COMMANDS = frozenset({"who", "doctor", "address", "start", "forward", "ssh"})


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; its member `command` is the command's name."""
    arguments = create_parser().parse_args(argv)
    if getattr(arguments, "dry_run", False) and arguments.remove and arguments.stack:
        raise CliError("--dry-run shows changes of ssh's configuration, and removing one stack makes none", EXIT_USAGE)
    return arguments


def create_parser() -> argparse.ArgumentParser:
    """Create the parser of everything but `ssh` and the commands that ssh and shells run."""
    parser = argparse.ArgumentParser(
        prog="notebook-ssh",
        description="ssh to SageMaker notebook instances by name.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"notebook-ssh {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="also print each request")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    _add_setup(commands)

    stacks = _add_command(commands, "stacks", "list the stacks that are configured")
    stacks.add_argument("--json", action="store_true", help="print JSON")
    list_ = _add_command(commands, "list", "list the notebooks, their status and what to type for each")
    list_.add_argument("--json", action="store_true", help="print JSON")
    list_.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=WATCH_INTERVAL_S,
        metavar="SECONDS",
        help=f"list again every {WATCH_INTERVAL_S:g} seconds until Ctrl-C",
    )
    doctor = _add_notebook_command(commands, "doctor", "check every step of the path to a notebook")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--bundle", action="store_true", help="write a file for a bug report, without secrets")
    _add_notebook_command(commands, "address", "print the current host and port of a notebook")
    start = _add_notebook_command(commands, "start", "start a stopped notebook and wait until it is connectable")
    start.add_argument("--timeout", type=float, metavar="SECONDS", help="how long to wait (default: 900)")
    forward = _add_notebook_command(
        commands, "forward", "a local port that leads to a notebook, for other SSH programs"
    )
    forward.add_argument("--port", type=int, metavar="PORT", help="the local port (default: one of the notebook's own)")
    forward.add_argument("--shared", action="store_true", help="also where other users are logged in on this machine")
    who = _add_command(commands, "who", "list who was on a notebook, or on all, if the stack keeps that")
    who.add_argument("name", metavar="NAME", nargs="?", help="the notebook (default: all of them)")
    who.add_argument("--since", metavar="TIME", help="an age as 12h or 7d, or a date as 2026-07-01")
    who.add_argument("--json", action="store_true", help="print JSON")
    revoke = _add_command(commands, "revoke", "withdraw a certificate, an AWS identity or a central key (for admins)")
    revoke.add_argument("what", metavar="SERIAL|ARN", help="a serial, an ARN, or the fingerprint of a key")
    revoke.add_argument("--stack", help="the stack (default: the one that is configured)")
    revoke.add_argument("--undo", action="store_true", help="admit it again")
    commands.add_parser("ssh", help="run ssh, also for a name that ssh does not know yet")
    help_ = _add_command(commands, "help", "print the documentation, by topic")
    help_.add_argument("words", nargs="*", metavar="WORD", help="words of a topic (default: list the topics)")
    completion = _add_command(commands, "completion", "print the completion for a shell")
    completion.add_argument("shell", choices=sorted(COMPLETIONS))
    return parser


def candidates(words: Sequence[str], notebooks: Sequence[str]) -> list[str]:
    """Return what can stand in place of the last of `words`, the words after `notebook-ssh`."""
    parser = create_parser()
    current = words[-1] if words else ""
    subparsers = _subparsers(parser)
    command = next((word for word in words[:-1] if not word.startswith("-")), None)
    if command is None:
        found = [*subparsers, *_options(parser)]
    elif command not in subparsers or command == "ssh":
        found = list(notebooks) if command == "ssh" and len(words) == 2 else []
    elif current.startswith("-"):
        found = _options(subparsers[command])
    elif command == "completion":
        found = sorted(COMPLETIONS)
    else:
        found = list(notebooks) if command in NOTEBOOK_COMMANDS else []
    return [word for word in found if word.lower().startswith(current.lower()) and (current or word[0] != "-")]


def _add_setup(commands: Any) -> None:
    setup = _add_command(commands, "setup", "configure ssh to find notebooks by name; run again to add a stack")
    setup.add_argument(
        "--remove", action="store_true", help="remove the configuration and all files; with --stack, only that stack"
    )
    setup.add_argument("--dry-run", action="store_true", help="show how ssh's configuration would change, as a diff")
    setup.add_argument("--stack", help="the stack's name (default: notebook-ssh)")
    setup.add_argument("--region", help="the stack's region (default: the profile's)")
    setup.add_argument("--profile", help="the AWS profile to call the API with (default: from the environment)")
    setup.add_argument("--api", metavar="URL", help="the API's URL with its stage (default: from the stack's outputs)")
    setup.add_argument("--ssh-config", metavar="FILE", help="the ssh_config to change (default: ~/.ssh/config)")


def _add_command(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help_text, description=f"{help_text}.".capitalize()
    )
    # Without a default, so that it does not undo a -v before the command.
    parser.add_argument(
        "-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="also print each request"
    )
    return parser


def _add_notebook_command(commands: Any, name: str, help_text: str) -> argparse.ArgumentParser:
    parser = _add_command(commands, name, help_text)
    parser.add_argument("name", metavar="NAME", help="the notebook; NAME.STACK if several stacks have one of this name")
    return parser


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    # argparse has no public way to its subparsers.
    action = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
