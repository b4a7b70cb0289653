from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsc.errors import DataError
from rsc.review.benchmark.score import Labelled, Rate, canonical_type, read_corpus, score
from rsc.review.benchmark.synthetic import planted_posts, write_planted
from rsc.review.findings import Finding


def test_wilson_interval_against_published_values():
    # Wilson 1927 in the form of Brown, Cai, DasGupta 2001, equation 4, worked by hand for n = 10
    assert Rate(10, 10).interval() == pytest.approx((0.72246, 1.0), abs=1e-4)
    assert Rate(1, 10).interval() == pytest.approx((0.01787, 0.40415), abs=1e-4)
    assert Rate(0, 0).interval() == (0.0, 1.0)


def test_covered_typed_and_right_are_counted_by_hand():
    corpus = [
        Labelled("0123456789", ((0, 5, "email"), (5, 10, "phone"))),
        Labelled("0123456789", ((2, 4, "person"),)),
    ]
    answers = iter(
        [
            [Finding("email", 0, 4, "r"), Finding("email", 5, 10, "r")],
            [Finding("handle", 2, 4, "r"), Finding("phone", 6, 8, "r")],
        ]
    )
    result = score(corpus, scan=lambda text: next(answers))
    assert result.overall.covered == Rate(1, 2)
    assert result.overall.partial == Rate(1, 2)
    assert result.overall.typed == Rate(1, 2)
    assert result.overall.precision == Rate(3, 4)
    assert result.not_scored == {"person": 1}
    assert result.types["phone"].precision == Rate(0, 1)


@pytest.mark.parametrize(
    "record",
    [
        {"text": "me a@b.de", "spans": [{"start": 3, "end": 9, "type": "email"}]},
        {
            "full_text": "me a@b.de",
            "spans": [{"start_position": 3, "end_position": 9, "entity_type": "EMAIL_ADDRESS"}],
        },
        {"source_text": "me a@b.de", "privacy_mask": [{"start": 3, "end": 9, "label": "EMAIL"}]},
        {"text": "me a@b.de", "entities": [[3, 9, "E-Mail"]]},
        {"text": "me a@b.de", "label": [[3, 9, "email_address"]]},
    ],
)
def test_layouts_of_other_tools_are_read(tmp_path: Path, record):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps(record) + "\n\n")
    assert list(read_corpus(path)) == [Labelled("me a@b.de", ((3, 9, "email"),))]


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"text": "a"}', '{"text": "a", "spans": [[0, 2, "email"]]}']
)
def test_a_broken_line_is_named(tmp_path: Path, line):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "a", "spans": []}\n' + line + "\n")
    with pytest.raises(DataError, match="line 2"):
        list(read_corpus(path))


def test_a_span_is_covered_when_no_letter_or_digit_is_left_and_rates_go_by_language():
    spans = ((0, 6, "phone"),)
    corpus = [Labelled("(1) 23", spans, language) for language in ("de", "de", "fr")]
    answers = iter([[Finding("phone", 1, 6, "r")], [Finding("phone", 1, 5, "r")], []])
    result = score(corpus, scan=lambda text: next(answers))
    assert result.overall.covered == Rate(1, 3)
    assert result.overall.partial == Rate(1, 3)
    by_language = {name: rates.covered for name, rates in result.languages.items()}
    assert by_language == {"de": Rate(1, 2), "fr": Rate(0, 1)}


def test_type_names_of_other_tools():
    assert [canonical_type(name) for name in ("EMAIL_ADDRESS", "US_SSN", "PHONE_NUMBER", "Person")] == [
        "email",
        "ssn",
        "phone",
        "person",
    ]


def test_planted_posts_are_seeded_and_their_spans_true(tmp_path: Path):
    posts = list(planted_posts(300, seed=9))
    assert posts == list(planted_posts(300, seed=9))
    assert posts != list(planted_posts(300, seed=10))
    assert len({name for post in posts for _, _, name in post.spans}) == 12
    written, truth = write_planted(tmp_path, count=300, seed=9)
    assert [labelled.spans for labelled in read_corpus(truth)] == [post.spans for post in posts]
    assert [json.loads(line) for line in written.read_text().splitlines()] == [
        {"id": post.id, "text": post.text} for post in posts
    ]
