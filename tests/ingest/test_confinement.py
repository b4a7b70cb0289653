"""What a decoding worker that a file took over cannot do (ingest/confine.py)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from rsc import syscall_filter
from rsc.ingest.config import ImportOptions
from rsc.ingest.confine import source_roots
from rsc.ingest.map_part import ImportPlan
from rsc.ingest.readers.source import Chunk, Part, Source
from rsc.ingest.workers import run_parts
from rsc.keys.secret import SecretKey
from rsc.review.policy import default_policy
from rsc.store.format.schema import Field, Schema

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="seccomp, Landlock and namespaces are of Linux"
)
has_filters = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no filter of system calls for this architecture"
)
HAS_LANDLOCK = sys.platform == "linux" and ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) > 0
has_landlock = pytest.mark.skipif(not HAS_LANDLOCK, reason="this kernel has no Landlock")


Attempt: TypeAlias = "Callable[[Hostile], None]"


def start_a_program(source: Hostile) -> None:
    subprocess.run(["/bin/true"], check=True)


def fork(source: Hostile) -> None:
    if os.fork() == 0:
        os._exit(0)


def run_in_its_place(source: Hostile) -> None:
    os.execv("/bin/true", ["true"])


def internet_socket(source: Hostile) -> None:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()


def unix_socket(source: Hostile) -> None:
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()


def kill_its_parent(source: Hostile) -> None:
    os.kill(os.getppid(), 0)


def kill_everything(source: Hostile) -> None:
    os.kill(-1, signal.SIGWINCH)


def signal_by_descriptor(source: Hostile) -> None:
    signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 0)


def read_memory_of_its_parent(source: Hostile) -> None:
    Path(f"/proc/{os.getppid()}/mem").open("rb").close()


def trace_its_parent(source: Hostile) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, os.getppid(), None, None) < 0:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")


def write_a_file(source: Hostile) -> None:
    (source.outside / "written").write_text("x")


def write_over_the_source(source: Hostile) -> None:
    source.inside.write_text("x")


def append_to_the_source(source: Hostile) -> None:
    os.close(os.open(source.inside, os.O_WRONLY | os.O_APPEND))


def remove_the_source(source: Hostile) -> None:
    source.inside.unlink()


def move_the_source(source: Hostile) -> None:
    source.inside.rename(source.outside / "moved")


def make_a_link(source: Hostile) -> None:
    (source.outside / "link").symlink_to("/etc")


def make_a_pipe(source: Hostile) -> None:
    os.mkfifo(source.outside / "pipe")


def change_a_mode(source: Hostile) -> None:
    source.secret.chmod(0o666)


def read_a_file_beside(source: Hostile) -> None:
    source.secret.read_bytes()


def read_by_a_link(source: Hostile) -> None:
    (source.inside.parent / "link").read_bytes()


def list_a_folder(source: Hostile) -> None:
    list(source.outside.iterdir())


def read_a_terminal(source: Hostile) -> None:
    os.close(os.open(source.terminal, os.O_RDONLY | os.O_NOCTTY))


BY_FILTER = [
    start_a_program, fork, run_in_its_place, internet_socket, unix_socket, kill_its_parent, kill_everything,
    signal_by_descriptor, read_memory_of_its_parent, trace_its_parent, write_a_file, write_over_the_source,
    append_to_the_source, remove_the_source, move_the_source, make_a_link, make_a_pipe, change_a_mode,
]  # fmt: skip
BY_LANDLOCK = [read_a_file_beside, read_by_a_link, list_a_folder, read_a_terminal]


def read_the_source(source: Hostile) -> None:
    assert source.inside.read_bytes() == b"picture"


def look_for_what_it_inherited(source: Hostile) -> None:
    """Three descriptors of /dev/null, one of the pipe to the import, and the one that lists them."""
    for number in range(3):
        assert os.path.samestat(os.fstat(number), Path("/dev/null").stat())
    if os.getsid(0) != os.getpid() or len(list(Path("/proc/self/fd").iterdir())) > 5:
        raise OSError(errno.EMFILE, "more than it needs")


ALL: list[Attempt] = [*BY_FILTER, *BY_LANDLOCK, read_the_source, look_for_what_it_inherited]


@dataclass
class Hostile(Source):
    """A picture folder of one part, which tries everything; its records are what came of it: errno, or 0."""

    inside: Path
    outside: Path
    secret: Path
    terminal: str
    kind: str = "images"

    def fields(self) -> tuple[Field, ...]:
        return (Field("number", "tensor", "int64"),)

    def files(self) -> list[Path]:
        return [self.inside]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        yield Part(0, first_record=0, size_bytes=1, span=None)

    def read(self, part: Part) -> Iterator[Chunk]:
        came = []
        for attempt in ALL:
            try:
                attempt(self)
                came.append(0)
            except OSError as error:
                came.append(error.errno or -1)
        yield Chunk({"number": np.array(came)}, np.arange(len(came), dtype=np.uint64), size_bytes=8)


@pytest.fixture(scope="module")
def came_of(tmp_path_factory: pytest.TempPathFactory) -> dict[Attempt, int]:
    """One worker tries everything: starting one takes a second."""
    place = tmp_path_factory.mktemp("hostile")
    (place / "source").mkdir()
    (place / "source/1.png").write_bytes(b"picture")
    (place / "secret").write_bytes(b"a key")
    (place / "source/link").symlink_to(place / "secret")
    leader, follower = os.openpty()
    source = Hostile(place / "source/1.png", place, place / "secret", os.ttyname(follower))
    plan = ImportPlan(
        "posts", source, Schema(source.fields()), ImportOptions(holdout=0.0), default_policy(), source_bytes=1
    )
    try:
        with SecretKey.generate() as key:
            (result,) = run_parts(plan, num_processes=1, subject_key=key)
    finally:
        os.close(leader)
        os.close(follower)
    assert sorted(path.name for path in place.iterdir()) == ["secret", "source"]
    assert (place / "source/1.png").read_bytes() == b"picture"
    return dict(zip(ALL, np.asarray(result.columns["train"]["number"]).tolist(), strict=True))


@has_filters
@pytest.mark.parametrize("attempt", BY_FILTER, ids=lambda attempt: attempt.__name__)
def test_what_a_worker_has_no_business_with_is_refused_by_the_kernel(
    attempt: Attempt, came_of: dict[Attempt, int]
) -> None:
    assert came_of[attempt] in (errno.EPERM, errno.EACCES)


@has_landlock
@pytest.mark.parametrize("attempt", BY_LANDLOCK, ids=lambda attempt: attempt.__name__)
def test_files_that_are_not_of_the_source_are_not_read(attempt: Attempt, came_of: dict[Attempt, int]) -> None:
    assert came_of[attempt] == errno.EACCES


def test_the_source_can_be_read_and_nothing_of_the_import_is_inherited(came_of: dict[Attempt, int]) -> None:
    assert came_of[read_the_source] == 0
    assert came_of[look_for_what_it_inherited] == 0


def test_the_roots_of_a_source_are_one_file_or_the_folder_of_all(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    files = [tmp_path / "a/1.txt", tmp_path / "a/b/2.txt"]
    assert source_roots(files) == [str((tmp_path / "a").resolve())]
    assert source_roots(files[:1]) == [str((tmp_path / "a").resolve() / "1.txt")]
    assert source_roots([]) == []


def test_every_rule_names_a_call_of_the_tables() -> None:
    for machine in ("x86_64", "aarch64"):
        program = syscall_filter._program(
            [syscall_filter.CallRule(call) for call in syscall_filter._NUMBERS], machine=machine
        )
        assert len(program) < 4096  # BPF_MAXINSNS
    for column in (0, 1):
        numbers = [row[column] for row in syscall_filter._NUMBERS.values() if row[column] is not None]
        assert len(numbers) == len(set(numbers))
