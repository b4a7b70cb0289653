from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.evaluate.measures import (
    bootstrap,
    calibration,
    confusion,
    edits,
    f1_scores,
    fold_small_groups,
    macro_f1,
    ratio,
    share,
    slices,
    word_error_rate,
)


def test_wilson_interval_vector() -> None:
    """Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662; 0 of 20 gives 0 to 0.1611."""
    measured = share(81, count=263)
    assert (measured.low, measured.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert (share(0, count=20).low, share(0, count=20).high) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(0, 50), st.integers(0, 50))
def test_share_lies_inside_its_interval(hits: int, misses: int) -> None:
    measured = share(hits, count=hits + misses)
    assert 0 <= measured.low <= measured.high <= 1
    if hits + misses:
        assert measured.low <= measured.value <= measured.high


def test_ratio_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        sizes = generator.integers(1, 20, 60)
        measured = ratio(sizes * 2.0 + generator.normal(0, 3, 60), sizes_N=sizes)
        covered += measured.low <= 2.0 <= measured.high
    assert 0.91 <= covered / 400 <= 0.98


def test_ratio_of_nothing_is_refused_and_of_one_unit_has_no_interval() -> None:
    with pytest.raises(ConfigError, match="nothing to measure"):
        ratio(np.array([]), sizes_N=np.array([]))
    assert math.isnan(ratio(np.array([4.0]), sizes_N=np.array([2])).low)


def test_confusion_and_f1_by_hand() -> None:
    labels, guesses = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 2, 2])
    table = confusion(labels, guesses_N=guesses, num_classes=4)
    assert table[:3, :3].tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 1]]
    assert f1_scores(table)[:3] == pytest.approx([4 / 5, 1 / 2, 2 / 3])
    assert math.isnan(f1_scores(table)[3]), "a class nobody has or names"
    assert macro_f1(labels, guesses_N=guesses, num_classes=4).value == pytest.approx(
        (4 / 5 + 1 / 2 + 2 / 3) / 3
    )


def test_bootstrap_is_repeatable_and_holds_the_value() -> None:
    data = np.random.default_rng(1).normal(size=200)
    first, again = (bootstrap(lambda rows: float(data[rows].mean()), count=200, seed=3) for _ in range(2))
    assert first == again
    assert first.low < first.value < first.high
    assert first.high - first.low == pytest.approx(2 * 1.96 / 200**0.5, rel=0.2)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("same", "same", 0), ("flaw", "lawn", 2)],
)
def test_edit_distance_vectors(reference: str, hypothesis: str, distance: int) -> None:
    assert edits(reference, hypothesis) == distance


@given(st.text("ab", max_size=6), st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_edit_distance_is_a_metric(x: str, y: str, z: str) -> None:
    assert edits(x, y) == edits(y, x)
    assert edits(x, z) <= edits(x, y) + edits(y, z)
    assert (edits(x, y) == 0) == (x == y)


def test_word_error_rate_counts_words_of_all_utterances() -> None:
    measured = word_error_rate(["one two three", "four"], hypotheses=["one too three", "four five"])
    assert measured.value == pytest.approx(2 / 4)


def test_calibration_of_a_model_that_knows_what_it_knows() -> None:
    probabilities = np.array([[0.8, 0.2]] * 10)
    good = calibration(probabilities, labels_N=np.array([0] * 8 + [1] * 2))
    assert good.error == pytest.approx(0.0)
    assert good.brier == pytest.approx(0.8 * (0.04 + 0.04) + 0.2 * (0.64 + 0.64))
    assert calibration(probabilities, labels_N=np.array([1] * 10)).error == pytest.approx(0.8)


def test_small_groups_are_folded() -> None:
    masks = {name: np.arange(100) < size for name, size in {"a": 3, "b": 4, "c": 40, "d": 100}.items()}
    apart = {"e": np.arange(100) >= 91, "f": np.arange(100) < 5}  # 9 and 5 samples
    assert list(fold_small_groups(masks, least=1)) == list(masks)
    folded = fold_small_groups(masks, least=10)
    assert {name: int(mask.sum()) for name, mask in folded.items()} == {"d": 100, "other (3 groups)": 40}
    assert {name: int(mask.sum()) for name, mask in fold_small_groups(apart, least=10).items()} == {
        "other (2 groups)": 14
    }
    assert fold_small_groups({"f": apart["f"]}, least=10) == {}


def test_slices_show_who_is_wronged() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    guesses = np.array([0, 1, 1, 0, 1, 0])
    rows = slices(
        {"dialect": np.array([False, True, True, False, False, False]), "nobody": np.zeros(6, bool)},
        labels_N=labels,
        guesses_N=guesses,
        positive=[1],
    )
    assert [row.group for row in rows] == ["all", "dialect", "nobody"]
    assert rows[0].false_positive_rate.value == pytest.approx(0.5)
    assert rows[0].false_negative_rate.value == pytest.approx(0.5)
    assert rows[1].false_positive_rate.value == 1.0
    assert math.isnan(rows[2].false_positive_rate.value)
