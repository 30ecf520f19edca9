"""Machines on this one: network namespaces with addresses of their own, each with a real sshd.

Linux and root only. Each machine has its own network, hostname, `/etc/hosts` and home; the disk,
the users and the process ids are this machine's. A bridge in one more namespace joins them, so
that nothing of the host's network changes. There is no way out: no route, no name server.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.remote_servers import SSHD_CONFIG, SSHD_READY, Ssh

HERE = "here"
USER = "root"
SSH_PORT = 22
BIN = Path(sys.executable).parent
PATH = f"{BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a machine's sessions take over from the tests' own process.
PASSED = ("OMP_NUM_THREADS", "TMPDIR")
SUBNET = "10.77.0"
PROGRAMS = ("ip", "nsenter", "unshare", "mount", "ssh", "ssh-keygen", "sshd")
# Where programs lie that are not on everyone's PATH.
SYSTEM = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin"
# iproute2 keeps a namespace's name here (ip-netns(8), 2026).
NAMESPACES = Path("/run/netns")
OURS = re.compile(r"tunesmith-(?P<pid>\d+)-(?P<born>\d+)-\d+-.+")
BRIDGE = "bridge"
SECONDS = 10.0

# Becomes the machine for the program that follows; `slave`: what it mounts is its own to see, and
# what is unmounted outside goes here as well, or removed namespaces would live on in here.
ENTER = """
etc=$1; echo "$2" > /proc/sys/kernel/hostname; shift 2
for name in hosts passwd; do mount --bind "$etc/$name" "/etc/$name" || exit 125; done
exec "$@"
"""
SSH_CONFIG = """\
Host {name}
    HostName {address}
"""
SSH_CONFIG_ALL = f"""\
Host *
    User {USER}
    IdentityFile {{keyfile}}
    IdentitiesOnly yes
    UserKnownHostsFile {{known_hosts}}
    StrictHostKeyChecking yes
