"""The machines that other tests run on are what they say: apart, reachable, and they can fail."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests import machines
from tests.machines import Machine, Network, wait_for

pytestmark = pytest.mark.machines

KEPT = """
import sys
from contextlib import suppress
from pathlib import Path
from tests import machines
with machines.network(Path(sys.argv[1]), ["gpu0"]) as net:
    call = net["gpu0"].popen(["sh", "-c", "echo runs; exec sleep 1000"])
    call.stdout.readline()
    print(*[one.pid for one in net["gpu0"].processes()], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory):
    names = {"gpu0": {"PLACE": "first place"}, "gpu1": {}, "store": {}}
    with machines.network(tmp_path_factory.mktemp("net"), names) as net:
        yield net


def ask(machine: Machine, *words: str) -> str:
    return machine.run(words, check=True, timeout=20).stdout.strip()


def named(pid: int) -> set[str]:
    """Namespaces that a process has made and that are there."""
    return {path.name for path in machines.NAMESPACES.glob(f"tunesmith-{pid}-*")}


def test_a_session_has_its_machines_home_name_variables_and_programs(net: Network) -> None:
    said = ask(net.here, "ssh", "gpu0", 'echo "$HOME"; pwd; hostname; echo $PLACE; which python3')
    home = str(net["gpu0"].home)
    assert said.splitlines() == [home, home, "gpu0", "first place", f"{machines.BIN}/python3"]
    assert ask(net["gpu0"], "sh", "-c", "echo $PLACE; hostname") == "first place\ngpu0"
    assert "PLACE" not in ask(net.here, "ssh", *net.ssh_options, "gpu1", "env")


def test_every_machine_has_an_address_of_its_own_and_reaches_the_store(net: Network) -> None:
    every = [net.here, *net.machines.values()]
    assert len({machine.address for machine in every}) == 4
    for machine in every:
        assert machine.address in ask(machine, "ip", "-br", "-4", "address", "show", "eth0")
        ask(machine, "sh", "-c", "hostname > said; echo 'put said store/' | sftp -q -b - store")
        assert (net["store"].ssh.folder / "said").read_text() == f"{machine.name}\n"


def test_a_cut_machine_gets_and_gives_nothing_until_it_is_mended(net: Network) -> None:
    pairs = (("gpu0", "gpu1"), ("gpu1", "gpu0"))
    calls = {one: net[one].popen(["ssh", other, "cat"]) for one, other in pairs}
    for name, call in calls.items():
        send(call, f"first {name}\n")
        assert call.stdout.readline() == f"first {name}\n"
    net["gpu0"].cut()
    for name, call in calls.items():
        before = sent_again(net[name])
        send(call, f"second {name}\n")
        wait_for(lambda name=name, before=before: sent_again(net[name]) > before, "a second try")
        assert not select.select([call.stdout], [], [], 0)[0]
    assert ask(net.here, "ssh", "gpu1", "hostname") == "gpu1"  # the others are as before
    net["gpu0"].mend()
    for name, call in calls.items():
        assert call.stdout.readline() == f"second {name}\n"
        call.communicate()


def send(call: "subprocess.Popen[str]", line: str) -> None:
    call.stdin.write(line)
    call.stdin.flush()


def sent_again(machine: Machine) -> int:
    """TCP segments that nobody has answered for and that were sent once more."""
    names, values = (
        line.split() for line in ask(machine, "cat", "/proc/net/snmp").splitlines()
        if line.startswith("Tcp:")
    )  # fmt: skip
    return int(dict(zip(names, values, strict=True))["RetransSegs"])


