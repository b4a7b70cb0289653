from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from rsc.errors import ConfigError
from rsc.review.explain import explain
from rsc.review.findings import NOT_LOOKED_FOR
from rsc.review.gate import RecordGate
from rsc.review.policy import default_policy, parse_policy, policy_to_toml
from rsc.review.scanner.recogniser import GlinerRecogniser, PresidioRecogniser, load_recognisers
from rsc.review.scanner.scanner import Scanner

TEXT = "Jane Planted lives in Lyon, jane.planted@example.org"


class Analyzer:
    """Answers as presidio does, and remembers what it was asked."""

    def analyze(self, *, text, language, entities):
        self.asked = (language, entities)
        return [
            SimpleNamespace(entity_type="PERSON", start=0, end=12, score=0.85),
            SimpleNamespace(entity_type="LOCATION", start=22, end=26, score=0.2),
            SimpleNamespace(entity_type="PERSON", start=28, end=40, score=0.9),  # inside the e-mail address
        ]


class Model:
    def predict_entities(self, text, labels, *, threshold):
        assert labels == ["city"]
        return [{"label": "city", "start": 22, "end": 26, "score": 0.9}]


PERSONS = PresidioRecogniser(
    Analyzer(), {"PERSON": "person", "LOCATION": "place"}, recall="0.63 [0.60, 0.66] on 1,500 texts"
)
PLACES = GlinerRecogniser(Model(), {"city": "place"})


def test_rules_win_over_recognisers_and_weak_answers_do_not_count():
    found = Scanner(recognisers=(PERSONS,)).scan(TEXT)
    assert [(f.type, TEXT[f.start : f.end], f.rule) for f in found] == [
        ("person", "Jane Planted", "presidio"),
        ("email", "jane.planted@example.org", "email"),
    ]


def test_scanning_together_gives_each_text_to_the_recogniser():
    scanner = Scanner(recognisers=(PERSONS, PLACES))
    assert scanner.scan_many([TEXT, TEXT]) == [scanner.scan(TEXT)] * 2
    assert [f.type for f in scanner.scan(TEXT)] == ["person", "place", "email"]


def test_report_says_what_a_recogniser_looks_for_and_its_recall():
    gate = RecordGate(default_policy(), scanner=Scanner(recognisers=(PERSONS,)))
    assert gate.pass_text(TEXT).text == "[PERSON] lives in Lyon, [EMAIL]"
    report = gate.report()
    assert report.recognisers == (
        "presidio looks for person, place; recall: 0.63 [0.60, 0.66] on 1,500 texts",
    )
    assert {"person", "place"} <= set(report.looked_for)
    assert "names of persons" not in report.not_looked_for
    assert "names of organisations" in report.not_looked_for
    assert RecordGate(default_policy()).report().not_looked_for == NOT_LOOKED_FOR


def test_streams_refuse_recognisers():
    with pytest.raises(ConfigError, match="stream"):
        list(Scanner(recognisers=(PLACES,)).scan_stream(["Lyon"]))


POLICY = b"""
single_person = true
required_approvers = 1
[[models]]
engine = "presidio"
model = "%s"
labels = { PERSON = "person" }
recall = "1.0 of the one name it knows"
[actions]
person = "mask"
"""


def test_policy_names_a_model_and_keeps_it():
    policy = parse_policy(POLICY % b"en_core_web_lg")
    assert parse_policy(policy_to_toml(policy)).models == policy.models
    assert policy.models[0].labels == {"PERSON": "person"}
    sentences = explain(policy)
    assert any("en_core_web_lg looks for person; recall: 1.0 of" in sentence for sentence in sentences)
    assert any(sentence.startswith("What is found of person is replaced") for sentence in sentences)
    assert "names of persons" not in sentences[-1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'labels = { PERSON = "persons" }', "types are person, place"),
        (b"labels = {}", "at least 1"),
        (b'labels = { PERSON = "person" }\nleast_score = 2', "less than or equal to 1"),
        (b'labels = { PERSON = "person" }\nthreshold = 0.5', "unknown key"),
    ],
)
def test_a_model_that_is_written_wrong_is_refused_by_its_key(line: bytes, words: str):
    content = (POLICY % b"en_core_web_lg").replace(b'labels = { PERSON = "person" }', line)
    with pytest.raises(ConfigError, match=words):
        parse_policy(content)


def test_a_model_that_is_not_here_is_named_and_nothing_is_downloaded(tmp_path: Path):
    models = parse_policy(POLICY % str(tmp_path / "none").encode()).models
    with pytest.raises(ConfigError) as refused:
        load_recognisers(models)
    if importlib.util.find_spec("presidio_analyzer"):
        assert f"{tmp_path / 'none'}" in refused.value.message
    else:
        assert "presidio-analyzer" in str(refused.value.hint)


def test_presidio_reads_with_the_model_of_the_policy(tmp_path: Path):
    pytest.importorskip("presidio_analyzer", reason="pip install presidio-analyzer brings it")
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "Jane Planted"}])
    nlp.to_disk(tmp_path / "model")
    policy = parse_policy(POLICY % str(tmp_path / "model").encode())
    gate = RecordGate(policy, scanner=Scanner(recognisers=load_recognisers(policy.models)))
    assert gate.pass_text(TEXT).text == "Xxxx Xxxxxxx lives in Lyon, [EMAIL]"
    assert gate.report().recognisers == ("presidio looks for person; recall: 1.0 of the one name it knows",)
