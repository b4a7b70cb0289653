"""Runs of data that requires isolation: what their keys open, from a start to the export."""

from __future__ import annotations

from typing import Any

import pytest

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.cluster.sandbox.wrap import wrap
from rsc.errors import IsolationRefused
from rsc.review.policy import Policy
from tests.train.conftest import topics

STRICT = Policy(single_person=True, required_approvers=1, isolation="required")
MILD = Policy(single_person=True, required_approvers=1, isolation="none")


@pytest.mark.slow
def test_a_run_and_its_child_train_isolated_and_are_read_from_their_export(fresh_rsc: Any) -> None:
    rsc = fresh_rsc
    try:
        wrap(["true"], level="required")
    except IsolationRefused as error:
        pytest.skip(error.message)
    rsc.add_text(topics(20), name="strict", rules=STRICT, approved=False)
    rsc.approve(name="strict", rules=STRICT)
    rsc.add_text(topics(20), name="topics", by="bob")
    parent = rsc.train("data.name=strict", "train.steps=4", "parallel.workers=1")["run"]
    child = rsc.train("train.steps=4", "parallel.workers=1", f"model.init_from={parent}")["run"]
    rsc.add_text(topics(20), name="mild", rules=MILD, by="carol")
    second = ("data.name=mild", "train.steps=4", "parallel.workers=1", f"model.init_from={parent}")
    mild = rsc.train(*second)["run"]
    (started,) = rsc.events_of(mild, "driven")
    assert started["isolated"], "its own data asks for none, that of its parent does"
    for run in (parent, child, mild):
        told = rsc.run("generate", run, "--bytes", "4", expect=3)["stderr"]
        assert "IsolationRefused: strict requires isolated workers" in told
        exported = rsc.run("runs", "export", run, "--json")["path"]
        rsc.run("generate", exported, "--bytes", "4", "--json")
    log = AuditLog.open(rsc.workspace.audit, clock=SystemClock())
    denied = [entry for entry in log.entries() if entry["kind"] == "key_denied"]
    assert [entry["run"] for entry in denied] == [parent, child, mild]
