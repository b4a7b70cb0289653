"""The bag beside the trunk: tf-idf by hand, what it does not look at, and how two opinions are joined."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from rsc.models.bag_of_ngrams import Bag, bags_of, count_texts
from rsc.models.build import Model, build_model
from rsc.models.config import BagConfig, HeadConfig, ModelConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want, agreed

LETTERS = BagConfig(ngrams=(1,), rows=4096, min_texts=1)
BOTH = BagConfig(ngrams=(2, 3), words=2, rows=4096, min_texts=1)


def rows(*texts: str, pad: int = 0) -> dict[str, torch.Tensor]:
    """As bind_texts makes them: a separator, the bytes, separators to the longest and `pad` more."""
    longest = 1 + max(len(text.encode()) for text in texts) + pad
    tokens_BL = torch.full((len(texts), longest), 256)
    for row, text in enumerate(texts):
        tokens_BL[row, 1 : 1 + len(text.encode())] = torch.tensor(list(text.encode()), dtype=torch.int64)
    return {"tokens_BL": tokens_BL, "text_length_B": torch.tensor([1 + len(t.encode()) for t in texts])}


def counted(bag: Bag, *texts: str) -> Bag:
    batch = rows(*texts)
    bag.texts_with += count_texts(batch["tokens_BL"], length_B=batch["text_length_B"], config=bag.config)
    bag.num_texts += len(texts)
    return bag


def bag_of(config: BagConfig) -> Bag:
    bag = Bag(config, num_classes=2)
    torch.nn.init.normal_(bag.table.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(bag.bias)
    return bag


def says(bag: Bag, *texts: str, pad: int = 0) -> torch.Tensor:
    batch = rows(*texts, pad=pad)
    return bag(batch["tokens_BL"], length_B=batch["text_length_B"]).detach()  # type: ignore[no-any-return]


def row_of(letter: str) -> int:
    batch = rows(letter)
    (part,) = bags_of(batch["tokens_BL"], length_B=batch["text_length_B"], config=LETTERS)
    return int(part.rows[part.is_first])


def test_scores_are_tf_idf_by_hand() -> None:
    """Of 3 texts `a` is in all and `b` in one: idf log(4 / 4) + 1 and log(4 / 2) + 1, then length 1."""
    bag = counted(bag_of(LETTERS), "ab", "a", "aa")
    idf = torch.tensor([1.0, math.log(2) + 1])
    weights = idf / idf.norm()
    table = bag.table.weight.detach()
    expected = weights[0] * table[row_of("a")] + weights[1] * table[row_of("b")]
    torch.testing.assert_close(says(bag, "abba")[0], expected)


def test_a_text_counts_a_row_once() -> None:
    batch = rows("aaa", "ab", "")
    found = count_texts(batch["tokens_BL"], length_B=batch["text_length_B"], config=LETTERS)
    assert (found[row_of("a")], found[row_of("b")], found.sum()) == (2, 1, 3)


def test_padding_and_case_change_nothing() -> None:
    bag = counted(bag_of(BOTH), "so it is", "is it so?", "it was so")
    once = says(bag, "so it is", "it")
    torch.testing.assert_close(says(bag, "SO it IS", "it", pad=7), once)
    torch.testing.assert_close(says(bag, "it")[0], once[1])


def test_letters_do_not_drown_words() -> None:
    """Each kind is a vector of length 1, whatever the length of the text."""
    batch = rows("a rather long text with many sequences of letters in it")
    bag = counted(bag_of(BOTH), "a rather long text with many sequences of letters in it")
    parts = bags_of(batch["tokens_BL"], length_B=batch["text_length_B"], config=BOTH)
    assert [float(bag._weights(part).norm()) for part in parts] == pytest.approx([1.0, 1.0])


def test_what_is_in_few_texts_is_not_looked_at() -> None:
    bag = counted(bag_of(LETTERS.model_copy(update={"min_texts": 2})), "ab", "a")
    torch.testing.assert_close(says(bag, "ab"), says(bag, "a"))


def test_before_texts_were_counted_all_are_the_same() -> None:
    found = says(bag_of(BOTH), "one thing", "quite another")
    torch.testing.assert_close(found, torch.zeros(2, 2))


def sorter(bag: BagConfig | None) -> Model:
    return build_model(
        ModelConfig(
            trunk=TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, causal=False),
            text=TextConfig(max_length=16),
            head=HeadConfig(kind="classes", labels=("a", "b")),
            bag=bag,
        )
    )


def with_bag() -> tuple[Model, dict[str, torch.Tensor]]:
    model, batch = sorter(LETTERS), rows("ab", "ca", "b")
    bag = model.get_submodule("head.bag")
    assert isinstance(bag, Bag)
    counted(bag, "ab", "ca", "b")
    with torch.no_grad():
        bag.table.weight.normal_(generator=torch.Generator().manual_seed(0))
    return model, {**batch, "label_B": torch.tensor([0, 1, 1])}


def opinions(model: Model, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    plain = sorter(None)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if ".bag." not in name})
    bag = model.get_submodule("head.bag")
    both = plain(batch, Want.LOGITS)["logits"], bag(batch["tokens_BL"], length_B=batch["text_length_B"])
    return list(both)


def test_the_answer_is_the_mean_of_log_probabilities() -> None:
    model, batch = with_bag()
    both = opinions(model.eval(), batch)
    expected = (both[0].log_softmax(-1) + both[1].log_softmax(-1)) / 2
    logits = model(batch, Want.LOGITS)["logits"]
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(
        model(batch)["total"], F.cross_entropy(expected, batch["label_B"], reduction="sum")
    )
    assert agreed(both[:1]) is both[0]


def test_each_is_trained_on_its_own_loss() -> None:
    """What the trunk says changes no gradient of the bag."""
    model, batch = with_bag()
    both = opinions(model, batch)
    out = model.train()(batch)
    losses = [F.cross_entropy(one, batch["label_B"], reduction="sum") for one in both]
    torch.testing.assert_close(out["total"], (losses[0] + losses[1]) / 2)
    out["total"].backward()
    before = model.get_parameter("head.bag.table.weight").grad
    model.zero_grad()
    with torch.no_grad():
        model.get_parameter("head.linear.weight").mul_(50)
    model(batch)["total"].backward()
    torch.testing.assert_close(model.get_parameter("head.bag.table.weight").grad, before)


def test_counts_are_not_rounded_by_a_number_format() -> None:
    bag = counted(bag_of(LETTERS), *["a"] * 1001)
    assert (bag.to(torch.bfloat16).num_texts, bag.texts_with[row_of("a")]) == (1001, 1001)
