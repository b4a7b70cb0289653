"""`rsc verify` on processes with keys: their terminals, and what outlives a lease."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from rsc.release.agent.sandboxes import Sandbox
from rsc.release.verify import running
from rsc.release.verify.checks import VerifyContext

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
RELEASE = {"data": "posts", "version": 1, "user": "ada", "purpose": "train", "root_hash": "ab" * 32}


def looked_at(house) -> VerifyContext:
    return VerifyContext(
        house.workspace, {house.provider.name: house.provider}, house.audit, house.clock.now()
    )


@pytest.fixture
def now(house):
    """The house's clock as the kernel sees it."""
    house.clock.advance((datetime.now(UTC) - house.clock.now()).total_seconds() + 1)
    return house


def release_to(house, pid: int) -> int:
    return house.audit.append("key_released", **RELEASE, pid=pid)


@pytest.mark.parametrize(("how", "state"), [("expired", "broken"), ("gone", "broken"), ("ended", "kept")])
def test_a_process_that_outlives_its_lease_is_found(now, how: str, state: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as holder:
        now.audit.append("lease_ended", **RELEASE, release=release_to(now, holder.pid), how=how)
        row = running.leases_end_with_their_holders(looked_at(now))
        assert row.state == state
        assert state == "kept" or f"process {holder.pid} lives" in row.told
        holder.kill()
        holder.wait()
        assert running.leases_end_with_their_holders(looked_at(now)).state == "kept"


def test_a_process_that_stayed_behind_in_a_sandbox_is_found(now, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_END_S", 0.0)
    code = "import subprocess as s; [s.Popen(['sleep', '60']) for _ in 'ab']; print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as top:
        assert top.stdout is not None
        top.stdout.readline()
        main, orphan = running.orphans_of(top.pid, kept=set())
        monkeypatch.setattr(running, "sandbox_of", lambda pid: Sandbox(top=top.pid, main=main))
        release_to(now, main)
        row = running.leases_end_with_their_holders(looked_at(now))
        assert (row.state, row.told) == (
            "broken",
            f"process {orphan} was left behind in the sandbox of {main}",
        )
        os.kill(orphan, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while running.orphans_of(top.pid, kept={main}) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert running.leases_end_with_their_holders(looked_at(now)).state == "kept"
        os.kill(main, signal.SIGKILL)
        top.kill()


def test_a_terminal_of_a_process_with_a_key_is_found(now, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "sandbox_of", lambda pid: Sandbox(top=pid, main=pid))
    pid, leader = pty.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    try:
        release_to(now, pid)
        row = running.no_inherited_channel(looked_at(now))
        assert row.state == "broken"
        assert "terminal" in row.told
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(leader)
    assert running.no_inherited_channel(looked_at(now)).state == "kept"


def test_a_process_without_a_terminal_is_fine(now, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "sandbox_of", lambda pid: Sandbox(top=pid, main=pid))
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(
        command, stdin=-1, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as holder:
        release_to(now, holder.pid)
        assert running.no_inherited_channel(looked_at(now)).state == "kept"
        holder.kill()
