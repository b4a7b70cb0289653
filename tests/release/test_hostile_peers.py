"""Hostile requests cost whoever sends them and nobody else: no answers, no time, no room in the log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from house import require_namespaces

from rsc.cluster.sandbox.wrap import wrap
from rsc.release.agent import sandboxes
from rsc.release.agent.denials import Denials

RELEASE = {"op": "release", "request": {"purpose": "train", "user": "x", "data": "posts", "version": 1}}
DENIED = {"op": "release", "request": {"purpose": "export", "user": "x", "data": "posts", "version": 1}}


def connect(server) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(server.path))
    return connection


def ask(connection: socket.socket, message) -> bytes:
    connection.sendall((message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n")
    return answer(connection)


def answer(connection: socket.socket) -> bytes:
    data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 8)
    for fd in fds:
        os.close(fd)
    return data


def _release(**request) -> bytes:
    return json.dumps({"op": "release", "request": {**RELEASE["request"], **request}}).encode()


HOSTILE = (
    *(
        b'{"op":"end","lease":%s}' % number
        for number in (b"1e999", b"NaN", b"-1", b"true", b'"1"', b"9" * 4000)
    ),
    b'{"op":"renew","lease":1e999,"request":%s}' % json.dumps(RELEASE["request"]).encode(),
    b'{"op":"end"}',
    b"[" * 30_000 + b"]" * 30_000,
    _release(isolation={"findings": [{"name": "x", "is_ok": False, "detail": [[[[]]]]}]}),
    b'{"op":"release","request":{"purpose":"train","user":"x","data":"posts","version":1,"isolation":{"a":%s}}}'
    % (b"[" * 900 + b"]" * 900),
    _release(isolation={"findings": "x"}),
    _release(hygiene={"findings": [{"name": []}]}),
    _release(user="\ud800", data="\ud800"),
    _release(version=True),
    _release(version=10**300),
    _release(data="../../x\0"),
    b'{"op":[1]}',
    b'{"op":"release","request":null}',
    bytes(range(128, 256)),
    b"\0" * 70_000,
)


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_others_of_the_same_batch_are_answered(server, line):
    peers = [connect(server) for _ in range(4)]
    with server._agent._audit._commit_lock:  # the agent stands still, so that the next round has all of these
        peers[0].sendall(json.dumps(RELEASE).encode() + b"\n")
        time.sleep(0.05)
        for number, peer in enumerate(peers[1:]):
            with contextlib.suppress(OSError):
                peer.sendall((line if number == 1 else json.dumps(RELEASE).encode()) + b"\n")
    for peer in (peers[0], peers[1], peers[3]):
        assert json.loads(answer(peer))["ok"]
    for peer in peers:
        peer.close()


def lingering(seconds: int) -> tuple[socket.socket, ...]:
    """A socket with unread bytes whose last close takes that long."""
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    receiver, _ = listener.accept()
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
    sender.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(b"x" * 65536)
    sender.setblocking(True)
    return sender, receiver, listener


@pytest.mark.parametrize("line", [b'{"op":"end","lease":0}\n', b"{nonsense\n", b"x"])
@pytest.mark.parametrize("is_behind", [False, True], ids=["with", "behind"])
def test_a_passed_socket_whose_close_takes_long_stalls_nobody(server, line, is_behind):
    sender, receiver, listener = lingering(30)
    hostile, victim = connect(server), connect(server)
    if is_behind:  # never received: the agent has hung up by then
        hostile.sendall(b"{nonsense\n")
    with contextlib.suppress(OSError):
        socket.send_fds(hostile, [line], [sender.fileno()])
    threading.Thread(target=sender.close, daemon=True).start()  # waits too, where the agent was faster
    victim.settimeout(10)  # far below the linger time
    for _ in range(3):
        time.sleep(0.05)
        assert json.loads(ask(victim, RELEASE))["ok"]
    receiver.close()
    listener.close()


def test_idle_connections_lock_nobody_out(server):
    holder = connect(server)
    assert json.loads(ask(holder, RELEASE))["ok"]
    idle = [connect(server) for _ in range(300)]
    late = connect(server)
    assert json.loads(ask(late, RELEASE))["ok"]
    assert json.loads(ask(holder, RELEASE))["ok"], "who holds a key keeps its place"
    for each in (*idle, late, holder):
        each.close()


def test_a_flood_of_refusals_is_counted(server, house):
    peer, before = connect(server), len(list(house.audit.entries()))
    for number in range(300):
        assert not json.loads(ask(peer, DENIED if number % 2 else json.loads(_release(data=f"x{number}"))))[
            "ok"
        ]
    assert len(list(house.audit.entries())) - before <= 20
    server._agent.log_repeated(all_of_it=True)
    after = list(house.audit.entries())[before:]
    assert sum(entry.get("times", 1) for entry in after if entry["kind"] == "key_denied") == 300
    peer.close()


def test_refusals_of_more_kinds_than_there_are_do_not_fill_the_log(clock):
    denials = Denials()
    asked = [{"kind": "key_denied", "data": f"d{n}", "reason": "no"} for n in range(500)]
    written = sum(denials.is_first(record, now_s=0.0) for record in asked * 3)
    assert written == 64 + 16
    assert not denials.take(now_s=59.0)
    counted = denials.take(now_s=61.0)
    assert len(counted) == 65
    assert written + sum(record["times"] for record in counted) == 1500
    assert denials.is_first(asked[0], now_s=62.0)


FORKS = """
import json, os, signal, socket, sys, time
def beat():
    while True:
        with open("beat", "a") as file:
            file.write("x")
        time.sleep(0.05)
