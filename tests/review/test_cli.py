from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsc.cli.main import run
from rsc.review.benchmark.synthetic import write_planted


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert run(["review", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_score_prints_rates_and_what_is_not_looked_for(tmp_path: Path, capsys):
    _, truth = write_planted(tmp_path, count=200, seed=4)
    facts = printed(capsys, "score", str(truth))
    assert facts["records"] == 200
    recall = facts["overall"]["recall"]
    assert recall["low"] < recall["value"] <= recall["high"]
    assert set(facts["types"]["email"]) == {"recall", "partial", "typed", "precision"}
    assert "names of persons" in facts["not_looked_for"]
    assert run(["review", "score", str(truth)]) == 0
    shown = capsys.readouterr().out
    assert "not looked for: names of persons" in shown
    assert "partly found, which counts as a miss: " in shown
    assert run(["review", "score", str(truth), "--by", "language"]) == 2
    assert "no record of the corpus names its language" in capsys.readouterr().err
    corpus = tmp_path / "languages.jsonl"
    corpus.write_text('{"text": "tel 2125550134", "spans": [[4, 14, "phone"]], "language": "en"}\n')
    assert run(["review", "score", str(corpus), "--by", "language"]) == 0
    assert "en" in capsys.readouterr().out


def test_scan_shows_shapes_and_never_the_values(tmp_path: Path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("mail ana@example.org\nfrom 192.0.2.77\n")
    policy = tmp_path / "policy.toml"
    policy.write_text("[actions]\nip_address = 'allow'\n[reasons]\nip_address = 'ours'\n")
    facts = printed(capsys, "scan", str(file), "--policy", str(policy))
    assert facts["findings"] == {"email": 1, "ip_address": 1}
    assert facts["samples"]["ip_address"][0]["shown"] == "[IP_ADDRESS 9-16]"
    assert run(["review", "scan", str(file)]) == 0
    shown = capsys.readouterr()
    assert "ana@" not in shown.out + shown.err + json.dumps(facts)


def test_policy_new_is_understood_by_lint_and_never_overwrites(tmp_path: Path, capsys):
    file = tmp_path / "policy.toml"
    assert run(["review", "policy", "new", str(file), "--single-person"]) == 0
    capsys.readouterr()
    facts = printed(capsys, "policy", "lint", str(file))
    assert any("ONE person" in sentence for sentence in facts["sentences"])
    assert {remark["field"] for remark in facts["remarks"]} == {"single_person", "who_may_train"}
    before = file.read_bytes()
    assert run(["review", "policy", "new", str(file)]) == 2
    assert file.read_bytes() == before


@pytest.mark.parametrize("verb", [["score"], ["scan"], ["policy", "lint"]])
def test_a_missing_file_is_a_usage_error(verb, tmp_path: Path, capsys):
    assert run(["review", *verb, str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
