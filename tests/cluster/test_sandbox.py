"""The sandbox and the probe that measures it, for each way in, and for each way in which it can be broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from rsc.cluster.launch.launcher import LocalLauncher
from rsc.cluster.sandbox import wrap as sandbox
from rsc.cluster.sandbox.wrap import wrap
from rsc.errors import IsolationRefused

PROBE = """
import json, sys
from pathlib import Path
from rsc.hardening import harden_process
from rsc.cluster.sandbox.probe import hygiene, probe
harden_process()
inside = probe(allowed_sockets=list(map(Path, sys.argv[1:])))
print(json.dumps({"isolation": inside.to_json(), "hygiene": hygiene().to_json()}))
"""


def run(command, **options) -> subprocess.CompletedProcess[str]:
    wrapped = wrap(command, **options)
    return subprocess.run(wrapped.argv, env=wrapped.environment, capture_output=True, text=True, timeout=180)


def findings(done: subprocess.CompletedProcess[str], part: str = "isolation") -> dict[str, bool]:
    assert done.returncode == 0, done.stderr
    return {f["name"]: f["is_ok"] for f in json.loads(done.stdout)[part]["findings"]}


@pytest.fixture(params=["bwrap", "unshare"])
def method(request, tmp_path):
    if request.param == "bwrap" and shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt install bubblewrap)")
    if shutil.which("unshare") is None:
        pytest.skip("the `unshare` command is not installed (Linux, util-linux)")
    other = subprocess.run(["unshare", "-Urnpf", "--mount-proc", "true"], capture_output=True, text=True)
    if other.returncode:
        pytest.skip(f"this kernel gives this user no namespaces: {other.stderr.strip()}")
    return request.param


def test_inside_everything_is_closed(method, tmp_path):
    done = run([sys.executable, "-c", PROBE], level="required", writable=[tmp_path], methods=(method,))
    assert all(findings(done).values()), done.stdout
    assert findings(done, "hygiene")["core dumps"]
    assert findings(done, "hygiene")["memory is private"]


def test_inside_loopback_works(method, tmp_path):
    code = (
        "import socket; s = socket.create_server(('127.0.0.1', 0));"
        "socket.create_connection(s.getsockname()); print('met')"
    )
    assert (
        run([sys.executable, "-c", code], level="required", writable=[tmp_path], methods=(method,)).stdout
        == "met\n"
    )


def test_only_writable_folders_can_be_written(method, tmp_path):
    shown, hidden, written = tmp_path / "shown", tmp_path / "hidden", tmp_path / "run"
    for folder in (shown, hidden, written):
        folder.mkdir()
        (folder / "file").write_text("here")
    script = f"cat {shown}/file {hidden}/file; for f in {written} {shown} /usr; do echo new > $f/new; done"
    done = run(
        ["sh", "-c", script], level="required", writable=[written], readable=[shown], methods=(method,)
    )
    assert done.stdout == "here"
    assert "hidden/file" in done.stderr
    assert (written / "new").read_text() == "new\n"
    assert not (shown / "new").exists()
    assert "/usr/new" in done.stderr


def test_a_file_to_read_in_a_writable_folder_cannot_be_changed_or_replaced(method, tmp_path):
    (tmp_path / "paper").write_text("as it was")
    script = "echo new > paper; rm -f paper; echo new > other; mv -f other paper; ls"
    options = {"level": "required", "writable": [tmp_path], "methods": (method,)}
    done = run(["sh", "-c", script], readable=[tmp_path / "paper"], **options)
    assert done.stdout.split() == ["other", "paper"], done.stderr
    assert (tmp_path / "paper").read_text() == "as it was"


def test_a_socket_outside_cannot_be_reached_and_a_shown_one_is_reported(method, tmp_path):
    written = tmp_path / "run"
    written.mkdir()
    outside, shown = tmp_path / "outside.sock", written / "shown.sock"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(outside))
        one.listen()
        other.bind(str(shown))
        other.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(outside)!r})"
        tried = run([sys.executable, "-c", code], level="required", writable=[written], methods=(method,))
        assert "FileNotFoundError" in tried.stderr
        strict = [sys.executable, "-c", PROBE]
        options = {"level": "required", "writable": [written], "methods": (method,)}
        assert not findings(run(strict, **options))["unix sockets"]
        assert findings(run([*strict, str(shown)], **options))["unix sockets"]


def test_exit_code_and_signals_pass_through(method, tmp_path):
    options = {"level": "required", "writable": [tmp_path], "methods": (method,)}
    assert run(["sh", "-c", "exit 75"], **options).returncode == 75
    wrapped = wrap(
        ["sh", "-c", "trap 'exit 33' TERM; echo up > ready; while :; do sleep 0.05; done"], **options
    )
    process = subprocess.Popen(wrapped.argv, env=wrapped.environment)
    while not (tmp_path / "ready").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 33


def test_when_the_launcher_is_killed_nothing_inside_survives(method, tmp_path):
    script = "date > beat; echo up > ready; while :; do date +%s%N > beat; sleep 0.02; done"
    wrapped = wrap(["sh", "-c", script], level="required", writable=[tmp_path], methods=(method,))
    process = subprocess.Popen(wrapped.argv, env=wrapped.environment)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    looks: list[int] = []
    while len(looks) < 100:
        time.sleep(0.1)
        looks.append((tmp_path / "beat").stat().st_mtime_ns)
        if len(looks) > 5 and len(set(looks[-5:])) == 1:
            return
    pytest.fail("something inside still writes")


def test_credentials_stay_outside(method, tmp_path):
    environment = {
        **os.environ,
        "AWS_SECRET_ACCESS_KEY": "s",
        "VAULT_TOKEN": "t",
        "HF_TOKEN": "h",
        "LANG": "C",
    }
    done = run(["env"], level="required", writable=[tmp_path], methods=(method,), environment=environment)
    names = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "LANG" in names
    assert not names & {"AWS_SECRET_ACCESS_KEY", "VAULT_TOKEN", "HF_TOKEN"}


NEEDED = ("PATH", "LANG", "PYTHONPATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "NCCL_DEBUG", "TORCH_LOGS")
SECRET = (
    *(
        "DATABASE_URL",
        "GITHUB_PAT",
        "MY_password",
        "db_Password",
        "SSH_AUTH_SOCK",
        "DBUS_SESSION_BUS_ADDRESS",
    ),
    *("http_proxy", "HTTPS_PROXY", "VAULT_ADDR", "KUBECONFIG", "NETRC", "SESSION_COOKIE", "anything"),
    *("TORCH_HUB_TOKEN", "RSC_KEYS_PASSPHRASE", "PYTHON_KEYRING_PASSWORD", "NCCL_SECRET", "RSC_TOKEN_PIN"),
)


@pytest.mark.parametrize("level", ["required", "best-effort", "none"])
def test_workers_get_the_variables_they_need_and_no_others(tmp_path, level, monkeypatch):
    if level != "required":
        monkeypatch.setattr(sandbox, "_try", lambda argv, environment: "no")
    else:
        monkeypatch.setattr(sandbox, "_try", lambda argv, environment: None)
    environment = dict.fromkeys((*NEEDED, *SECRET), "x")
    wrapped = wrap(["true"], level=level, writable=[tmp_path], environment=environment)
    assert wrapped.environment.keys() - {"HOME", "TMPDIR"} == set(NEEDED)


LOOK_FOR_CHANNELS = """
import fcntl, json, os, termios
found = []
for pid in (1, os.getppid()):
    for number in range(8):
        try:
            os.close(os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK))
            found.append(f"{pid}/{number}")
        except OSError:
            pass
