from __future__ import annotations

from types import SimpleNamespace

import pytest

from rsc.errors import ConfigError
from rsc.review.findings import NOT_LOOKED_FOR
from rsc.review.gate import Gate
from rsc.review.policy import default_policy
from rsc.review.recogniser import GlinerRecogniser, PresidioRecogniser
from rsc.review.scan import Scanner

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
    gate = Gate(default_policy(), scanner=Scanner(recognisers=(PERSONS,)))
    assert gate.pass_text(TEXT).text == "[PERSON] lives in Lyon, [EMAIL]"
    report = gate.report()
    assert report.recognisers == (
        "presidio looks for person, place; recall: 0.63 [0.60, 0.66] on 1,500 texts",
    )
    assert {"person", "place"} <= set(report.looked_for)
    assert "names of persons" not in report.not_looked_for
    assert "names of organisations" in report.not_looked_for
    assert Gate(default_policy()).report().not_looked_for == NOT_LOOKED_FOR


def test_streams_refuse_recognisers():
    with pytest.raises(ConfigError, match="stream"):
        list(Scanner(recognisers=(PLACES,)).scan_stream(["Lyon"]))
