"""What workers may ask for over the socket, what a run's key depends on, and what of it all the log keeps."""

from __future__ import annotations

import json
import os
import resource
import signal
from contextlib import contextmanager
from dataclasses import replace

import pytest
from house import SERVES, House

from rsc.cluster.sandbox.probe import hygiene, probe
from rsc.errors import ConfigError, GateRefused, IsolationRefused, ReviewMissing
from rsc.keys.envelope import new_envelope, run_kek_id, run_key_context
from rsc.release.agent import decision, leases
from rsc.release.agent.client import KeyClient, request_key
from rsc.release.agent.leases import Leases
from rsc.release.agent.request import KeyRequest
from rsc.release.agent.server import AgentServer

TRAIN = KeyRequest("train", "ada", data="posts", version=1)
PERSONAL = "Maria Huber, Lindenweg 7, was diagnosed on 3 March"


def add_run(house: House, name: str, **lineage) -> KeyRequest:
    """A run with that lineage; the request for its key."""
    kek_id = run_kek_id(period="2026-11")
    house.provider.create(kek_id, period="2026-11")
    context = run_key_context(name)
    envelope, key = new_envelope(house.provider, kek_id=kek_id, context=context, clock=house.clock)
    key.close()
    folder = house.workspace.runs / name
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"id": name, "lineage": lineage}))
    (folder / "key.json").write_text(envelope.to_json())
    house.add_run(name, lineage)
    return KeyRequest("checkpoint", "ada", run=name)


def version(name: str, number: int = 1) -> dict:
    return {"data": {"name": name, "version": number}}