for path in ("/dev/tty", "/dev/console"):
    try:
        os.close(os.open(path, os.O_RDWR))
        found.append(path)
    except OSError:
        pass
for number in range(3):
    try:
        fcntl.ioctl(number, termios.TIOCSTI, b"x")
        found.append(f"TIOCSTI {number}")
    except OSError:
        pass
open_now = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
found += [f"inherited {name}" for name in open_now if os.path.exists(f"/proc/self/fd/{name}")]
print(json.dumps(found))
"""


def test_nothing_inside_opens_the_pipes_of_process_1_or_a_terminal(method, tmp_path):
    """Also where the person who trains sits at one, and somebody left a descriptor open for children."""
    terminal, theirs = os.openpty()
    left, right = os.pipe()
    os.set_inheritable(right, True)
    wrapped = wrap(
        [sys.executable, "-c", LOOK_FOR_CHANNELS], level="required", writable=[tmp_path], methods=(method,)
    )
    launcher = LocalLauncher(methods=(method,))
    with launcher.start(wrapped) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.read()) == []
    for fd in (terminal, theirs, left, right):
        os.close(fd)


def test_privileges_cannot_come_back(method, tmp_path):
    code = "import ctypes as c; l = c.CDLL(None, use_errno=True); print(l.unshare(0x10000000), c.get_errno())"
    done = run([sys.executable, "-c", code], level="required", writable=[tmp_path], methods=(method,))
    assert done.stdout.split() == ["-1", "1"]


def test_required_is_refused_where_nothing_works(tmp_path):
    with pytest.raises(IsolationRefused, match="requires isolation") as refusal:
        wrap(["true"], level="required", writable=[tmp_path], methods=())
    assert refusal.value.exit_code == 3


def test_best_effort_says_why_and_still_hardens(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "_try", lambda argv, environment: "unshare: Operation not permitted")
    wrapped = wrap([sys.executable, "-c", PROBE], level="best-effort", writable=[tmp_path])
    assert not wrapped.is_isolated
    assert "unshare: Operation not permitted" in wrapped.reason
    done = subprocess.run(
        wrapped.argv,
        env=wrapped.environment,
        capture_output=True,
        text=True,
        start_new_session=True,  # as the controller starts it
    )
    found = findings(done)
    assert found["privileges"]
    assert not found["interfaces"] or not found["routes"] or found["tcp 192.0.2.1"]
    assert findings(done, "hygiene")["core dumps"]


def test_a_program_that_does_not_exist_is_said(method, tmp_path):
    done = run(["no-such-program"], level="required", writable=[tmp_path], methods=(method,))
    assert done.returncode == 127
    assert "cannot start no-such-program" in done.stderr