"""

_networks = itertools.count()


@dataclass
class Machine:
    """One machine; of its processes, all those count that are in its network namespace.

    Attributes:
        name: its hostname, which all machines of its network know.
        address: its IPv4 address, on eth0.
        home: the home folder of root there, for ssh sessions, for `run`, and in its passwd.
        env: the variables that its sessions and `run` have, and no others of the tests' process.
        etc: what it has of /etc, with its sshd's keys, settings and log (`sshd.log`).
        namespace: the name that `ip netns` gives its network.
        wires: the namespace with the bridge.
        number: the last part of its address.
        ssh: how to reach its sshd; its folder is `store` in its home.
    """

    name: str
    address: str
    home: Path
    env: dict[str, str]
    etc: Path
    namespace: str
    wires: str
    number: int
    ssh: Ssh
    others: dict[str, int] = field(default_factory=dict, repr=False)
    _daemon: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def words(self, words: Sequence[str | Path]) -> list[str]:
        """The command line that runs this one as someone who sits at the machine."""
        assert (NAMESPACES / self.namespace).exists(), f"{self.name} is off"
        enter = [f"--net={NAMESPACES / self.namespace}", "unshare", "--uts", "--mount"]
        become = ["--propagation", "slave", "sh", "-c", ENTER, "enter", self.etc, self.name]
        return [str(word) for word in ["nsenter", *enter, *become, *words]]

    def run(
        self,
        words: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        check: bool = False,
        timeout: float = 300,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        """What a command says there, in text; it begins in the home unless told where."""
        done = subprocess.run(
            self.words(words), cwd=cwd or self.home, env=self.env | env, capture_output=True,
            text=True, check=False, timeout=timeout, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = f"{self.name}: {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert not check or done.returncode == 0, said
        return done

    def popen(
        self, words: Sequence[str | Path], *, cwd: Path | None = None, **env: str
    ) -> "subprocess.Popen[str]":
        """The same, going on; stdin, stdout and stderr are pipes, in text.

        Its pid is the command's own, which for some milliseconds is yet a shell on its way in:
        wait for what the command says before asking for `processes`.
        """
        return subprocess.Popen(
            self.words(words), cwd=cwd or self.home, env=self.env | env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """What runs there, whoever began it; none where the machine is off."""
        return _processes(self.namespace)

    def sshd(self) -> None:
        """Start its sshd; it takes connections on return."""
        program = shutil.which("sshd", path=SYSTEM)
        log = self.etc / "sshd.log"
        log.touch()
        before = log.stat().st_size
        with log.open("ab") as file:
            self._daemon = daemon = subprocess.Popen(
                self.words([program or "sshd", "-D", "-e", "-f", self.etc / "sshd_config"]),
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

        def listens() -> bool:
            said = log.read_bytes()[before:].decode(errors="replace")
            assert daemon.poll() is None, f"sshd ended at once:\n{said}"
            return bool(SSHD_READY.search(said))

        wait_for(listens, f"sshd on {self.name} to listen")

    def kill_sshd(self) -> None:
        """Kill the daemon and its sessions' ends at once (SIGKILL).

        What runs in a session gets SIGHUP, as from a terminal that is gone: what was detached
        (`setsid`, `nohup`, or its shell has ended) stays.
        """
        servers = {one.pid for one in self.processes() if _is_sshd(one)}
        shells = {one.pid for one in self.processes() if _parent(one) in servers} - servers
        attached = [one for one in self.processes() if _session(one) in shells]

        def gone() -> bool:
            left = [one for one in self.processes() if _is_sshd(one)]
            _signal(left, signal.SIGKILL)
            return not left

        wait_for(gone, f"sshd on {self.name} to end")
        _signal(attached, signal.SIGHUP)  # only now, or sshd would still say how they ended
        self._reap()

    def cut(self) -> None:
        """From now on no packet goes to or from it, and nobody is told."""
        _ip("-n", self.wires, "link", "set", self._port, "nomaster")

    def mend(self) -> None:
        """Its packets go by again."""
        _ip("-n", self.wires, "link", "set", self._port, "master", BRIDGE)
        self._wait_for_link()

    def die(self) -> None:
        """A power cut: every process ends at once, and no packet of theirs says so."""
        # A link is gone on return; a namespace goes when the kernel comes to it.
        _ip("-n", self.wires, "link", "del", self._port)
        self.end()

    def end(self) -> None:
        """End all that runs there and take its namespace away, if they are there."""
        _remove(self.namespace)
        self._reap()

    def revive(self) -> None:
        """Power is back: a network as new, at the old address, and sshd; files are as they were."""
        self.plug()
        self.sshd()

    def plug(self) -> None:
        """Make its namespace, with a link to the bridge."""
        _ip("netns", "add", self.namespace)
        port = ["peer", "name", "eth0", "address", _mac(self.number), "netns", self.namespace]
        _batch(
            self.wires,
            ["link", "add", self._port, "type", "veth", *port],
            ["link", "set", self._port, "master", BRIDGE, "up"],
        )
        # Known for good: that a cut machine doesn't answer for its address is no error to anyone.
        others = (
            ["neigh", "add", f"{SUBNET}.{number}", "lladdr", _mac(number), "dev", "eth0"]
            for number in self.others.values()
        )
        _batch(
            self.namespace,
            ["link", "set", "lo", "up"],
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            *([*words, "nud", "permanent"] for words in others),
        )
        self._wait_for_link()

    @property
    def _port(self) -> str:
        return f"port{self.number}"

    def _wait_for_link(self) -> None:
        """Until both ends are up and the bridge passes on what comes."""

        def is_linked() -> bool:
            shown = _ip("-n", self.wires, "-d", "link", "show", self._port)
            there = _ip("-n", self.namespace, "link", "show", "eth0")
            return "state forwarding" in shown and "state UP" in there

        wait_for(is_linked, f"{self.name}'s link to be up")

    def _reap(self) -> None:
        if self._daemon:
            self._daemon.wait(SECONDS)
            self._daemon = None


@dataclass(frozen=True)
class Network:
    """Machines that reach each other, and `here`, where no sshd runs.

    Attributes:
        machines: all with sshd, by name; each has the key and knows the host keys of the others.
        keyfile: root's private key on all of them, without a passphrase.
        ssh_config: settings under which `ssh <name>` works; each machine's ~/.ssh/config too.
    """

    here: Machine
    machines: dict[str, Machine]
    keyfile: Path
    known_hosts: Path
    ssh_config: Path

    def __getitem__(self, name: str) -> Machine:
        return self.here if name == HERE else self.machines[name]

    @property
    def ssh_options(self) -> list[str]:
        """For `ssh` and `scp` where ~/.ssh/config is not to be relied on."""
        return ["-F", str(self.ssh_config)]


@contextmanager
def network(
    folder: Path, names: Iterable[str] | Mapping[str, dict[str, str]] = ("gpu0", "gpu1", "store")
) -> Iterator[Network]:
    """Machines by these names while the block runs, with their files in `folder`.

    Args:
        names: where it is a mapping, each with the variables that its sessions have beside HOME and
            PATH, or instead of PATH; "here" may be among them.

    Raises:
        AssertionError: this is not Linux, not root, or a program or a right is missing.
    """
    _check()
    clear_leftovers()
    given = dict(names) if isinstance(names, Mapping) else {name: {} for name in names}
    envs = {HERE: given.pop(HERE, {}), **given}
    prefix = f"tunesmith-{os.getpid()}-{_born(os.getpid())}-{next(_networks)}"
    folder = folder.resolve()
    (folder / "common").mkdir(parents=True, exist_ok=True)
    _keygen(folder / "common" / "user_key")
    numbers = {name: number for number, name in enumerate(envs, 1)}
    machines = {name: _machine(folder, prefix, name, numbers, env) for name, env in envs.items()}
    net = _network(folder / "common", machines)
    wires = f"{prefix}-wires"
    with ExitStack() as stack:
        stack.callback(_remove, wires)
        _ip("netns", "add", wires)
        # A port without delay and without the loops it guards against: no spanning tree.
        bridge = ["link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"]
        _batch(wires, bridge, ["link", "set", BRIDGE, "up"])
        for name, machine in machines.items():
            stack.callback(machine.end)
            machine.plug()
            if name != HERE:
                machine.sshd()
        yield net


def clear_leftovers() -> None:
    """Remove what processes left that were killed, with all that runs in it."""
    for path in sorted(NAMESPACES.glob("tunesmith-*")):
        found = OURS.fullmatch(path.name)
        if found and _born(int(found["pid"])) != int(found["born"]):
            _remove(path.name)


def wait_for(happened: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Look until it has happened.

    Raises:
        AssertionError: it has not after so many seconds.
    """
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.005)


