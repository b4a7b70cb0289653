from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from house import SENTENCE, House
from power import PowerLoss, stop_at

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.errors import ConfigError, IntegrityError, KeyUnavailable
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.expire import expire
from rsc.release.lifecycle.retention import open_cached, overdue, sweep
from rsc.release.lifecycle.unused_keys import overdue_unused, sweep_unused
from rsc.release.verify.checks import VerifyContext as Checked
from rsc.release.verify.checks import keys_within_retention
from rsc.store.bulk.local import LocalStore
from rsc.store.cache.node_cache import NodeCache
from rsc.store.dataset import Dataset
from rsc.store.staging import list_unfinished, only_writer
from tests.ingest.bringing import bring_in
from tests.ingest.test_resume import SMALL, StopAfter


def end(house, name: str = "posts", **options):
    return expire(
        house.workspace,
        name,
        providers={"local": house.provider},
        audit=house.audit,
        user="ada",
        **options,
    )


def opens(house, name: str, version: int) -> bool:
    dataset = Dataset.open(house.workspace.data, name=name, version=version)
    try:
        with open_envelope(house.provider, dataset.envelope(), context=data_key_context(name)) as key:
            return SENTENCE in str(
                [bytes(columns["text"].values) for columns in dataset.split("train", key=key).iterate()]
            )
    except KeyUnavailable:
        return False


def test_expire_destroys_proves_deletes_and_logs(house):
    house.add()
    house.approve()
    backup = house.workspace.root / "backup"
    shutil.copytree(house.workspace.data, backup)
    assert opens(house, "posts", 1)
    ended = end(house)
    assert [attempt.opened for attempt in ended.before] == [True]
    assert [attempt.opened for attempt in ended.after] == [False]
    assert "was destroyed" in ended.after[0].told
    assert not list(house.workspace.data.rglob("*.rsc"))
    assert list(backup.rglob("*.rsc"))
    restored = Dataset.open(backup, name="posts")
    with pytest.raises(KeyUnavailable, match="destroyed"):
        open_envelope(house.provider, restored.envelope(), context=data_key_context("posts"))
    with pytest.raises(KeyUnavailable, match="destroyed") as refusal:
        house.agent.release(KeyRequest("train", "ada", data="posts"))
    assert refusal.value.exit_code == 3
    (entry,) = house.logged("data_expired")
    assert entry["opened_before"] == [True]
    assert entry["opened_after"] == [False]
    assert house.logged("key_destroyed")[0]["kek_id"] == "data/posts/2026-11"


def test_expire_can_be_done_again(house):
    house.add()
    end(house)
    again = end(house)
    assert [attempt.opened for attempt in again.before] == [False]


def test_a_provider_that_lies_about_destruction_is_caught_and_nothing_is_deleted(house, monkeypatch):
    """As a simulated key service does that still decrypts after deletion was scheduled."""
    house.add()
    info = house.provider.list()[0]
    monkeypatch.setattr(house.provider, "destroy", lambda kek_id: info)
    with pytest.raises(IntegrityError, match="still opens"):
        end(house)
    assert list(house.workspace.data.rglob("*.rsc"))
    assert not house.logged("data_expired")


def test_one_version_ends_and_another_under_the_same_key_lives_on(house):
    house.add()
    house.add()
    ended = end(house, version=1)
    assert ended.versions == (1,)
    assert not opens(house, "posts", 1)
    assert opens(house, "posts", 2)
    assert Dataset.open(house.workspace.data, name="posts").envelope().kek_id == "data/posts/2026-11.2"


def test_the_review_of_a_version_that_was_wrapped_anew_still_holds(house):
    house.add()
    house.add()
    house.approve()
    end(house, version=1)
    house.agent.release(KeyRequest("train", "ada", data="posts", version=2)).close()


def test_the_sweeper_ends_what_is_past_its_retention_and_nothing_else(house):
    house.add("short", retention="10d")
    house.add("long", retention="100d")
    providers = {"local": house.provider}
    assert not overdue(house.workspace, providers=providers, now=house.clock.now())
    house.clock.advance(10 * 86400)
    late = overdue(house.workspace, providers=providers, now=house.clock.now())
    assert [(item.name, item.kek_id) for item in late] == [("short", "data/short/2026-11")]
    swept = sweep(house.workspace, providers=providers, audit=house.audit, clock=house.clock, user="sweeper")
    assert [item.name for item in swept.ended] == ["short"]
    assert swept.postponed == ()
    assert not overdue(house.workspace, providers=providers, now=house.clock.now())
    assert opens(house, "long", 1)
    assert house.logged("data_expired")[0]["reason"] == "past its retention since 2026-12-01"