OTHERS = {
    "another version": replace(TRAIN, version=2),
    "a version to review": KeyRequest("review", "ada", data="posts", version=2),
    "its own data, to review": KeyRequest("review", "ada", data="posts", version=1),
    "its own data, to evaluate": replace(TRAIN, purpose="evaluate"),
    "its own data, to export": replace(TRAIN, purpose="export"),
    "another data set": replace(TRAIN, data="diary"),
    "another run": KeyRequest("checkpoint", "ada", run="r2"),
    "another run, by its own data": KeyRequest("checkpoint", "ada", run="r2", data="posts", version=1),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_worker_that_asks_for_what_is_not_its_jobs_is_denied_and_the_log_says_so(house, server, what):
    house.add()
    house.add("diary")
    house.approve("diary")
    add_run(house, "r2", **version("posts"))
    asked = OTHERS[what]
    with pytest.raises(GateRefused):
        request_key(server.path, asked)
    (entry,) = house.logged("key_denied")
    named = {name: entry.get(name) for name in ("purpose", "data", "version", "run")}
    assert named == {name: getattr(asked, name) for name in named}
    assert "this" in entry["reason"] or "no key for the purpose" in entry["reason"]
    assert not house.logged("key_released")


def test_a_worker_gets_the_version_of_its_job_though_there_is_a_newer_one(house, server):
    house.add()
    request_key(server.path, replace(TRAIN, version=None)).close()
    (entry,) = house.logged("key_released")
    assert entry["version"] == 1


def test_a_run_can_be_asked_for_by_its_own_worker(house, server):
    request_key(server.path, add_run(house, "r1", **version("posts"))).close()
    assert house.logged("key_released")[0]["run"] == "r1"


@pytest.mark.parametrize(
    "lineage",
    [
        version("secret"),
        {**version("posts"), "mixed": [version("secret")]},
        {**version("posts"), "parent": {"run": "r0", **version("secret")}},
        {**version("posts"), "parent": {**version("posts"), "mixed": [version("secret")]}},
        {**version("posts"), "parent": version("gone")},
    ],
)
def test_the_key_of_a_run_needs_the_isolation_of_all_it_was_trained_on(house, server, lineage):
    house.add("secret", isolation="required")
    house.approve("secret")
    asked = add_run(house, "r1", **lineage)
    with pytest.raises(IsolationRefused):
        house.agent.release(asked)
    with pytest.raises(IsolationRefused):
        request_key(server.path, asked)
    with pytest.raises(IsolationRefused):
        request_key(server.path, replace(asked, data="posts", version=1))
    assert len(house.logged("key_denied")) == 3


def test_a_run_is_exported_as_its_own_data_allow(house):
    house.add(isolation="required")
    export = replace(add_run(house, "r1", **version("posts")), purpose="export")
    with pytest.raises(ReviewMissing):
        house.agent.release(export)
    house.approve()
    house.agent.release(export).close()


@pytest.mark.parametrize("lineage", [{}, {"data": "x"}, {"mixed": 7}, {"data": {}}, None, [], "x"])
@pytest.mark.parametrize("purpose", ["checkpoint", "export"])
def test_what_run_json_says_releases_nothing(house, purpose, lineage):
    """Only the log counts: emptied, garbled or swapped papers neither open a run nor change its rules."""
    house.add("secret", isolation="required", purpose=("train",))
    house.approve("secret")
    known = replace(add_run(house, "r1", **version("secret")), purpose=purpose)
    stranger = replace(known, run="r2")
    (house.workspace.runs / "r2").mkdir()
    for run in ("r1", "r2"):
        (house.workspace.runs / run / "run.json").write_text(json.dumps({"id": run, "lineage": lineage}))
    with pytest.raises(GateRefused, match=r"requires isolated workers|policy of secret allows train"):
        house.agent.release(known)
    with pytest.raises(GateRefused, match="does not say what run r2 was trained on"):
        house.agent.release(stranger)


def test_another_version_in_the_place_of_the_one_a_run_read_has_the_strictest_rules(house):
    house.add("posts")
    house.approve("posts")
    request = add_run(house, "r1", data={"name": "posts", "version": 1, "root_hash": "f" * 64})
    with pytest.raises(IsolationRefused, match="a data set that is gone"):
        house.agent.release(request)


def bad_report(detail: str, *, name: str = "tcp 192.0.2.1") -> dict:
    return {"is_ok": False, "findings": [{"name": name, "is_ok": False, "detail": detail}]}


def written(house) -> bytes:
    return b"".join(path.read_bytes() for path in house.workspace.audit.rglob("*") if path.is_file())


def test_no_words_of_a_worker_come_into_the_log(house, server):
    house.add("secret", isolation="required")
    house.approve("secret")
    add_run(house, "r1", **version("secret"))
    papers = json.dumps({"id": "r1", "lineage": version(PERSONAL)})
    (house.workspace.runs / "r1" / "run.json").write_text(papers)
    number = int.from_bytes(PERSONAL.encode())
    said = [
        replace(TRAIN, data=PERSONAL),
        replace(TRAIN, run=PERSONAL),
        replace(TRAIN, version=number),
        KeyRequest("checkpoint", "ada", run=PERSONAL),
        KeyRequest("checkpoint", "ada", run="r1", version=number),
        KeyRequest("checkpoint", "ada", run="r1"),
        *(
            replace(TRAIN, data=data, isolation=bad_report(PERSONAL, name=name), hygiene=clean)
            for data in ("posts", "secret")
            for name in ("tcp 192.0.2.1", f"tcp {PERSONAL}", PERSONAL)
            for clean in (None, {"findings": [{"name": "core dumps", "is_ok": False, "detail": PERSONAL}]})
        ),
    ]
    with KeyClient(server.path) as client:
        for request in said:
            try:
                client.end(client.release(request))
            except (GateRefused, ConfigError):
                continue
    server.end_overdue()
    assert len(house.logged("key_denied")) + len(house.logged("key_released")) == len(said)
    assert PERSONAL.encode() not in written(house)
    assert str(number).encode() not in written(house)
    assert {entry["data"] for entry in house.logged("key_denied") if "data" in entry} == {
        "unknown",
        "posts",
        "secret",
    }
    with pytest.raises(ConfigError):  # in this process, where nothing is served by a list
        house.agent.release(replace(TRAIN, data="no-such-set"))
    assert b"no-such-set" not in written(house)


def test_a_long_report_in_another_script_denies_nobody_else_a_record(house, server):
    house.add("secret", isolation="required")
    house.approve("secret")
    request = replace(TRAIN, data="secret", isolation=bad_report("\u00e9" * 10_000))
    with KeyClient(server.path) as client, pytest.raises(IsolationRefused, match="tcp"):
        client.release(request)
    (entry,) = house.logged("key_denied")
    assert entry["reason"] == "secret requires isolated workers and this one is not: tcp"


def test_the_findings_of_the_probe_are_known_by_name():
    measured = [finding.name for finding in probe().findings]
    known = decision._FINDINGS
    assert all(any(name == each or name.startswith(f"{each} ") for each in known) for name in measured)
    assert set(decision._NEEDED_HYGIENE) <= {finding.name for finding in hygiene().findings}


def test_a_line_that_nests_too_deep_ends_only_its_connection(house, server):
    with KeyClient(server.path) as client:
        client._connection.sendall(b"[" * 60_000 + b"\n")
        assert client._connection.recv(1) == b""
    request_key(server.path, TRAIN).close()


def test_an_error_nobody_thought_of_costs_one_answer(house, server, monkeypatch, capsys):
    with monkeypatch.context() as broken:
        broken.setattr(house.agent, "grant", lambda asked: 1 // 0)
        with pytest.raises(GateRefused, match="hung up"):
            request_key(server.path, TRAIN)
    assert "ZeroDivisionError" in capsys.readouterr().err
    request_key(server.path, TRAIN).close()


def test_endings_that_the_log_did_not_take_are_logged_later(house, server, monkeypatch):
    def fail(path, data):
        raise OSError(28, "No space left on device")

    with KeyClient(server.path) as client:
        held = client.release(TRAIN)
        with monkeypatch.context() as full:
            full.setattr(house.audit._disk, "append", fail)
            client.end(held)
            server.end_overdue()
        assert not house.logged("lease_ended")
        server.end_overdue()
    assert [entry["how"] for entry in house.logged("lease_ended")] == ["returned"]


@contextmanager
def sleeper():
    """A process that waits to be killed."""
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_holder_that_may_not_be_killed_keeps_no_other_from_it(monkeypatch):
    kill = leases.HolderProcess.kill

    def refuse(process):
        if process.pid == protected:
            raise PermissionError(1, "Operation not permitted")
        kill(process)

    monkeypatch.setattr(leases.HolderProcess, "kill", refuse)
    table = Leases()
    with sleeper() as protected, sleeper() as other:
        for number, pid in enumerate((protected, other)):
            table.add(number, request=TRAIN, pid=pid, expires_s=1.0)
        assert not table.take_ended(now_s=0.9)
        first, second = table.take_ended(now_s=1.0)
        assert "could not be killed: Operation not permitted" in first.how
        assert second.how == "expired"
        assert os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
    assert not table.take_ended(now_s=9.0)


def test_a_lease_whose_descriptor_is_above_1023():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"this user may open {hard} files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    low = [os.dup(0) for _ in range(1100)]
    try:
        table = Leases()
        with sleeper() as child:
            lease = table.add(1, request=TRAIN, pid=child, expires_s=5.0)
            assert lease.holder._fd > 1023
            assert not table.take_ended(now_s=0.0)
            os.kill(child, signal.SIGKILL)
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            assert [ended.how for ended in table.take_ended(now_s=0.0)] == ["gone"]
    finally:
        for fd in low:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("where", ["pidfd_open", "memfd_create"])
def test_a_key_that_cannot_be_handed_over_is_told_and_the_agent_goes_on(house, tmp_path, monkeypatch, where):
    house.add()
    house.approve()

    def fail(*arguments):
        raise OSError(24, "Too many open files")

    path = tmp_path / "agent.sock"
    options = {"clock": house.clock, "serves": SERVES, "carrier": "memfd"}
    with AgentServer(house.agent, socket_path=path, **options) as running:
        with monkeypatch.context() as full:
            full.setattr(os, where, fail)
            with pytest.raises(GateRefused, match="Too many open files"):
                request_key(path, TRAIN)
        running.end_overdue()
        assert house.logged("lease_ended")[0]["how"] == "not handed over"
        request_key(path, TRAIN).close()


def test_one_process_cannot_hold_keys_without_end(house, server, monkeypatch):
    monkeypatch.setattr("rsc.release.agent.server._MAX_LEASES", 2)
    with KeyClient(server.path) as client:
        held = [client.release(TRAIN) for _ in range(2)]
        with pytest.raises(GateRefused, match="holds 2 keys already"):
            client.release(TRAIN)
        client.end(held[0])
        client.release(TRAIN).key.close()
        held[1].key.close()