def _check() -> None:
    assert sys.platform == "linux", "machines of this kind need Linux's network namespaces"
    assert os.geteuid() == 0, "network namespaces need root: run these tests as root"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SYSTEM)]
    packages = "apt-get install iproute2 util-linux openssh-client openssh-server"
    assert not missing, f"not here: {', '.join(missing)}; {packages}"
    words = ["unshare", "--net", "--uts", "--mount", "true"]
    tried = subprocess.run(words, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, f"no right to namespaces (CAP_SYS_ADMIN): {tried.stderr}"


def _machine(
    folder: Path, prefix: str, name: str, numbers: dict[str, int], env: dict[str, str]
) -> Machine:
    """Its files; nothing of it runs."""
    home, etc = folder / name / "home", folder / name / "etc"
    for each in (home / "store", home / ".ssh", etc):
        each.mkdir(parents=True, exist_ok=True)
    address = f"{SUBNET}.{numbers[name]}"
    passed = {key: os.environ[key] for key in PASSED if key in os.environ}
    who = {"HOME": str(home), "USER": USER, "LOGNAME": USER, "SHELL": "/bin/bash"}
    hosts = [f"{SUBNET}.{number} {each}" for each, number in numbers.items()]
    (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *hosts, ""]))
    users = Path("/etc/passwd").read_text()
    moved = re.sub(rf"(?m)^({USER}:(?:[^:]*:){{4}})[^:]*", rf"\g<1>{home}", users)
    (etc / "passwd").write_text(moved)
    keyfile, known = folder / "common" / "user_key", folder / "common" / "known_hosts"
    return Machine(
        name, address, home, who | {"PATH": PATH} | passed | env, etc, f"{prefix}-{name}",
        f"{prefix}-wires", numbers[name],
        Ssh(address, SSH_PORT, USER, keyfile, home / "store", known),
        others={each: number for each, number in numbers.items() if each != name},
    )  # fmt: skip


