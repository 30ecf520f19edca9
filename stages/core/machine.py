"""This machine in; its processor, memory, disk and GPUs out."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MEMINFO, CPUINFO = Path("/proc/meminfo"), Path("/proc/cpuinfo")
OWN_GROUPS, GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
# What is there where NVIDIA's driver is: natively and in containers, and in Windows' Linux.
DRIVERS = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
MIB = 1 << 20
# A control group's files: its limit, what it uses, and what of that memory.stat says can go.
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes there are in all, and of those the free ones."""

    total: int
    free: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and its own memory; None where it has none or does not say."""

    name: str
    memory: Space | None


def chip() -> str:
    """What the processor calls itself, such as Apple M2 Pro; empty where it does not say."""
    if platform.system() == "Darwin":
        return _said(["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "")


def system() -> dict[str, str | int]:
    """System, processor, cores and Python."""
    macos = platform.mac_ver()[0]
    return {
        "system": f"macOS {macos}" if macos else f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cpu": chip(),
        "cores": cores(),
        "python": platform.python_version(),
    }


def cores() -> int:
    """Cores that this process may use, which may be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> Space:
    """RAM without swap, or what a control group leaves of it, such as a container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = total
    if MEMINFO.is_file():
        free = available(MEMINFO.read_text(encoding="utf-8"))
    elif platform.system() == "Darwin":
        free = reclaimable(_said(["/usr/bin/vm_stat"])) or total
    own = OWN_GROUPS.read_text(encoding="utf-8") if OWN_GROUPS.is_file() else ""
    found = [Space(total, free), *limits(own, GROUPS)]
    return Space(min(one.total for one in found), max(0, min(one.free for one in found)))


def available(meminfo: str) -> int:
    """Bytes that can be had without swapping, of the text of /proc/meminfo."""
    lines = dict(line.split(":", 1) for line in meminfo.splitlines() if ":" in line)
    return 1024 * int(lines["MemAvailable"].split()[0])


def reclaimable(vm_stat: str) -> int:
    """The same of what macOS's vm_stat prints, whose first line holds the size of a page."""
    head, *lines = vm_stat.splitlines() or [""]
    size = next((int(word) for word in head.split() if word.isdecimal()), 0)
    pages = {}
    for line in lines:
        name, _, count = line.partition(":")
        pages[name.strip()] = int(count.strip().rstrip(".") or 0)
    kinds = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
    return size * sum(pages.get(kind, 0) for kind in kinds)


def limits(own: str, mount: Path) -> Iterator[Space]:
    """The limits of this process's control group and of those that it is in.

    Args:
        own: the text of /proc/self/cgroup, lines of `number:controllers:path`.
        mount: where control groups are mounted. Inside a container the path may not exist below
            it; the container's own limit then stands at the mount itself.
    """
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, names = (mount / "memory", V1) if controllers else (mount, V2)
        inner = top / path.strip("/")
        for folder in (inner, *inner.parents):
            yield from _limit(folder, *names)
            if folder == top:
                break


def _limit(folder: Path, limit: str, used: str, back: str) -> Iterator[Space]:
    if not ((folder / limit).is_file() and (folder / used).is_file()):
        return
    most = (folder / limit).read_text(encoding="utf-8").strip()
    if most == "max":
        return
    stat = folder / "memory.stat"
    lines = stat.read_text(encoding="utf-8").splitlines() if stat.is_file() else []
    idle = next((int(line.split()[1]) for line in lines if line.split()[0] == back), 0)
    held = int((folder / used).read_text(encoding="utf-8")) - idle
    yield Space(int(most), int(most) - held)


def disk(folder: Path) -> Space:
    """The disk that a folder lies on."""
    found = shutil.disk_usage(folder)
    return Space(found.total, found.free)


def driver() -> bool:
    """Whether NVIDIA's driver is here."""
    return shutil.which("nvidia-smi") is not None or any(Path(path).exists() for path in DRIVERS)


def gpus() -> list[Gpu]:
    """The GPUs that nvidia-smi lists, or Apple's, which has the memory of the machine."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return [Gpu(f"{chip()}'s own, through Metal", None)]
    if shutil.which("nvidia-smi") is None:
        return []
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free"]
    return listed(_said([*asked, "--format=csv,noheader,nounits"]))


def listed(answer: str) -> list[Gpu]:
    """Of nvidia-smi's lines `name, MiB in all, MiB free`; where it has no number it says so."""
    found = []
    for line in answer.splitlines():
        cells = [cell.strip() for cell in line.rsplit(",", 2)]
        if len(cells) == 3:
            name, *sizes = cells
            known = all(size.isdecimal() for size in sizes)
            space = Space(*(int(size) * MIB for size in sizes)) if known else None
            found.append(Gpu(name, space))
    return found


def _said(command: list[str]) -> str:
    """What a command prints; nothing where it fails or takes long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
