"""No copy of a key is left where somebody could find it: memory of workers and agents, environment, files.

The search reads another process's memory through /proc/PID/mem, as a debugger does.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import SERVES
from test_agent import true_key

from rsc.keys.envelope import Envelope, data_key_context, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.agent.server import AgentServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/PID/mem")

# Whoever holds a key hides its memory, also from this test where that runs as an ordinary user: the processes
# searched here open themselves again (prctl PR_SET_DUMPABLE), after the fact.
SEARCHABLE = """
import ctypes
def be_searchable():
    assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0
"""

WORKER = (
    SEARCHABLE
    + """
import sys
from pathlib import Path
from rsc.release.agent.client import KeyClient
from rsc.release.agent.request import KeyRequest
client = KeyClient(Path(sys.argv[1]))
held = [client.release(KeyRequest("train", "ada", data="posts")) for _ in range(5)]
if sys.argv[2] == "careless":
    leaked = bytes(held[0].key.view)
if sys.argv[2] != "hidden":
    be_searchable()
print("holding", flush=True)
sys.stdin.readline()
for one in held:
    client.end(one)
print("ended", flush=True)
sys.stdin.readline()
"""
)

AGENT = (
    SEARCHABLE
    + """
import sys
from pathlib import Path
from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.release.agent.agent import KeyAgent
from rsc.release.agent.request import KeyRequest
from rsc.keys.providers.local import LocalKeyProvider
workspace, clock = Workspace(Path(sys.argv[1])), SystemClock()
audit = AuditLog.open(workspace.audit, clock=clock)
agent = KeyAgent(workspace, providers={"local": LocalKeyProvider(workspace.keys)}, audit=audit, clock=clock)
for _ in range(20):
    agent.release(KeyRequest("train", "ada", data="posts")).close()
be_searchable()
print("ended", flush=True)
sys.stdin.readline()
"""
)


MAKER = (
    SEARCHABLE
    + """
import sys
from pathlib import Path
from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope
from rsc.keys.providers.local import LocalKeyProvider
provider, kek_id = LocalKeyProvider(Path(sys.argv[1]) / "keys"), data_kek_id("posts", period="2026-11")
provider.create(kek_id, period="2026-11")
envelope, key = new_envelope(provider, kek_id=kek_id, context=data_key_context("posts"))
key.close()
(Path(sys.argv[1]) / "key.json").write_text(envelope.to_json())
be_searchable()
print("made", flush=True)
sys.stdin.readline()
"""
)


def copies_in_memory(pid: int, secret: bytes) -> int:
    """How often `secret` occurs in the readable memory of a process."""
    count = 0
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or "[vvar" in line or "[vsyscall]" in line:
                continue
            start, end = (int(text, 16) for text in match.groups())
            try:
                memory.seek(start)
                count += memory.read(end - start).count(secret)
            except (OSError, OverflowError, ValueError):
                continue  # guard pages, devices, secret memory
    return count


def start(code: str, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def searchable():
    """Skip where the kernel forbids looking into a child, as Yama's ptrace_scope 2 does."""
    child = start("import sys; print(flush=True); sys.stdin.readline()")
    child.stdout.readline()
    try:
        copies_in_memory(child.pid, b"x")
    except PermissionError as error:
        pytest.skip(f"this system forbids reading another process's memory: {error}")
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def served(house, tmp_path, searchable):
    house.add()
    house.approve()
    with AgentServer(house.agent, socket_path=tmp_path / "agent.sock", clock=house.clock, serves=SERVES):
        yield tmp_path / "agent.sock"


def test_after_the_release_ends_a_worker_holds_no_copy_of_the_key(house, served):
    secret = true_key(house)
    worker = start(WORKER, str(served), "careful")
    assert worker.stdout.readline() == "holding\n"
    assert copies_in_memory(worker.pid, secret) == 5, "the search must be able to find a key that is held"
    assert_not_in_environment_or_argv(worker.pid, secret)
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "ended\n"
    assert copies_in_memory(worker.pid, secret) == 0
    worker.kill()
    worker.wait()


def test_the_search_finds_a_worker_that_keeps_a_copy(house, served):
    secret = true_key(house)
    worker = start(WORKER, str(served), "careless")
    assert worker.stdout.readline() == "holding\n"
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "ended\n"
    # One is in the heap. The vector register it was copied through may be saved on the stack by the dynamic
    # linker (XSAVE, 64-byte aligned, when a symbol is bound for the first time): then there are two.
    assert copies_in_memory(worker.pid, secret) in (1, 2)
    worker.kill()
    worker.wait()


def test_an_agent_that_released_keys_holds_no_copy_of_them(house, served):
    secret = true_key(house)
    written = json.loads((house.workspace.keys / "data/posts/2026-11.kek").read_text())["secret"]
    agent = start(AGENT, str(house.workspace.root))
    assert agent.stdout.readline() == "ended\n"
    for form in (secret, base64.b64decode(written), written.encode()):
        assert copies_in_memory(agent.pid, form) == 0
    agent.kill()
    agent.wait()


def test_a_process_that_makes_and_wraps_keys_holds_no_copy_of_them(tmp_path, searchable):
    maker = start(MAKER, str(tmp_path))
    assert maker.stdout.readline() == "made\n"
    folder = tmp_path / "keys"
    written = json.loads((folder / "data/posts/2026-11.kek").read_text())["secret"]
    envelope = Envelope.from_json((tmp_path / "key.json").read_text())
    with open_envelope(LocalKeyProvider(folder), envelope, context=data_key_context("posts")) as key:
        for form in (bytes(key.view), base64.b64decode(written), written.encode()):
            assert copies_in_memory(maker.pid, form) == 0
    maker.kill()
    maker.wait()


def assert_not_in_environment_or_argv(pid: int, secret: bytes) -> None:
    forms = (secret, secret.hex().encode())
    for name in ("environ", "cmdline"):
        content = Path(f"/proc/{pid}/{name}").read_bytes()
        assert not any(form in content for form in forms), name


def test_no_file_of_the_workspace_holds_the_data_key(house, served):
    secret = true_key(house)
    worker = start(WORKER, str(served), "careful")
    assert worker.stdout.readline() == "holding\n"
    files = [path for path in house.workspace.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        assert secret not in content, path
        assert secret.hex().encode() not in content, path
    worker.kill()
    worker.wait()


def test_a_dumped_worker_gives_no_core(house, served, tmp_path):
    """A worker that hides its memory cannot be searched by an ordinary process of the same user."""
    worker = start(WORKER, str(served), "hidden")
    assert worker.stdout.readline() == "holding\n"
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    assert re.search(r"Max core file size +0 +0", limits)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            copies_in_memory(worker.pid, b"x")
    worker.kill()
    worker.wait()