def _network(common: Path, machines: dict[str, Machine]) -> Network:
    """Keys, settings and known hosts, for sshd and for `ssh` on every machine."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd gives up its rights
    keyfile, known, config = (common / name for name in ("user_key", "known_hosts", "config"))
    served = {name: machine for name, machine in machines.items() if name != HERE}
    lines, hosts = [], []
    for name, machine in served.items():
        _keygen(machine.etc / "host_key")
        shutil.copy(common / "user_key.pub", machine.etc)
        text = SSHD_CONFIG.format(
            port=SSH_PORT, host=machine.address, folder=machine.etc, user=USER
        )
        own = " ".join(f'"{key}={value}"' for key, value in machine.env.items())
        # All on one line: sshd takes the first SetEnv only. Many may be let in at a time.
        (machine.etc / "sshd_config").write_text(f"{text}SetEnv {own}\nMaxStartups 100\n")
        key = " ".join((machine.etc / "host_key.pub").read_text().split()[:2])
        lines.append(f"{name},{machine.address} {key}\n")
        hosts.append(SSH_CONFIG.format(name=name, address=machine.address))
    known.write_text("".join(lines))
    everyone = SSH_CONFIG_ALL.format(keyfile=keyfile, known_hosts=known)
    config.write_text("".join([*hosts, everyone]))
    config.chmod(0o600)
    for machine in machines.values():
        for each in (config, known):
            shutil.copy(each, machine.home / ".ssh")
        shutil.copy(keyfile, machine.home / ".ssh" / "id_ed25519")
    return Network(machines[HERE], served, keyfile, known, config)


def _keygen(path: Path) -> None:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)]
    subprocess.run(words, check=True)


def _mac(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"  # 02: given by hand, not by a maker


def _ip(*words: str, text: str = "") -> str:
    """What `ip` says; it must end well."""
    done = subprocess.run(
        ["ip", *words], input=text, capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": SYSTEM},
    )  # fmt: skip
    assert done.returncode == 0, f"ip {' '.join(words)}\n{text}\n{done.stderr}"
    return done.stdout


def _batch(namespace: str, *lines: list[str]) -> None:
    _ip("-n", namespace, "-batch", "-", text="\n".join(" ".join(line) for line in lines))


def _remove(namespace: str) -> None:
    """End all that runs in a namespace, and take its name away; none by that name is fine."""

    def empty() -> bool:
        left = _processes(namespace)
        _signal(left, signal.SIGKILL)
        return not left

    wait_for(empty, f"what runs in {namespace} to end")
    try:
        _ip("netns", "del", namespace)
    except AssertionError:
        if (NAMESPACES / namespace).exists():  # or another process cleared it at the same time
            raise


def _processes(namespace: str) -> list[psutil.Process]:
    """Those in a namespace, without those that have ended and wait to be looked at."""
    path = NAMESPACES / namespace
    if not path.exists():
        return []
    wanted, found = path.stat(), []
    assert not os.path.samestat(wanted, Path("/proc/self/ns/net").stat()), f"{path} is the host's"
    for pid in psutil.pids():
        with suppress(OSError, psutil.NoSuchProcess):  # it ended meanwhile
            if os.path.samestat(wanted, Path(f"/proc/{pid}/ns/net").stat()):
                found.append(psutil.Process(pid))
    return found


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(number)


def _is_sshd(process: psutil.Process) -> bool:
    """The daemon, or a session's end; since OpenSSH 9.8 the latter is a program of its own."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.name().startswith("sshd"))
    return False


def _parent(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return int(process.ppid())
    return 0


def _session(process: psutil.Process) -> int:
    with suppress(ProcessLookupError):
        return os.getsid(process.pid)
    return 0


def _born(pid: int) -> int:
    """When a process began, in ticks since the machine did (proc(5), field 22); 0: there is none.

    With it a process is told from a later one by the same number.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(")")[2].split()[19])
