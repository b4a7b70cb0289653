"""From a sandboxed worker to the agent outside: the key comes through, and each broken sandbox is refused."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager

import pytest
from house import SERVES, require_namespaces

from rsc.cluster.sandbox.wrap import wrap
from rsc.release.agent.server import AgentServer

WORKER = """
import os, sys
from pathlib import Path
from rsc.hardening import harden_process
from rsc.cluster.sandbox.probe import hygiene, probe
from rsc.errors import RscError
from rsc.release.agent.client import hold_keys
from rsc.release.agent.request import KeyRequest

path, behaviour = Path(sys.argv[1]), sys.argv[2]
if behaviour != "readable":
    harden_process()

def measure():
    if behaviour == "lying":
        good = {"is_ok": True, "findings": [{"name": "tcp", "is_ok": True, "detail": "ENETUNREACH"}]}
        names = ("core dumps", "memory is private")
        return good, {"is_ok": True, "findings": [{"name": n, "is_ok": True, "detail": ""} for n in names]}
    return probe(allowed_sockets=[path]).to_json(), hygiene().to_json()

try:
    with hold_keys(path, {"data": KeyRequest("train", "me", data="posts")}, measure=measure) as keys:
        print("key", len(keys["data"].view))
except RscError as error:
    print(type(error).__name__, error.message)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def served(house, tmp_path):
    """A data set that requires isolation, and an agent whose socket lies in a run folder."""
    require_namespaces()
    house.add(isolation="required")
    house.approve()
    run = tmp_path / "run"
    run.mkdir()
    with AgentServer(
        house.agent, socket_path=run / "agent.sock", clock=house.clock, serves=SERVES
    ) as house.server:
        yield run


def start(argv, run, behaviour: str = "honest") -> subprocess.CompletedProcess[str]:
    command = [*argv, sys.executable, "-c", WORKER, str(run / "agent.sock"), behaviour]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def sandboxed(run, **options) -> list[str]:
    return wrap([], level="required", writable=[run], **options).argv


def namespace(setup: str) -> list[str]:
    """A network namespace made by hand, after `setup` as its root, with its capabilities kept."""
    first = "import os, sys; from rsc.cluster.sandbox import syscalls; syscalls.raise_loopback()"
    script = f"{first}; {setup}; os.execvp(sys.argv[1], sys.argv[1:])"
    return ["unshare", "-Urn", sys.executable, "-c", script]


@pytest.mark.parametrize("method", ["bwrap", "unshare"])
def test_a_sandboxed_worker_gets_the_key(served, house, method):
    if method == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt install bubblewrap)")
    done = start(sandboxed(served, methods=(method,)), served)
    assert done.stdout == "key 32\n", done.stderr
    (entry,) = house.logged("key_released")
    assert entry["notes"] == ["single-person review"]
    house.server.end_overdue()
    assert house.logged("lease_ended")[0]["how"] == "returned"


def refused(done, house, *, because: str) -> None:
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.startswith("IsolationRefused")
    assert because in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert house.logged("key_denied")
    assert not house.logged("key_released")


def test_no_sandbox_at_all(served, house):
    refused(start([], served), house, because="posts requires isolated workers and this one is not")


def test_hardened_but_with_the_network(served, house):
    argv = wrap([], level="best-effort", writable=[served], methods=()).argv
    refused(start(argv, served), house, because="tcp 192.0.2.1")


def test_a_worker_that_lies_is_seen_from_outside(served, house):
    """Root sees that it shares the network; an ordinary agent may not look into it, which counts the same."""
    refused(start([], served, "lying"), house, because="the agent")


def test_a_lying_worker_with_capabilities_left(served, house):
    refused(start(namespace("0"), served, "lying"), house, because="it has capabilities")


def test_capabilities_left(served, house):
    refused(start(namespace("0"), served), house, because="vsock: can be created")
    assert "privileges: CapEff is not empty" in probe_in(namespace("0"))


def test_a_default_route_that_answers(served, house):
    """A route over lo: packets stay inside, but the kernel says something else than ENETUNREACH."""
    if shutil.which("ip") is None:
        pytest.skip("the `ip` command is not installed (apt install iproute2)")
    setup = "os.system('ip route add default dev lo')"
    refused(start(namespace(setup), served), house, because="tcp 192.0.2.1")


def test_an_interface_besides_loopback(served, house):
    if shutil.which("ip") is None:
        pytest.skip("the `ip` command is not installed (apt install iproute2)")
    setup = "assert not os.system('ip link add name rsc0 type dummy && ip link set rsc0 up')"
    if subprocess.run([*namespace(setup), "true"], capture_output=True).returncode:
        pytest.skip("this kernel has no dummy interfaces")
    assert "interfaces: lo rsc0" in probe_in(namespace(setup))
    refused(start(namespace(setup), served), house, because="vsock")


def probe_in(argv) -> str:
    code = "from rsc.cluster.sandbox.probe import probe; print(probe().broken)"
    return subprocess.run([*argv, sys.executable, "-c", code], capture_output=True, text=True).stdout


def test_loopback_down_is_not_taken_for_isolation():
    require_namespaces()
    assert "none is up" in probe_in(["unshare", "-Urn"])


@contextmanager
def listening(path):
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        yield


def test_a_foreign_socket_in_reach(served, house):
    with listening(served / "docker.sock"):
        refused(start(sandboxed(served), served), house, because="docker.sock is reachable")
        refused(start(sandboxed(served), served, "lying"), house, because="it sees the socket")


def test_memory_that_others_can_read(served, house):
    refused(start(sandboxed(served), served, "readable"), house, because="memory is private")
