"""`rsc audit`, `rsc keys` and `rsc verify` as a person types them."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from house import House
from test_agent import TRAIN

from rsc.cli import audit
from rsc.cli.main import run
from rsc.clock import SystemClock
from rsc.errors import KeyUnavailable
from rsc.release.agent.request import KeyRequest
from rsc.release.verify import checks
from rsc.store.staging import only_writer


@pytest.fixture
def lived_in(workspace, monkeypatch) -> House:
    """A workspace under the real clock, which the commands use, with one release in the log."""
    monkeypatch.setattr(checks, "_LISTEN_CODE", 'print(\'{"modules": 0, "attempts": []}\')')
    house = House(workspace, SystemClock())
    house.add()
    house.approve()
    house.agent.release(TRAIN).close()
    return house


def ask(capsys, *arguments: str, expect: int = 0) -> dict:
    capsys.readouterr()
    assert run([*arguments, "--json"]) == expect
    out = capsys.readouterr().out
    return json.loads(out)


def test_verify_tells_every_promise(lived_in, capsys):
    told = ask(capsys, "verify")
    assert told["is_kept"]
    assert {row["promise"] for row in told["promises"]} >= {
        "no plaintext at rest",
        "log intact",
        "files private",
        "run folders plain",
    }
    assert all(row["since"] for row in told["promises"])
    assert run(["verify"]) == 0
    assert "keys older than policy: 0" in capsys.readouterr().out


def test_verify_ends_with_1_when_a_promise_is_broken(lived_in, capsys):
    (lived_in.workspace.data / "diary.txt").write_text("dear diary")
    told = ask(capsys, "verify", expect=1)
    assert not told["is_kept"]
    assert [row["promise"] for row in told["promises"] if row["state"] != "kept"] == ["no plaintext at rest"]


def test_the_log_is_shown_by_data_set(lived_in, capsys):
    lived_in.audit.append("approve", data="talks")
    kinds = [record["kind"] for record in ask(capsys, "audit", "show", "--data", "posts")["records"]]
    assert kinds == ["import", "approve", "key_released"]
    assert len(ask(capsys, "audit", "show", "--last", "1")["records"]) == 1
    assert run(["audit", "show"]) == 0
    assert "key_released" in capsys.readouterr().out


def test_the_log_is_exported_verified_elsewhere_and_witnessed(lived_in, capsys, tmp_path):
    copy, witness = tmp_path / "copy", tmp_path / "witness.jsonl"
    assert run(["audit", "export", str(copy)]) == 0
    key = (copy / "log.vkey").read_text().strip()
    assert ask(capsys, "audit", "verify", "--log", str(copy), "--key", key)["is_intact"]
    assert run(["audit", "checkpoint", "--witness", str(witness)]) == 0
    assert capsys.readouterr().out.startswith("openrsc/")
    assert ask(capsys, "audit", "verify", "--witness", str(witness))["is_intact"]
    assert run(["audit", "verify", "--log", str(copy)]) == 2
    assert "needs the verifier key" in capsys.readouterr().err


def test_a_damaged_log_ends_with_1(lived_in, capsys):
    tail = lived_in.workspace.audit / "tail"
    tail.write_bytes(tail.read_bytes().replace(b'"user":"ada"', b'"user":"eve"'))
    told = ask(capsys, "audit", "verify", expect=1)
    assert told["problems"][0]["first"] == 3
    assert run(["audit", "verify"]) == 1
    assert "record 3" in capsys.readouterr().out


def test_keys_are_listed_and_rotated(lived_in, capsys):
    told = ask(capsys, "keys", "ls")
    assert [(key["kek_id"], key["opens"]) for key in told["keys"]] == [("data/posts/2026-11", ["posts 1"])]
    assert told["older_than_policy"] == 0
    assert ask(capsys, "keys", "rotate", "posts")["new"] == ["data/posts/2026-11.2"]
    told = ask(capsys, "keys", "ls")
    assert [key["state"] for key in told["keys"]] == ["destroyed", "active"]
    lived_in.agent.release(TRAIN).close()


def test_the_sweeper_ends_what_is_due(lived_in, capsys):
    lived_in.add("old", retention="1s")
    lived_in.clock.sleep(1.1)
    assert ask(capsys, "keys", "ls")["older_than_policy"] == 1
    with only_writer(lived_in.workspace.data / "old"):
        told = ask(capsys, "keys", "sweep", expect=1)
    assert [(item["data"], item["version"]) for item in told["postponed"]] == [("old", 1)]
    told = ask(capsys, "keys", "sweep")
    assert [item["name"] for item in told["expired"]] == ["old"]
    assert ask(capsys, "keys", "ls")["older_than_policy"] == 0
    with pytest.raises(KeyUnavailable):
        lived_in.agent.release(KeyRequest("train", "ada", data="old"))


def test_an_unknown_name_is_said(lived_in, capsys):
    assert run(["keys", "rotate", "nothing"]) == 2
    assert "no data set nothing" in capsys.readouterr().err


def test_watching_tells_only_what_changes(lived_in, capsys, monkeypatch):
    """Three more looks: nothing new, a promise broken, Ctrl-C."""
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            (lived_in.workspace.data / "diary.txt").write_text("dear diary")
        if len(looks) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(audit.time, "sleep", sleep)
    assert run(["verify", "--watch", "7"]) == 130
    told = capsys.readouterr().out
    assert looks == [7.0] * 4
    assert told.count("promise ") == 2
    assert "data/diary.txt is no encrypted container" in " ".join(told.split())


def test_every_byte_is_read_where_that_is_asked_for(lived_in, capsys):
    told = ask(capsys, "verify", "--read-data-subset", "1/1")
    assert [row["state"] for row in told["promises"] if row["promise"] == "bytes whole"] == ["kept"]
    shard = lived_in.workspace.data / "posts/v0001/train/000000000.rsc"
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    assert ask(capsys, "verify")["is_kept"]
    assert not ask(capsys, "verify", "--read-data", expect=1)["is_kept"]
    assert run(["verify", "--read-data", "--read-data-subset", "1/2"]) == 2
    assert run(["verify", "--read-data-subset", "half"]) == 2


def test_showing_the_newest_records_of_a_long_log_takes_no_more_memory(lived_in, capsys):
    def peak_bytes() -> int:
        tracemalloc.start()
        told = ask(capsys, "audit", "show", "--last", "2")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [entry["kind"] for entry in told["records"]] == ["probe"] * 2
        return peak

    peaks = []
    for _ in range(2):
        lived_in.audit.append_many({"kind": "probe"} for _ in range(1000))
        lived_in.audit.checkpoint()
        peaks.append(peak_bytes())
    assert peaks[1] < peaks[0] + 1000 * 100, "a record takes 400 bytes"
    assert run(["audit", "show", "--last", "-1"]) == 2
