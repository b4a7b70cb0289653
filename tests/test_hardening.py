"""Every process that can hold plaintext or keys: no core dump, and no other process of its user reads it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rsc.cli.main import VERBS
from rsc.ingest.workers import _start

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc are of Linux")

MEASURE = """
import ctypes, resource
def measured():
    return [ctypes.CDLL(None).prctl(3), *resource.getrlimit(resource.RLIMIT_CORE)]
"""
"""PR_GET_DUMPABLE and the core limits of the process that runs it."""

HARDENED = [0, 0, 0]


def run_measured(code: str, *arguments: str) -> str:
    """Standard output of a program that begins with the highest core limit there is."""
    raise_limit = "resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)"
    command = [sys.executable, "-c", f"{MEASURE}\n{raise_limit}\n{code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_verb_is_hardened() -> None:
    """Each is forked from one process that has the command line imported, and measures itself at its end."""
    code = """
import json, os, sys
import rsc.cli.main as command
for verb in sys.argv[1:]:
    if os.fork() == 0:
        devnull = os.open(os.devnull, os.O_WRONLY); keep = os.dup(1); os.dup2(devnull, 1); os.dup2(devnull, 2)
        try: command.main([verb, "--help"])
        except SystemExit: pass
        os.write(keep, (json.dumps([verb, measured()]) + "\\n").encode())
        os._exit(0)
    os.wait()
"""
    lines = run_measured(code, *VERBS).splitlines()
    assert dict(json.loads(line) for line in lines) == dict.fromkeys(VERBS, HARDENED)


WORKERS = {
    "scan pool": """
from rsc.review.scanner.pool import ScanPool
if __name__ == "__main__":
    with ScanPool(1, engine="re") as pool:
        print(pool._executor.submit(eval, MEASURED).result())
""",
    "library": """
from rsc.keys.secret import SecretKey
if __name__ == "__main__":
    SecretKey.generate().close()
    print(measured())
""",
    "supervisor and its ranks": """
import os, rsc.train.node as node, types, sys
from rsc.runs.node_job import NodeJob
sys.modules["rsc.train.worker"] = types.SimpleNamespace(work=int)
node.supervise = lambda run, **how: 0
node.start(NodeJob(run=".", data=".", recipe={"train": {}}, workers=1, socket="").to_json())
if os.fork() == 0:
    print(measured(), flush=True)
    os._exit(0)
os.wait()
""",
    "mover": """
import os, rsc.store.mover as mover
mover.MoverJob.from_json = lambda text: print(measured(), flush=True) or os._exit(0)
mover.main("{}", descriptor=0)
""",
}


@pytest.mark.parametrize("kind", WORKERS)
def test_every_kind_of_worker_is_hardened(kind: str) -> None:
    measured = "[__import__('ctypes').CDLL(None).prctl(3), *__import__('resource').getrlimit(4)]"
    code = f"MEASURED = {measured!r}\n{WORKERS[kind]}"
    assert json.loads(run_measured(code)) == HARDENED


def test_the_worker_of_an_import_is_hardened() -> None:
    """Its first part would be read after the plan came: the process is measured from outside before that."""
    plan: Any = SimpleNamespace(source=SimpleNamespace(files=list), policy=SimpleNamespace(models=()))
    worker = _start(plan)
    limits = ["", ""]
    for _ in range(2000):
        lines = Path(f"/proc/{worker.process.pid}/limits").read_text().splitlines()
        limits = next(line.split()[4:6] for line in lines if line.startswith("Max core"))
        if limits == ["0", "0"]:
            break
        time.sleep(0.01)
    owner = Path(f"/proc/{worker.process.pid}/environ").stat().st_uid
    worker.process.kill()
    worker.process.wait()
    worker.connection.close()
    assert (limits, owner) == (["0", "0"], 0)  # root owns what is not dumpable


def test_an_import_that_is_quit_leaves_no_core(tmp_path: Path) -> None:
    source = tmp_path / "posts.jsonl"
    source.write_text('{"text": "a line of a post that nobody else should read"}\n' * 600_000)
    here = tmp_path / "here"
    here.mkdir()
    child = os.fork()
    if child == 0:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        os.chdir(here)
        os.environ["RSC_HOME"] = str(tmp_path / "home")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        importing = ["-m", "rsc", "data", "import", str(source), "--name", "posts", "--processes", "1"]
        os.execv(sys.executable, [sys.executable, *importing])
    for _ in range(3000):
        if (tmp_path / "home" / "data" / "posts").exists():  # the key is there, records are being read
            break
        time.sleep(0.01)
    os.kill(child, signal.SIGQUIT)
    status = os.waitpid(child, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGQUIT, "it ended before it was quit"
    assert not os.WCOREDUMP(status)
    assert list(here.iterdir()) == []
