"""Keys of checkpoints end too: after their month and the workspace's retention, with proof."""

from __future__ import annotations

import pytest

from rsc.errors import IntegrityError, KeyUnavailable
from rsc.keys.envelope import new_envelope, run_kek_id, run_key_context
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.run_keys import overdue_run_keys, sweep_run_keys
from rsc.release.verify.checks import VerifyContext as Checked
from rsc.release.verify.checks import keys_within_retention

DAY = 86400


def add_run(house, name: str, *, period: str = "2026-11") -> None:
    kek_id = run_kek_id(period=period)
    house.provider.create(kek_id, period=period)
    context = run_key_context(name)
    envelope, key = new_envelope(house.provider, kek_id=kek_id, context=context, clock=house.clock)
    key.close()
    folder = house.workspace.runs / name
    for part in ("checkpoints/step-1", "export"):
        (folder / part).mkdir(parents=True)
        (folder / part / "weights").write_bytes(bytes(100))
    (folder / "key.json").write_text(envelope.to_json())
    (folder / "run.json").write_text("{}")
    house.add_run(name, {})


def late(house) -> list[str]:
    found = overdue_run_keys(house.workspace, providers={"local": house.provider}, now=house.clock.now())
    return [item.kek_id for item in found]


def sweep(house):
    providers = {"local": house.provider}
    return sweep_run_keys(
        house.workspace, providers=providers, audit=house.audit, clock=house.clock, user="sweeper"
    )


def promise(house):
    providers = {"local": house.provider}
    return keys_within_retention(Checked(house.workspace, providers, house.audit, house.clock.now()))


def test_a_run_key_ends_a_year_after_its_month_with_its_checkpoints_and_without_its_exports(house):
    add_run(house, "one")
    add_run(house, "two")
    add_run(house, "young", period="2027-11")
    ask = KeyRequest("checkpoint", "ada", run="one")
    house.clock.advance((9 + 365) * DAY)  # 2027-11-30: the year after the end of November 2026 is not over
    assert not late(house)
    house.agent.release(ask).close()
    house.clock.advance(1 * DAY)
    assert late(house) == ["runs/2026-11"]
    assert promise(house).state == "broken"
    assert "runs/2026-11 of checkpoints should be gone" in promise(house).told
    (ended,) = sweep(house)
    assert (ended.runs, ended.opened_before, ended.freed_bytes) == (("one", "two"), 2, 200)
    with pytest.raises(KeyUnavailable, match="destroyed"):
        house.agent.release(ask)
    house.agent.release(KeyRequest("checkpoint", "ada", run="young")).close()
    assert not list(house.workspace.runs.glob("one/checkpoints"))
    assert list(house.workspace.runs.glob("one/export/weights"))
    assert list(house.workspace.runs.glob("young/checkpoints/*/weights"))
    assert house.logged("run_keys_expired")[0]["runs"] == ["one", "two"]
    assert promise(house).state == "kept"
    assert not sweep(house)


def test_the_workspace_says_how_long(house):
    add_run(house, "one")
    house.workspace.keys.mkdir(exist_ok=True, mode=0o700)
    (house.workspace.keys / "providers.toml").write_text('run_retention = "30d"\n')
    house.clock.advance(9 * DAY + 30 * DAY)
    assert not late(house)
    house.clock.advance(1 * DAY)
    assert late(house) == ["runs/2026-11"]


def test_nothing_is_deleted_while_a_run_still_opens(house, monkeypatch):
    """A provider that only says that it destroyed."""
    add_run(house, "one")
    house.clock.advance(400 * DAY)
    monkeypatch.setattr(house.provider, "destroy", lambda kek_id: None)
    with pytest.raises(IntegrityError, match="still opens"):
        sweep(house)
    assert list(house.workspace.runs.glob("one/checkpoints/*/weights"))
