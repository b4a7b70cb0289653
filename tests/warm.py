"""A process that has torch and RSC imported and forks commands, so that a test waits for the command alone.

Importing torch with its distributed parts takes about 3 s of CPU time, most of what many commands need. A
command is a process of its own all the same: pid, folder, environment, standard streams, exit code and
signals are its own, and it starts where `python -m MODULE` does.

Not covered: what a command imports, and that a fresh interpreter can; tests/cli starts those.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    *("rsc.api.exports", "rsc.cli.data.verbs", "rsc.cli.eval", "rsc.cli.runs", "rsc.cli.train"),
    "tests.parallel.job",  # torch, and what a rank needs of it
)
FORK = multiprocessing.get_context("fork")
PATIENCE_S = 1800.0  # a command that should end: on a busy machine


class Command:
    """A command that was started: what `subprocess.Popen` offers, as far as tests use it."""

    def __init__(self, *, pid: int, out: int, err: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(err)
        self._status = status

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float = PATIENCE_S) -> int:
        """Its exit code. Raises TimeoutError."""
        if self.returncode is None:
            self._status.settimeout(timeout)
            word = self._status.recv(64)
            assert word, "the process that forks commands ended"
            self._status.close()
            self.returncode = int(word)
        return self.returncode

    def communicate(self, timeout: float = PATIENCE_S) -> tuple[str, str]:
        """The rest of its output, when it and whoever writes there has ended. Raises TimeoutError."""
        with self.stdout, self.stderr, ThreadPoolExecutor(2) as readers:
            out, err = readers.submit(self.stdout.read), readers.submit(self.stderr.read)
            try:
                texts = out.result(timeout), err.result(timeout)
                self.wait(timeout)
            except TimeoutError:
                self.kill()
                raise
        return texts

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Warm:
    """The process that forks. It ends when this one does."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.warm", str(theirs.fileno())]
            subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def start(
        self, module: str, *arguments: str, environment: Mapping[str, str], folder: Path | None = None
    ) -> Command:
        """Run `python -m module arguments` there."""
        request = {
            "module": module,
            "arguments": arguments,
            "environment": dict(environment),
            "folder": str(folder or Path.cwd()),
        }
        body = json.dumps(request).encode()
        status, status_theirs = socket.socketpair()
        (out, out_theirs), (err, err_theirs) = os.pipe(), os.pipe()
        given = [out_theirs, err_theirs, status_theirs.detach()]
        socket.send_fds(self._channel, [len(body).to_bytes(8, "big")], given)
        self._channel.sendall(body)
        for each in given:
            os.close(each)
        return Command(pid=int(status.recv(64)), out=out, err=err, status=status)

    def run(
        self, module: str, *arguments: str, environment: Mapping[str, str], folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The same and wait for its end."""
        command = self.start(module, *arguments, environment=environment, folder=folder)
        out, err = command.communicate()
        return subprocess.CompletedProcess([module, *arguments], command.wait(), out, err)


@cache
def warm() -> Warm:
    """From the first test that wants it to the end of the tests."""
    return Warm()


def main(channel: socket.socket) -> None:
    """Fork a command for each request; tell who asked its pid, and its exit code when it has ended."""
    for module in MODULES:
        import_module(module)
    gc.freeze()
    running: dict[int, tuple[BaseProcess, socket.socket]] = {}
    while True:
        ready = wait([channel, *running])
        for sentinel in running.keys() & set(ready):
            process, asker = running.pop(sentinel)
            process.join()
            with asker:
                asker.sendall(str(process.exitcode).encode())
        if channel in ready:
            header, descriptors, _, _ = socket.recv_fds(channel, 8, 3)
            if not header:
                return
            request = json.loads(receive(channel, int.from_bytes(header, "big")))
            out, err, status = descriptors
            process = FORK.Process(target=become, args=(request,), kwargs={"out": out, "err": err})
            process.start()
            os.close(out)
            os.close(err)
            asker = socket.socket(fileno=status)
            running[process.sentinel] = (process, asker)
            asker.sendall(str(process.pid).encode())


def receive(channel: socket.socket, size: int) -> bytes:
    body = b""
    while len(body) < size:
        body += channel.recv(size - len(body))
    return body


def become(request: dict[str, Any], *, out: int, err: int) -> None:
    """Be the command: what a fresh interpreter begins with, and the modules are already there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    for descriptor, number in ((out, 1), (err, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    sys.argv[1:] = request["arguments"]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