def test_the_sweeper_ends_keys_that_no_version_is_under(house):
    """As a stopped rotation or import leaves them; those of versions end with their proof."""
    end_of_key = house.clock.now() + timedelta(days=10)
    for name in ("posts", "gone"):
        house.provider.create(f"data/{name}/2026-11", period="2026-11", expires=end_of_key)
    house.add("posts")
    providers = {"local": house.provider}
    assert not overdue_unused(house.workspace, providers=providers, now=house.clock.now())
    house.clock.advance(10 * 86400)
    promised = keys_within_retention(Checked(house.workspace, providers, house.audit, house.clock.now()))
    assert promised.state == "broken"
    swept = sweep_unused(
        house.workspace, providers=providers, audit=house.audit, now=house.clock.now(), user="sweeper"
    )
    assert [key.kek_id for key in swept] == ["data/gone/2026-11"]
    states = {info.kek_id: info.state for info in house.provider.list()}
    assert states == {"data/gone/2026-11": "destroyed", "data/posts/2026-11": "active"}
    assert house.logged("key_destroyed")[0]["kek_id"] == "data/gone/2026-11"


def test_past_its_retention_a_version_is_gone_from_a_nodes_cache_and_refused(house, tmp_path):
    house.add(retention="30d")
    dataset = Dataset.open(house.workspace.data, name="posts")
    with open_envelope(house.provider, dataset.envelope(), context=data_key_context("posts")) as key:
        nodes = [NodeCache(tmp_path / node, limit_bytes=16 << 20, clock=house.clock) for node in "ab"]
        for node in nodes:
            split = open_cached(house.workspace.data, name="posts", cache=node).split("train", key=key)
            next(split.iterate())
            assert node.chunks.used_bytes() > 0
        house.clock.advance(31 * 86400)
        late = open_cached(house.workspace.data, name="posts", cache=nodes[0])
        with pytest.raises(KeyUnavailable, match="expired at"):
            next(late.split("train", key=key).iterate())
        nodes[1].sweep()  # nobody asks there any more
        assert [node.chunks.used_bytes() for node in nodes] == [0, 0]


def test_expire_empties_this_nodes_cache(house):
    house.add()
    house.add("other")
    cache = NodeCache(house.workspace.cache, limit_bytes=16 << 20, clock=house.clock)
    for name in ("posts", "other"):
        dataset = open_cached(house.workspace.data, name=name, cache=cache)
        with open_envelope(house.provider, dataset.envelope(), context=data_key_context(name)) as key:
            next(dataset.split("train", key=key).iterate())
    both = cache.chunks.used_bytes()
    end(house)
    assert 0 < cache.chunks.used_bytes() < both


def test_a_data_set_that_does_not_exist(house):
    with pytest.raises(ConfigError, match="no data set"):
        end(house, "nothing")
    assert not (house.workspace.data / "nothing").exists()


IMPORT = """
import sys
from pathlib import Path
from ingest.bringing import bring_in
from rsc.config import Workspace
class Wait:
    def update(self, **_):
        print("writing", flush=True)
        sys.stdin.readline()
    def finish(self):
        pass
bring_in(Workspace(Path(sys.argv[1])), sys.argv[2], progress=Wait())
"""


@pytest.fixture
def importing(tmp_path):
    """A workspace of real keys with version 1 of posts, and another process in the middle of version 2."""
    house = House(Workspace(tmp_path / "rsc"), SystemClock())
    source = tmp_path / "posts.jsonl"
    source.write_text(json.dumps({"id": 1, "text": SENTENCE}) + "\n")
    bring_in(house.workspace, source)
    command = [sys.executable, "-c", IMPORT, str(house.workspace.root), str(source)]
    tests = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=tests
    )
    with process:
        assert process.stdout.readline() == b"writing\n"
        yield house, process
        process.stdin.close()


