"""The real jump: laptop, bastion and notebooks as machines of their own, behind the rules that the reconciler made.

Each machine is a network namespace with a real sshd. Its packet filter is written from what DescribeSecurityGroupRules
answers for its groups, and from nothing else; so ssh comes through exactly while the rules say so. The filter counts the
connections that it drops, since what is dropped is never answered, here as in a VPC.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from support import namespaces, needs
from support.bastion_env import NOW, STACK, STOPPED, BastionEnv, bastion_env

import processes
from notebook_ssh.adapters.clients import client
from notebook_ssh.http_api.views import Connection, ProxyJump, connection_for, known_hosts, ssh_config
from notebook_ssh.model.record import NotebookState, Phase, Record, Report
from notebook_ssh.model.spec import Mode, NotebookSpec
from notebook_ssh.settings import read_settings
from patience import LIMIT_S
from sshd import start_sshd

pytestmark = pytest.mark.needs_root

OFFICE, ELSEWHERE = "203.0.113.9", "198.51.100.9"
BASTION_OUTSIDE, BASTION_INSIDE = "203.0.113.1", "10.0.255.254"


def run(*command: str | Path, text: str | None = None) -> str:
    done = subprocess.run([str(word) for word in command], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


@dataclass
class Machine:
    """A namespace with its addresses. groups: the security groups that guard it; None: nothing does.

    network: the process that the namespace lives with, and that ends with this one at the latest.
    """

    network: subprocess.Popen[bytes]
    addresses: tuple[str, ...]
    folder: Path
    groups: tuple[str, ...] | None = None
    _server: subprocess.Popen[bytes] | None = None

    def command(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--target={self.network.pid}", "--net", "--", *map(str, words)]

    def dropped(self) -> int:
        """How many times a connection to ssh was tried and not let through."""
        if self.groups is None:
            return 0
        return int(
            run(*self.command("nft", "list", "counter", "inet", "groups", "dropped")).split("packets ")[1].split()[0]
        )

    def is_connecting(self) -> bool:
        """Whether a connection from here still waits for an answer."""
        return bool(run(*self.command("ss", "--no-header", "--tcp", "--numeric", "state", "syn-sent")))

    def handle_request(self, client_key: str) -> None:
        """Start sshd on port 22 of this machine, for the owner of `client_key` alone, and wait until it listens."""
        self.folder.mkdir()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.folder / "host_key")
        (self.folder / "authorized_keys").write_text(client_key)
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port 22\nHostKey {self.folder}/host_key\nAuthorizedKeysFile {self.folder}/authorized_keys\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        name = f"sshd of {self.folder.name}"
        self._server = start_sshd(name, config, self.folder / "log", port=None, within=self.command())

    @property
    def host_key(self) -> str:
        return (self.folder / "host_key.pub").read_text().strip()

    def end(self) -> None:
        """End everything that runs in the namespace, which nobody else uses; it goes with the last of it."""
        for process in namespaces.processes_in(self.network.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if self._server:
            processes.dismiss(self._server, LIMIT_S)
        self.network.communicate()


@dataclass
class Site:
    """A laptop outside, a bastion, and the notebooks behind it."""

    env: BastionEnv
    folder: Path
    at_the_end: ExitStack
    machines: list[Machine] = field(default_factory=list)
    said: str = ""
    cables: int = 0

    def machine(self, name: str, *addresses: str, groups: tuple[str, ...] | None = None) -> Machine:
        network = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        machine = Machine(network, addresses, self.folder / name, groups)
        self.at_the_end.callback(machine.end)
        self.machines.append(machine)
        assert network.stdout is not None
        assert network.stdout.readline() == b"\n", "the namespace is there"
        run(*machine.command("ip", "link", "set", "lo", "up"))
        return machine

    def wire(self, one: Machine, its: Sequence[str], other: Machine, others: Sequence[str]) -> None:
        """A cable between two machines: each reaches the other's addresses, by default from its own first one."""
        self.cables += 1
        link = f"cable{self.cables}"
        cable = ["ip", "link", "add", link, "type", "veth", "peer", "name", link, "netns", str(other.network.pid)]
        run(*one.command(*cable))
        for machine, near, far in [(one, its, others), (other, others, its)]:
            run(*machine.command("ip", "link", "set", link, "up"))
            for address in near:
                run(*machine.command("ip", "address", "add", f"{address}/32", "dev", link))
            for address in far:
                run(*machine.command("ip", "route", "add", f"{address}/32", "dev", link, "src", near[0]))

    def guard(self) -> None:
        """Make every packet filter say what EC2 says now."""
        for machine in self.machines:
            if machine.groups is not None:
                run(*machine.command("nft", "-f", "-"), text=self._ruleset(machine.groups))

    def _ruleset(self, groups: tuple[str, ...]) -> str:
        answer = client("ec2").describe_security_group_rules(Filters=[{"Name": "group-id", "Values": list(groups)}])
        chains = {"input": ("saddr", False), "output": ("daddr", True)}
        lines = ["flush ruleset", "table inet groups {", "counter dropped {}"]
        for chain, (address, egress) in chains.items():
            lines += [f"chain {chain} {{", f"type filter hook {chain} priority 0; policy drop;"]
            lines += ["ct state established,related accept", "iif lo accept" if not egress else "oif lo accept"]
            lines += [
                f"{family} {address} {peer} {self._traffic(rule)} accept"
                for rule in answer["SecurityGroupRules"]
                if rule["IsEgress"] is egress
                for family, peer in self._peers(rule)
            ]
            lines += ["tcp dport 22 counter name dropped drop", "}"]
        return "\n".join([*lines, "}\n"])

    def _peers(self, rule: Any) -> Iterator[tuple[str, str]]:
        """The addresses at the other end of a rule, each with nft's word for its family."""
        networks = [text for text in (rule.get("CidrIpv4"), rule.get("CidrIpv6")) if text]
        group = rule.get("ReferencedGroupInfo", {}).get("GroupId")
        networks += [
            address for machine in self.machines if group in (machine.groups or ()) for address in machine.addresses
        ]
        if "PrefixListId" in rule:
            entries = client("ec2").get_managed_prefix_list_entries(PrefixListId=rule["PrefixListId"])
            networks += [entry["Cidr"] for entry in entries["Entries"]]
        for network in map(ip_network, networks):
            yield ("ip" if network.version == 4 else "ip6"), str(network)

    @staticmethod
    def _traffic(rule: Any) -> str:
        if rule["IpProtocol"] == "-1":
            return ""
        return f"{rule['IpProtocol']} dport {rule['FromPort']}-{rule['ToPort']}"

    def reconcile(self) -> None:
        self.env.now += 60
        self.env.run()
        self.guard()

    def ssh(self, host: str, *, come_from: str = OFFICE) -> str | None:
        """Who came to whom, in the words of the sshd that was reached; None when ssh did not come through."""
        with self._ssh(host, come_from) as trying:
            said, self.said = trying.communicate(timeout=LIMIT_S)
        if trying.returncode != 0:
            assert trying.returncode == 255, self.said  # ssh(1): 255 is ssh's own failure
            return None
        came_from, _, came_to, port = said.split()
        assert port == "22"
        return f"{came_from} to {came_to}"

    def through_endpoint(self, endpoint: Machine, notebook: Notebook) -> bool:
        """Whether the endpoint's own connection to the notebook's sshd is let through, and not dropped."""
        before = self._dropped()
        connect = "import socket, sys; print(socket.create_connection((sys.argv[1], 22)).recv(4).decode())"
        trying = subprocess.Popen(
            endpoint.command(sys.executable, "-c", connect, notebook.address), stdout=subprocess.PIPE, text=True
        )
        with trying:
            processes.wait_until(
                "it is let through or dropped", lambda: trying.poll() is not None or self._dropped() > before, LIMIT_S
            )
            is_let_through = trying.poll() is not None
            trying.kill()
            said, _ = trying.communicate()
        assert not is_let_through or said == "SSH-\n"
        return is_let_through

    def is_shut(self, host: str, *, come_from: str = OFFICE) -> bool:
        """Whether ssh waits for an answer that will never come, since its connection was dropped on the way."""
        before = self._dropped()
        with self._ssh(host, come_from) as trying:
            try:
                processes.wait_until(
                    "ssh is let through or dropped",
                    lambda: trying.poll() is not None or self._dropped() > before,
                    LIMIT_S,
                )
                return trying.poll() is None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(trying.pid, signal.SIGKILL)  # and the ssh that it started for the jump
                trying.communicate()
                # Or one that is tried again would be taken for the next one's.
                processes.wait_until(
                    "the connection is given up", lambda: not any(map(Machine.is_connecting, self.machines)), LIMIT_S
                )

    def _ssh(self, host: str, come_from: str) -> subprocess.Popen[str]:
        words = ("ssh", "-F", self.folder / f"ssh_config.{come_from}", host, "echo $SSH_CONNECTION")
        return subprocess.Popen(
            self.machines[0].command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _dropped(self) -> int:
        return sum(machine.dropped() for machine in self.machines)


@dataclass
class Notebook:
    record: Record
    group: str
    address: str
    machine: Machine


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    needs.networks()
    with bastion_env(monkeypatch) as env, ExitStack() as at_the_end:
        monkeypatch.setenv("BASTION_HOST", BASTION_OUTSIDE)
        monkeypatch.setenv("BASTION_USER", "root")
        monkeypatch.setenv("BASTION_CLIENT_CIDRS", "203.0.113.0/24")
        yield Site(env, tmp_path, at_the_end)


@dataclass
class Town:
    """A whole site: laptop, bastion, two notebooks with a group each, and ssh's files on the laptop."""

    site: Site
    ana: Notebook
    ben: Notebook


@pytest.fixture
def town(site: Site) -> Town:
    env = site.env
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", site.folder / "key")
    public = (site.folder / "key.pub").read_text()
    laptop = site.machine("laptop", OFFICE, ELSEWHERE)
    bastion = site.machine("bastion", BASTION_OUTSIDE, BASTION_INSIDE, groups=(env.bastion,))
    bastion.handle_request(public)
    site.wire(laptop, laptop.addresses, bastion, [BASTION_OUTSIDE])
    ana, ben = (_notebook(site, bastion, name, public) for name in ("Ana-Notebook", "ben-notebook"))
    _write_ssh_files(site, bastion, [ana, ben])
    site.guard()
    return Town(site, ana, ben)


def _notebook(site: Site, bastion: Machine, name: str, client_key: str) -> Notebook:
    """A running notebook that nobody tagged yet, with a report of its agent."""
    env = site.env
    group = env.group(name)
    record = env.notebook(name, group, modes=())
    interfaces = client("ec2").describe_network_interfaces(NetworkInterfaceIds=[record.network.interface or ""])
    address = interfaces["NetworkInterfaces"][0]["PrivateIpAddress"]
    machine = site.machine(name, address, groups=(group,))
    machine.handle_request(client_key)
    site.wire(bastion, [BASTION_INSIDE], machine, [address])
    report = Report(
        "boot-1",
        NOW - 60,
        1,
        NOW,
        (Mode.BASTION,),
        Phase.CONNECTED,
        host_keys=(machine.host_key,),
        keys_own=1,
        connected_since=NOW,
    )
    env.table.replace_report(name, record.role, report, None)
    return Notebook(record, group, address, machine)


def _write_ssh_files(site: Site, bastion: Machine, notebooks: list[Notebook]) -> None:
    """What the API answers, saved as it says, but for the login name: only root is sure to be there."""
    jump = ProxyJump(BASTION_OUTSIDE, "root", f"bastion.{STACK}")
    connections = [Connection(each.record.name, each.address, 22, (each.machine.host_key,), jump) for each in notebooks]
    answer = ssh_config(connections, STACK).replace("~/.ssh/", f"{site.folder}/").replace("User ec2-user", "User root")
    lines = [line for connection in connections for line in known_hosts(connection)]
    (site.folder / f"{STACK}.known_hosts").write_text("\n".join(lines) + "\n")
    (site.folder / "bastion_hosts").write_text(f"{BASTION_OUTSIDE} {bastion.host_key}\n")
    for come_from in (OFFICE, ELSEWHERE):
        (site.folder / f"ssh_config.{come_from}").write_text(
            f"{answer}\n\nHost {jump.alias}\n  BindAddress {come_from}\n"
            f"\nHost *\n  IdentityFile {site.folder}/key\n  IdentitiesOnly yes\n  BatchMode yes\n"
            f"  ConnectTimeout {LIMIT_S:.0f}\n  StrictHostKeyChecking yes\n"
            f"  UserKnownHostsFile {site.folder}/bastion_hosts\n"
        )


def tag(env: BastionEnv, notebook: Notebook, **parts: Any) -> None:
    notebook.record = replace(notebook.record, **parts)
    env.table.save_observed(notebook.record, env.table.record(notebook.record.name))


def test_ssh_comes_through_the_bastion_exactly_while_the_rules_are_there(town: Town) -> None:
    site, ana, ben, env = town.site, town.ana, town.ben, town.site.env
    assert site.is_shut("ana-notebook"), "nothing is open yet"

    tag(env, ana, spec=NotebookSpec((Mode.BASTION,)))
    site.reconcile()
    assert site.ssh("ana-notebook") == f"{BASTION_INSIDE} to {ana.address}"
    assert site.ssh("Ana-Notebook") == f"{BASTION_INSIDE} to {ana.address}"
    assert site.is_shut("ben-notebook"), "the bastion is open, this notebook is not"
    assert site.is_shut("ana-notebook", come_from=ELSEWHERE), "not one of the bastion's clients"
    record = env.table.record("ana-notebook")
    assert record is not None
    connection = connection_for(record, env.now, read_settings())
    assert connection is not None
    assert (connection.host, connection.jump) == (ana.address, ProxyJump(BASTION_OUTSIDE, "root", f"bastion.{STACK}"))

    tag(env, ben, spec=NotebookSpec((Mode.BASTION,)))
    tag(env, ana, state=NotebookState.STOPPING)
    site.reconcile()
    assert site.is_shut("ana-notebook"), "it stops"
    assert site.ssh("ben-notebook") == f"{BASTION_INSIDE} to {ben.address}"

    tag(env, ana, state=STOPPED)
    tag(env, ben, spec=NotebookSpec())
    site.reconcile()
    assert site.is_shut("ben-notebook"), "its tag is gone"
    assert site.is_shut(f"bastion.{STACK}"), "nobody needs the bastion any more"


def test_a_bastion_without_open_egress_gets_a_way_to_the_notebook_alone(town: Town) -> None:
    site, ana, env = town.site, town.ana, town.site.env
    env.close_egress()
    # This opens the notebook to the bastion, but not the bastion's way out.
    env.write_rule(town.ben.group, UserIdGroupPairs=[{"GroupId": env.bastion}])
    tag(env, ana, spec=NotebookSpec((Mode.BASTION,)))
    site.reconcile()
    assert site.ssh("ana-notebook") == f"{BASTION_INSIDE} to {ana.address}"
    assert site.is_shut("ben-notebook")


def test_another_machine_at_the_notebooks_address_is_refused(town: Town) -> None:
    site, ana, ben, env = town.site, town.ana, town.ben, town.site.env
    tag(env, ana, spec=NotebookSpec((Mode.BASTION,)))
    site.reconcile()
    hosts = site.folder / f"{STACK}.known_hosts"
    hosts.write_text(hosts.read_text().replace(ana.machine.host_key, ben.machine.host_key))
    assert site.ssh("ana-notebook") is None
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in site.said


def test_clients_of_a_prefix_list_are_admitted(town: Town) -> None:
    site, ana, env = town.site, town.ana, town.site.env
    network = str(ip_network(f"{ip_address(ELSEWHERE)}/24", strict=False))
    prefix_list = client("ec2").create_managed_prefix_list(
        PrefixListName="offices", MaxEntries=5, AddressFamily="IPv4", Entries=[{"Cidr": network}]
    )
    env.monkeypatch.setenv("BASTION_CLIENT_CIDRS", prefix_list["PrefixList"]["PrefixListId"])
    tag(env, ana, spec=NotebookSpec((Mode.BASTION,)))
    site.reconcile()
    assert site.ssh("ana-notebook", come_from=ELSEWHERE) == f"{BASTION_INSIDE} to {ana.address}"
    assert site.is_shut("ana-notebook")


ENDPOINT_INSIDE = "10.0.255.253"


@pytest.mark.parametrize("closed", [False, True], ids=["open egress", "closed egress"])
def test_an_endpoint_reaches_a_notebook_exactly_while_its_rules_are_there(town: Town, closed: bool) -> None:
    site, ana, ben, env = town.site, town.ana, town.ben, town.site.env
    gate = env.group("gate")
    if closed:
        client("ec2").revoke_security_group_egress(
            GroupId=gate, SecurityGroupRuleIds=list(env.rules(gate, egress=True))
        )
    env.endpoint(gate)
    endpoint = site.machine("endpoint", ENDPOINT_INSIDE, groups=(gate,))
    for notebook in (ana, ben):
        site.wire(endpoint, [ENDPOINT_INSIDE], notebook.machine, [notebook.address])
    site.guard()
    assert not site.through_endpoint(endpoint, ana), "nothing is open yet"

    tag(env, ana, spec=NotebookSpec((Mode.EICE,)))
    site.reconcile()
    assert site.through_endpoint(endpoint, ana)
    assert not site.through_endpoint(endpoint, ben), "the endpoint is open, this notebook is not"
    assert site.is_shut("ana-notebook"), "the bastion is not asked for"

    tag(env, ana, spec=NotebookSpec((Mode.BASTION, Mode.EICE)))
    site.reconcile()
    assert site.through_endpoint(endpoint, ana)
    assert site.ssh("ana-notebook") == f"{BASTION_INSIDE} to {ana.address}"

    tag(env, ana, spec=NotebookSpec((Mode.BASTION,)))
    site.reconcile()
    assert not site.through_endpoint(endpoint, ana), "its word is gone"
    assert site.ssh("ana-notebook") == f"{BASTION_INSIDE} to {ana.address}"

    tag(env, ana, spec=NotebookSpec((Mode.EICE,)), state=STOPPED)
    site.reconcile()
    assert not site.through_endpoint(endpoint, ana), "it is stopped"