if os.fork() == 0:  # the rank, below the supervisor that lives on
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[1])
    line.sendall(sys.argv[2].encode() + b"\\n")
    answer = json.loads(socket.recv_fds(line, 1 << 16, 4)[0])
    assert answer["ok"], answer
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.fork()
            beat()
    print("forked", flush=True)
    time.sleep(0.3)
    os._exit(9)
os.wait()
time.sleep(60)
"""


@pytest.mark.parametrize("method", ["bwrap", "unshare", "open"])
def test_a_lease_ends_what_its_holder_forked(server, tmp_path, method):
    """Grandchildren in sessions of their own, each with a child, outlive the worker until the agent looks."""
    require_namespaces()
    folder = tmp_path / "run"
    folder.mkdir()
    options = {"level": "required", "methods": (method,)}
    if method == "open":
        options = {"level": "best-effort", "methods": ()}
    wrapped = wrap(
        [sys.executable, "-c", FORKS, str(server.path), json.dumps(RELEASE)],
        writable=[folder],
        readable=[server.path.parent],
        **options,
    )
    process = subprocess.Popen(
        wrapped.argv,
        env=wrapped.environment,
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "forked\n"
        ended = []
        while not ended and process.poll() is None:
            time.sleep(0.1)
            server.end_overdue()
            ended = [e["how"] for e in server._agent._audit.entries() if e["kind"] == "lease_ended"]
        assert ended[0].startswith("gone; ")
        assert "left behind" in ended[0]
        size = (folder / "beat").stat().st_size
        time.sleep(0.3)
        assert (folder / "beat").stat().st_size == size, "something still runs with the key"
        assert process.poll() is None, "the supervisor and its sandbox live on, to start the rank again"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # without a sandbox nothing else ends the supervisor
        process.wait()
        process.stdout.close()


def test_no_child_can_be_put_beside_its_maker(tmp_path):
    require_namespaces()
    call = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    code = (
        "import ctypes as c; l = c.CDLL(None, use_errno=True); "
        f"print(l.syscall({call}, 0x8011, 0, 0, 0, 0), c.get_errno())"
    )
    wrapped = wrap([sys.executable, "-c", code], level="required", writable=[tmp_path], methods=("unshare",))
    done = subprocess.run(wrapped.argv, env=wrapped.environment, capture_output=True, text=True)
    assert done.stdout.split() == ["-1", "1"], done


def test_a_process_that_nothing_of_ours_is_above_has_no_sandbox():
    assert sandboxes.sandbox_of(os.getpid()) is None
    assert sandboxes.sandbox_of(1 << 22) is None


def test_the_launchers_of_other_nodes_are_no_orphans_of_one():
    """A job of several nodes: controller of the job -> launcher of each node -> its agent. What the end of a
    lease looks through is the launcher of its own node."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as controller:
        controller.stdout.readline()
        (launcher,) = sandboxes._children(controller.pid)
        (agent,) = sandboxes._children(launcher)
        assert sandboxes.sandbox_of(agent) == sandboxes.Sandbox(top=controller.pid, main=launcher)
        assert sandboxes.sandbox_of(agent, controllers=1) == sandboxes.Sandbox(top=launcher, main=agent)
        controller.communicate("\n")