def test_no_end_while_an_import_runs_and_its_version_opens(importing):
    """Both are under the key of this month: ended now, the second would be written for nobody."""
    house, process = importing
    for version in (1, None):
        with pytest.raises(ConfigError, match="import into posts") as refusal:
            end(house, version=version)
        assert "goes on when it is started again" in refusal.value.hint
    assert not house.logged("key_destroyed")
    process.stdin.close()
    assert process.wait() == 0
    end(house, version=1)
    assert not opens(house, "posts", 1)
    assert opens(house, "posts", 2)


def test_the_sweeper_ends_the_others_while_an_import_runs_and_names_it(house, capsys, monkeypatch):
    for name in ("a", "b", "c"):
        house.add(name, retention="10d")
    house.clock.advance(10 * 86400)
    told = {"providers": {"local": house.provider}, "audit": house.audit, "clock": house.clock, "user": "ada"}
    with only_writer(house.workspace.data / "b"):
        swept = sweep(house.workspace, **told)
    assert [item.name for item in swept.ended] == ["a", "c"]
    ((late, why),) = swept.postponed
    assert (late.name, late.version) == ("b", 1)
    assert "another import into b" in why
    assert [item.name for item in sweep(house.workspace, **told).ended] == ["b"]


def interrupted(tmp_path) -> tuple[House, Path]:
    """Version 1 of posts, and an import of version 2 under the same key that was stopped and can go on."""
    house = House(Workspace(tmp_path / "rsc"), SystemClock())
    source = tmp_path / "posts.jsonl"
    source.write_text("".join(json.dumps({"id": i, "text": f"{SENTENCE} {i}"}) + "\n" for i in range(400)))
    bring_in(house.workspace, source)
    with pytest.raises(KeyboardInterrupt):
        bring_in(house.workspace, source, **SMALL, progress=StopAfter(7))
    return house, source


def test_an_import_that_was_stopped_goes_on_after_the_end_of_a_version_under_its_key(tmp_path):
    house, source = interrupted(tmp_path)
    end(house, version=1)
    end(house, version=1)
    assert not opens(house, "posts", 1)
    assert bring_in(house.workspace, source, **SMALL).num_resumed > 0
    assert opens(house, "posts", 2)


def test_with_a_whole_data_set_goes_an_import_into_it_that_was_stopped(tmp_path):
    house, _ = interrupted(tmp_path)
    end(house)
    assert list_unfinished(house.workspace.data, "posts") == []
    assert not list(house.workspace.data.rglob("*.rsc"))
    assert not [info for info in house.provider.list() if info.state == "active"]


def test_a_version_that_ended_before_another_is_not_in_the_way_of_ending_it_again(house):
    house.add()
    house.add()
    end(house)
    house.add(period="2026-12")
    end(house, version=1)
    assert [info.kek_id for info in house.provider.list() if info.state == "active"] == ["data/posts/2026-12"]
    assert opens(house, "posts", 3)


STEPS: list[tuple[type, str]] = [
    (LocalKeyProvider, "destroy"),
    (AuditLog, "append"),
    (Dataset, "replace_envelope"),
    (LocalStore, "delete_folder"),
    (LocalStore, "delete"),
]


@pytest.mark.parametrize("is_after", [False, True])
def test_power_loss_at_any_step_never_leaves_a_readable_key_said_to_be_gone(tmp_path, clock, is_after):
    """And doing it again finishes, whatever had happened; the other version stays readable throughout."""
    number, num_steps = 0, 99
    while number < num_steps:
        number += 1
        house = House(Workspace(tmp_path / f"{is_after}-{number}"), clock)
        house.add()
        house.add()
        with pytest.MonkeyPatch.context() as patch:
            steps = stop_at(patch, number, steps=STEPS, is_after=is_after)
            try:
                end(house, version=1)
                num_steps = len(steps)
            except PowerLoss:
                pass
        again = House(house.workspace, clock)
        is_said = bool(again.logged("key_destroyed"))
        assert not (is_said and opens(again, "posts", 1)), (number, steps)
        assert opens(again, "posts", 2), (number, steps)
        done = end(again, version=1)
        assert [attempt.opened for attempt in done.after] == [False]
        assert not opens(again, "posts", 1)
        assert opens(again, "posts", 2)
        assert again.logged("data_expired")
    assert number >= 7