def test_killing_sshd_ends_its_sessions_and_leaves_what_was_detached(net: Network) -> None:
    gpu = net["gpu0"]
    detach = "setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!"
    detached = psutil.Process(int(ask(net.here, "ssh", "gpu0", detach)))
    with net.here.popen(["ssh", "gpu0", "echo $$; exec sleep 1000"]) as call:
        attached = psutil.Process(int(call.stdout.readline()))
        assert attached in gpu.processes()
        gpu.kill_sshd()
        assert call.wait(10) == 255
        assert "closed by remote host" in call.stderr.read()
    wait_for(lambda: attached not in gpu.processes(), "the session's command to end")
    assert gpu.processes() == [detached]
    assert "Connection refused" in net.here.run(["ssh", "gpu0", "true"]).stderr
    gpu.sshd()
    assert ask(net.here, "ssh", "gpu0", "hostname") == "gpu0"
    detached.kill()


def test_a_machine_that_dies_is_silent_and_comes_back_with_its_files(net: Network) -> None:
    gpu = net["gpu0"]
    detach = "echo kept > file; setsid sleep 1000 < /dev/null > /dev/null 2>&1 & echo $!"
    detached = psutil.Process(int(ask(net.here, "ssh", "gpu0", detach)))
    with net.here.popen(["ssh", "gpu0", "cat"]) as call:
        send(call, "line\n")
        assert call.stdout.readline() == "line\n"
        gpu.die()
        assert gpu.processes() == []
        wait_for(lambda: not alive(detached), "the detached process to be gone")
        with pytest.raises(AssertionError, match="gpu0 is off"):
            gpu.run(["true"])
        assert call.poll() is None  # nobody told it
        gpu.revive()
        _, said = call.communicate("to a machine that knows of no such connection\n", timeout=10)
    assert call.returncode == 255
    assert "Connection reset" in said or "Broken pipe" in said
    assert ask(net.here, "ssh", "gpu0", "cat file") == "kept"


def alive(process: psutil.Process) -> bool:
    """It runs; its parent may have yet to hear that it ended."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def test_two_networks_at_once_do_not_meet(net: Network, tmp_path: Path) -> None:
    with machines.network(tmp_path, ["gpu0"]) as other:
        assert other["gpu0"].address == net["gpu0"].address
        other["gpu0"].cut()
        assert ask(net.here, "ssh", "gpu0", "echo $HOME") == str(net["gpu0"].home)
        other["gpu0"].mend()
        assert ask(other.here, "ssh", "gpu0", "echo $HOME") == str(other["gpu0"].home)


def test_the_hosts_network_stays_as_it_is_and_nothing_is_left(tmp_path: Path) -> None:
    pid, links = os.getpid(), host_links()
    before, running = named(pid), []

    def interrupted() -> None:
        with machines.network(tmp_path, ["gpu0"]) as net:
            net["gpu0"].die()
            net["gpu0"].revive()
            ask(net.here, "ssh", "gpu0", "setsid sleep 1000 < /dev/null > /dev/null 2>&1 &")
            running.extend(net["gpu0"].processes())
            assert len(named(pid) - before) == 3
            assert host_links() == links
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert named(pid) == before
    assert host_links() == links
    assert len(running) >= 2
    assert not any(map(alive, running))


def host_links() -> set[str]:
    """Links of the host, without those that a container engine makes and removes meanwhile."""
    lines = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    names = {line.split()[0] for line in lines.stdout.splitlines()}
    return {name for name in names if not name.startswith(("veth", "br-", "docker"))}


def test_what_a_killed_run_left_is_removed_and_what_runs_is_not(tmp_path: Path) -> None:
    words = [sys.executable, "-c", KEPT, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        left = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
        assert len(left) == 2
        machines.clear_leftovers()
        assert len(named(run.pid)) == 3
        assert all(map(alive, left))
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert all(map(alive, left))
    machines.clear_leftovers()
    assert named(run.pid) == set()
    wait_for(lambda: not any(map(alive, left)), "them to end")


@pytest.mark.parametrize(
    ("broken", "said"),
    [(("os.geteuid", lambda: 1000), "need root"), (("sys.platform", "darwin"), "need Linux")],
)
def test_where_there_can_be_no_machines_the_tests_fail_and_say_why(
    broken: tuple, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*broken)
    with pytest.raises(AssertionError, match=said), machines.network(tmp_path):
        pass
