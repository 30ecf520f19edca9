"""llama.cpp: one pinned source archive -> its converter, and libllama when a K-quant needs it.

The source is the vendored llama.cpp of llama-cpp-python's source archive: pip can fetch it from
any index, so no git and no compiler is needed for the converter.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from stages.core import files
from stages.core.errors import TunesmithError
from stages.core.progress import Progress

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
ARCHIVE = f"llama_cpp_python-{VERSION}.tar.gz"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
DOWNLOAD = f"{PACKAGE}=={VERSION} --no-deps --no-binary {PACKAGE}".split()
INSIDE = f"llama_cpp_python-{VERSION}/vendor/llama.cpp/"
# the converter, and what CMake reads to build libllama for the CPU; 18 of 220 MB
KEEP = re.compile(
    r"LICENSE|convert_hf_to_gguf\.py|CMakeLists\.txt|(conversion|gguf-py/gguf|cmake|include|src)/.*"
    r"|ggml/(CMakeLists\.txt|(cmake|include|src/ggml-cpu)/.*|src/[^/]*)"
    r"|vendor/(CMakeLists\.txt|(hash|miniaudio|nlohmann|sheredom|stb)/.*)"
)
FLAGS = [
    "CMAKE_BUILD_TYPE=Release",
    "CMAKE_BUILD_RPATH_USE_ORIGIN=ON",
    "BUILD_SHARED_LIBS=ON",
    "LLAMA_BUILD_COMMON=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_TOOLS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_SERVER=OFF",
    "LLAMA_BUILD_APP=OFF",
    "GGML_NATIVE=OFF",
    "GGML_METAL=OFF",
    "GGML_BLAS=OFF",
    "GGML_ACCELERATE=OFF",
    "GGML_CCACHE=OFF",
]


def cache() -> Path:
    """The user's cache folder: `$TUNESMITH_CACHE`, else `~/.cache/tunesmith`."""
    return Path(os.environ.get("TUNESMITH_CACHE") or Path.home() / ".cache" / "tunesmith")


def source() -> Path:
    """Where the unpacked source lies, or will lie."""
    return cache() / f"llama.cpp-{SHA256[:12]}"


def fetch() -> Path:
    """The unpacked llama.cpp source, fetched on the first call; safe to call at the same time.

    Raises:
        TunesmithError: no network, or an archive other than the pinned one.
    """
    root = source()
    if root.is_dir():
        return root
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache(), prefix=".fetch-") as name:
        archive = cache() / ARCHIVE
        if not archive.is_file():
            archive = download(Path(name))
        verify(archive)
        unpacked = Path(name) / "source"
        unpack(archive, unpacked)
        _settle(unpacked, root)
    return root


def download(folder: Path) -> Path:
    """The archive, from whatever index pip is configured for."""
    print(f"  fetching the llama.cpp source once (77 MB), into {cache()}", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *DOWNLOAD, "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode or not (folder / ARCHIVE).is_file():
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise TunesmithError(
            f"The llama.cpp source could not be fetched: {last}",
            where=str(cache()),
            why="The GGUF converter comes from it; it is fetched once, through pip.",
            do=f"Where there is a network: pip download {' '.join(DOWNLOAD)}\n"
            f"        then put {ARCHIVE} into {cache()}",
        )
    return folder / ARCHIVE


def verify(archive: Path) -> None:
    """Refuse any archive but the pinned one, before a byte of it is unpacked."""
    found = files.sha256(archive)
    if found != SHA256:
        raise TunesmithError(
            f"{archive.name} is not the pinned archive: sha256 {found[:16]}…, "
            f"pinned is {SHA256[:16]}….",
            where=str(archive),
            why="Another converter could write another model.",
            do=f"Delete it, then: pip download {' '.join(DOWNLOAD)}",
        )


def unpack(archive: Path, target: Path) -> None:
    """Unpack the kept part of the vendored llama.cpp into `target`.

    File by file: `extract(filter="data")` came only with Python 3.11.4.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            name = member.name.removeprefix(INSIDE)
            if name == member.name or not KEEP.fullmatch(name):
                continue
            if content := tar.extractfile(member) if member.isfile() else None:
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    shutil.copyfileobj(content, out)
                path.chmod(member.mode & 0o755)


def _settle(made: Path, final: Path) -> None:
    """Give a finished folder its name; where another process was first, its folder stays."""
    try:
        made.rename(final)
    except OSError:
        if not final.is_dir():
            raise


def library() -> Path:
    """libllama for this machine, built once into the user's cache (1.5 to 3 minutes).

    Raises:
        TunesmithError: no CMake or no C++ compiler, or the build failed.
    """
    root = fetch()
    name = "libllama.dylib" if sys.platform == "darwin" else "libllama.so"
    final = root / f"lib-{sys.platform}-{os.uname().machine}"
    if not final.is_dir():
        _require_compiler()
        with tempfile.TemporaryDirectory(dir=cache(), prefix=".build-") as folder:
            build = Path(folder) / "build"
            _cmake(["-S", str(root), "-B", str(build), *(f"-D{flag}" for flag in FLAGS)], 1)
            jobs = str(os.cpu_count() or 1)
            # 78 steps with Ninja, about three lines a step with Make
            _cmake(["--build", str(build), "--target", "llama", "--parallel", jobs], None)
            kept = Path(folder) / "lib"
            kept.mkdir()
            for path in sorted((build / "bin").glob("lib*")):
                shutil.copyfile(path, kept / path.name)
            _settle(kept, final)
    return final / name


def _require_compiler() -> None:
    missing = [] if shutil.which("cmake") else ["cmake"]
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        missing.append("a C++ compiler")
    if missing:
        raise TunesmithError(
            f"K-quants need {' and '.join(missing)}, not found here.",
            where="PATH",
            why="Their encoder is compiled once from llama.cpp; f32, f16, bf16 and q8_0 need none.",
            do="Install them (apt install cmake g++; xcode-select --install; brew install cmake),"
            "\n        or set this gguf entry's quant to q8_0.",
        )


def _cmake(arguments: list[str], total: int | None) -> None:
    """Run CMake, one progress step a line of its output; its last lines when it fails."""
    progress, lines = Progress("building libllama (once)", total), []
    with subprocess.Popen(
        ["cmake", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append(line.rstrip())
            progress.step(note=line.strip()[:40])
    progress.close()
    if child.returncode:
        raise TunesmithError(
            "libllama could not be built:\n  " + "\n  ".join(lines[-12:]),
            where=str(source()),
            why="K-quants need it; f32, f16, bf16 and q8_0 do not.",
            do="Mend the compiler's complaint above, or set this gguf entry's quant to q8_0.",
        )
