from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from rsc.models.build import Model, build_model, real_positions
from rsc.models.config import AudioConfig, HeadConfig, ImageConfig, ModelConfig, TextConfig, TrunkConfig
from rsc.models.cross_entropy import IGNORED
from rsc.models.heads import Want, positions_needed
from rsc.models.ngrams import ngram_rows, sum_words, word_numbers, word_rows
from rsc.models.sample_random import sample_seeds
from rsc.models.stems import (
    AudioStem,
    TextStem,
    blank,
    flip_and_shift,
    log_mel,
    mel_filters,
    normalise,
)

TRUNK = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, causal=False)
VOICE = AudioConfig(sample_rate=8000, num_mels=20, stack=2)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def model_of(head: HeadConfig, **stems: Any) -> Model:
    return build_model(ModelConfig(trunk=TRUNK, head=head, **stems), seed=2).eval()


CLASSES = HeadConfig(kind="classes", labels=("a", "b", "c"))


@pytest.mark.parametrize("style", ["patch", "conv"])
def test_image_positions_follow_the_picture(style: Any) -> None:
    """Changing one corner changes that corner's position most; shapes are as the config says."""
    image = ImageConfig(height=16, width=8, patch=4, style=style, conv_width=4)
    model = model_of(CLASSES, image=image)
    picture = torch.randint(
        0, 256, (1, 16, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    changed = picture.clone()
    changed[0, :4, :4] = 255 - changed[0, :4, :4]
    before, after = model.embed({"image_BHWC": picture}), model.embed({"image_BHWC": changed})
    assert before.shape == (1, image.num_positions, 16)
    moved = (before - after).norm(dim=-1)[0]
    if style == "patch":
        assert moved[0] > 0
        assert not moved[1:].any()
    assert moved[:4].sum() > moved[4:].sum()


def test_float_and_byte_images_are_the_same_picture() -> None:
    model = model_of(CLASSES, image=ImageConfig(height=8, width=8))
    picture = torch.randint(0, 256, (1, 8, 8, 3), dtype=torch.uint8)
    floats = picture.float() / 255
    torch.testing.assert_close(
        model.embed({"image_BHWC": picture}), model.embed({"image_BHWC": floats}), rtol=1e-4, atol=1e-5
    )


def test_augmentation_moves_pixels_but_invents_none() -> None:
    picture = torch.arange(64.0).view(1, 1, 8, 8).expand(64, 1, 8, 8)
    draw_B = sample_seeds(0, torch.arange(64))
    moved = flip_and_shift(picture, reach=2, draw_B=draw_B)
    assert set(moved.unique().tolist()) <= set(range(64))
    assert len({tuple(image.flatten().tolist()) for image in moved}) > 20
    some = torch.tensor([40, 3])
    again = flip_and_shift(picture[some], reach=2, draw_B=draw_B[some])
    assert torch.equal(again, moved[some]), "a sample's seed decides, wherever it stands"


def test_log_mel_finds_the_tone() -> None:
    filters = mel_filters(129, config=VOICE)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(8000) / 8000)[None]
    loudest = log_mel(tone, config=VOICE).mean(1).argmax()
    assert loudest == filters[round(1000 / 4000 * 128)].argmax()


def test_int16_and_float_sound_are_the_same_sound() -> None:
    sound = (noise(1, 4000) * 3000).to(torch.int16)
    torch.testing.assert_close(log_mel(sound, config=VOICE), log_mel(sound.float() / 32768, config=VOICE))


def test_normalised_frames_ignore_loudness_and_padding() -> None:
    sound = noise(1, 4000)
    quiet = F.pad(sound * 0.1, (0, 3000))
    count = torch.tensor([1 + 3900 // VOICE.hop])
    loud_frames = normalise(log_mel(sound, config=VOICE), count_B=count)
    quiet_frames = normalise(log_mel(quiet, config=VOICE), count_B=count)
    torch.testing.assert_close(
        loud_frames[:, : int(count) - 2], quiet_frames[:, : int(count) - 2], rtol=0.02, atol=0.02
    )
    assert not quiet_frames[:, int(count) :].any()


@pytest.mark.parametrize("samples", [1, 79, 80, 81, 160, 4000])
def test_positions_of_sound_equal_what_the_stem_gives(samples: int) -> None:
    stem = AudioStem(VOICE, width=8)
    given = stem(noise(1, samples), torch.tensor([samples])).shape[1]
    assert given == int(AudioStem.positions(torch.tensor(samples), config=VOICE))


def test_masking_hides_some_time_and_some_pitch_and_no_more() -> None:
    frames = torch.ones(32, 100, 20)
    draw_B = sample_seeds(1, torch.arange(32))
    hidden = blank(frames, count_B=torch.full((32,), 100), draw_B=draw_B) == 0
    assert 0 < hidden.float().mean() < 0.64
    whole_frames, whole_filters = hidden.all(2).float().mean(), hidden.all(1).float().mean()
    assert 0 < whole_frames <= 0.4
    assert 0 < whole_filters <= 0.4


def test_padding_changes_no_answer() -> None:
    model = model_of(CLASSES, audio=VOICE, text=TextConfig())
    sound, words = noise(2, 1600), torch.randint(0, 257, (2, 7), generator=torch.Generator().manual_seed(1))
    batch = {"audio_BS": sound, "audio_length_B": torch.tensor([1600, 900]), "tokens_BL": words}
    batch["text_length_B"] = torch.tensor([7, 4])
    padded = batch | {"audio_BS": F.pad(sound, (0, 2000)), "tokens_BL": F.pad(words, (0, 5), value=9)}
    short, long = model(batch, Want.LOGITS)["logits"], model(padded, Want.LOGITS)["logits"]
    torch.testing.assert_close(short[0], long[0], rtol=1e-4, atol=1e-5)
    alone = {k: v[1:] for k, v in batch.items()} | {"tokens_BL": words[1:, :4]}
    torch.testing.assert_close(model(alone, Want.LOGITS)["logits"][0], short[1], rtol=1e-4, atol=1e-5)


def test_three_stems_make_one_sequence_in_order() -> None:
    image = ImageConfig(height=8, width=8, patch=4)
    model = model_of(CLASSES, image=image, audio=VOICE, text=TextConfig())
    batch = {
        "image_BHWC": torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        "image_present_B": torch.tensor([True, False]),
        "audio_BS": noise(2, 800),
        "audio_length_B": torch.tensor([800, 0]),
        "tokens_BL": torch.ones(2, 3, dtype=torch.int64),
        "text_length_B": torch.tensor([3, 1]),
    }
    real = real_positions(batch, config=model.config)
    assert real is not None
    num_sound = int(AudioStem.positions(torch.tensor(800), config=VOICE))
    assert real.sum(1).tolist() == [4 + num_sound + 3, 1]
    assert real[1].nonzero().flatten().tolist() == [4 + num_sound], "only its one token"
    assert model.embed(batch).shape == (2, 4 + num_sound + 3, 16)
    assert model(batch, Want.LOGITS)["logits"].isfinite().all()


def images_and(**answers: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"image_BHWC": torch.randint(0, 256, (4, 8, 8, 3), dtype=torch.uint8), **answers}


def test_class_loss_is_cross_entropy_of_what_counts() -> None:
    model = model_of(CLASSES, image=ImageConfig(height=8, width=8))
    batch = images_and(label_B=torch.tensor([0, 2, IGNORED, 1]))
    logits, out = model(batch, Want.LOGITS)["logits"], model(batch)
    expected = F.cross_entropy(logits[[0, 1, 3]], torch.tensor([0, 2, 1]), reduction="sum")
    torch.testing.assert_close(out["total"], expected)
    assert out["count"] == 3
    assert out["correct"] == (logits.argmax(-1) == batch["label_B"]).sum()


def test_balanced_classes_weigh_one_over_their_share() -> None:
    head = CLASSES.model_copy(update={"balance": 1.0})
    model = model_of(head, image=ImageConfig(height=8, width=8))
    model.get_buffer("head.class_counts").copy_(torch.tensor([20, 10, 10]))
    batch = images_and(label_B=torch.tensor([0, 0, 1, 2]))
    losses = F.cross_entropy(model(batch, Want.LOGITS)["logits"], batch["label_B"], reduction="none")
    weights = torch.tensor([2 / 3, 2 / 3, 4 / 3, 4 / 3])
    torch.testing.assert_close(model(batch)["total"], (losses * weights).sum())


def test_multi_label_loss_by_hand() -> None:
    model = model_of(HeadConfig(kind="multi_label", labels=("a", "b")), image=ImageConfig(height=8, width=8))
    batch = images_and(labels_BK=torch.tensor([[1, 0], [1, 1], [-1, -1], [0, 0]]))
    logits, out = model(batch, Want.LOGITS)["logits"], model(batch)
    wanted = batch["labels_BK"][[0, 1, 3]].float()
    expected = F.binary_cross_entropy_with_logits(logits[[0, 1, 3]], wanted, reduction="none").mean(1).sum()
    torch.testing.assert_close(out["total"], expected)
    assert out["count"] == 3


def test_ctc_loss_and_what_cannot_be_aligned() -> None:
    model = model_of(HeadConfig(kind="ctc", labels=("one", "two")), audio=VOICE)
    lengths = torch.tensor([1600, 1600, 240, 1600])
    batch = {
        "audio_BS": noise(4, 1600),
        "audio_length_B": lengths,
        "symbols_BU": torch.tensor([[1, 2, 2], [1, 0, 0], [1, 1, 0], [0, 0, 0]]),
        "symbol_count_B": torch.tensor([3, 1, 2, -1]),
    }
    answer, out = model(batch, Want.LOGITS), model(batch)
    assert (
        answer["lengths"].tolist() == AudioStem.positions(lengths, config=VOICE).tolist() == [11, 11, 2, 11]
    )
    assert (out["count"], out["unaligned"]) == (2, 1)
    alone = F.ctc_loss(
        answer["logits"][:2].log_softmax(-1).transpose(0, 1),
        batch["symbols_BU"][:2],
        answer["lengths"][:2],
        torch.tensor([3, 1]),
        reduction="none",
    )
    torch.testing.assert_close(out["total"], alone.sum())
    out["total"].backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_positions_an_alignment_needs() -> None:
    symbols = torch.tensor([[1, 2, 3], [1, 1, 1], [1, 1, 9], [0, 0, 0]])
    assert positions_needed(symbols, torch.tensor([3, 3, 2, 0])).tolist() == [3, 5, 3, 0]


def test_contrastive_learns_pairs_not_features() -> None:
    """Loss starts at log(batch); a swap of two texts swaps two rows of similarities."""
    model = model_of(HeadConfig(kind="contrastive"), image=ImageConfig(height=8, width=8), text=TextConfig())
    words = torch.randint(0, 257, (4, 5), generator=torch.Generator().manual_seed(1))
    batch = images_and(tokens_BL=words, text_length_B=torch.full((4,), 5))
    similarities = model(batch, Want.LOGITS)["logits"]
    swapped = model(batch | {"tokens_BL": words[[1, 0, 2, 3]]}, Want.LOGITS)["logits"]
    torch.testing.assert_close(swapped, similarities[[1, 0, 2, 3]], rtol=1e-4, atol=1e-4)
    assert similarities.abs().max() <= 1 / 0.07 + 1e-3
    assert model(batch)["count"] == 4


def test_ngrams_are_found_wherever_they_stand() -> None:
    tokens = torch.tensor([list(b"xx bad dog"), list(b"a BAD cat!")])
    rows = ngram_rows(tokens, lengths=(3, 5), rows=1 << 15)
    assert rows.shape == (2, 2, 10)
    assert rows[0, 0, 5] == rows[0, 1, 4], "the sequence is `bad`, in any case"
    assert len(set(rows[0].flatten().tolist())) > 14, "others differ"
    assert rows[0].max() < 1 << 15 <= rows[1].min(), "each length has its own rows"


def _bytes(text: str) -> torch.Tensor:
    return torch.tensor([[256, *text.encode()]])


def test_words_are_found_wherever_they_stand_in_any_case() -> None:
    rows, ends = word_rows(_bytes("Hello big  world, hello Big"), longest=2, rows=1 << 15)
    words, pairs = rows[0][ends[0]].tolist(), rows[1][ends[1]].tolist()
    assert words[0] == words[3]
    assert words[1] == words[4]
    assert len(set(words)) == 3
    assert pairs[0] == pairs[3], "hello big, whatever stands between the two"
    assert len(pairs) == 4
    assert len(set(pairs)) == 3
    other, where = word_rows(_bytes("x hello big"), longest=2, rows=1 << 15)
    assert other[0][where[0]].tolist()[1:] == words[:2]
    assert other[1][where[1]].tolist()[1] == pairs[0]


def test_a_position_can_be_a_word_with_what_follows_it() -> None:
    tokens = _bytes("#Hi, you!")
    assert word_numbers(tokens).tolist() == [[0, 0, 1, 1, 1, 1, 2, 2, 2, 2]]
    numbers, is_byte = word_numbers(tokens), tokens < 256
    summed = sum_words(torch.ones(1, 10, 1), number_BL=numbers, is_byte_BL=is_byte)
    torch.testing.assert_close(summed[0, :, 0], torch.tensor([1.0, 4.0, 4.0]).sqrt())
    text = TextConfig(positions="words", words=1, ngrams=(2,), ngram_rows=64, ngram_width=8)
    stem = TextStem(text, width=16)
    assert stem(tokens).shape == (1, 3, 16)
    padded = torch.cat((tokens, torch.full((1, 5), 256)), dim=1)
    assert TextStem.positions(padded, config=text).tolist() == [3]  # type: ignore[union-attr]


def test_an_answer_by_words_does_not_depend_on_padding() -> None:
    text = TextConfig(positions="words", words=2, ngrams=(3,), ngram_rows=64, ngram_width=8)
    trunk = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, causal=False)
    head = HeadConfig(kind="classes", labels=("a", "b"))
    model = build_model(ModelConfig(trunk=trunk, text=text, head=head)).eval()
    short, long = _bytes("two words"), _bytes("this one has more words in it")
    both = torch.full((2, long.shape[1]), 256)
    both[0, : short.shape[1]], both[1] = short[0], long[0]
    alone = model({"tokens_BL": short, "text_length_B": torch.tensor([10])}, Want.LOGITS)["logits"]
    lengths = torch.tensor([short.shape[1], long.shape[1]])
    among = model({"tokens_BL": both, "text_length_B": lengths}, Want.LOGITS)["logits"]
    torch.testing.assert_close(among[:1], alone, atol=1e-6, rtol=1e-5)


def test_ngrams_reach_positions_that_hold_them() -> None:
    text = TextConfig(ngrams=(2, 3), ngram_rows=64, ngram_width=8)
    model = model_of(CLASSES, text=text)
    before = model.embed({"tokens_BL": torch.tensor([list(b"abcdef")])})
    after = model.embed({"tokens_BL": torch.tensor([list(b"aXcdef")])})
    moved = (before - after).norm(dim=-1)[0] > 0
    assert moved.tolist() == [False, True, True, True, False, False]


def test_dropped_tokens_and_features_are_of_training_only() -> None:
    head = CLASSES.model_copy(update={"dropout": 0.5})
    model = model_of(head, text=TextConfig(drop=0.5))
    tokens = torch.tensor([list(b"abcdefgh")])
    first, second = ({"tokens_BL": tokens, "draw_B": torch.tensor([seed])} for seed in (1, 2))
    quiet = [model(batch, Want.LOGITS)["logits"] for batch in (first, second)]
    assert torch.equal(*quiet)
    model.train()
    drawn = [model(batch, Want.LOGITS)["logits"] for batch in (first, second, first)]
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("head", "stems", "words"),
    [
        ({"kind": "classes"}, {"text": {}}, "needs `labels`"),
        ({"kind": "classes", "labels": ("a", "a")}, {"text": {}}, "a name twice"),
        ({"kind": "ctc", "labels": ("a", "b")}, {"text": {}}, "reads audio alone"),
        ({"kind": "contrastive"}, {"text": {}}, "needs text and one other stem"),
        ({"kind": "next_token"}, {"text": {}}, "needs trunk.causal = true"),
        ({"kind": "next_token"}, {"image": {}}, "reads text alone"),
        ({"kind": "masked_token"}, {"text": {"pad_to": 1}}, "needs a padding row"),
        (
            {"kind": "classes", "labels": ("a", "b")},
            {"text": {"tokenizer": "t.json"}, "bag": {"words": 1}},
            "words are found in bytes",
        ),
        (
            {"kind": "multi_label", "labels": ("a",)},
            {"text": {}, "bag": {"words": 1}},
            "a bag sorts texts into classes",
        ),
        ({"kind": "classes", "labels": ("a", "b")}, {"image": {}, "bag": {"words": 1}}, "without text"),
        ({"kind": "next_token"}, {"text": {}, "bag": {"rows": 100}}, "not a power of two"),
        ({"kind": "next_token"}, {"text": {"ngram_rows": 100}}, "not a power of two"),
        ({"kind": "next_token"}, {"text": {"positions": "words"}}, "answers by token"),
        ({"kind": "next_token", "dropout": 0.1}, {"text": {}}, "dropout 0.1 has no meaning"),
        ({"kind": "next_token", "label_smoothing": 0.1}, {"text": {}}, "label_smoothing 0.1 has no meaning"),
        ({"kind": "next_token", "balance": 0.1}, {"text": {}}, "balance 0.1 has no meaning"),
        ({"kind": "next_token"}, {"text": {"words": 1, "tokenizer": "t.json"}}, "found in bytes"),
        ({"kind": "next_token"}, {"text": {"drop": 0.1, "pad_to": 1}}, "drop needs a padding row"),
        ({"kind": "classes", "labels": ("a", "b")}, {}, "no stem"),
        ({"kind": "classes", "labels": ("a", "b")}, {"image": {"height": 30}}, "patch 4 does not divide 30"),
    ],
)
def test_parts_that_do_not_fit_are_refused_in_words(head: Any, stems: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig.model_validate({"trunk": TRUNK.model_dump(), "head": head, **stems})


def test_every_parameter_gets_a_first_value_and_a_gradient() -> None:
    model = model_of(
        CLASSES,
        image=ImageConfig(height=8, width=8, style="conv", conv_width=4),
        audio=VOICE,
        text=TextConfig(),
    )
    batch = {
        "image_BHWC": torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8),
        "audio_BS": noise(2, 1600),
        "audio_length_B": torch.tensor([1600, 800]),
        "tokens_BL": torch.ones(2, 3, dtype=torch.int64),
        "text_length_B": torch.tensor([3, 2]),
        "label_B": torch.tensor([0, 1]),
    }
    model(batch)["total"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_smoothed_targets_of_several_labels_in_training_only() -> None:
    head = HeadConfig(kind="multi_label", labels=("a", "b"), label_smoothing=0.2)
    model = model_of(head, text=TextConfig())
    tokens, labels = _bytes("some text"), torch.tensor([[1, 0]])
    batch = {"tokens_BL": tokens, "text_length_B": torch.tensor([tokens.shape[1]]), "labels_BK": labels}
    logits = model(batch, Want.LOGITS)["logits"]
    for mode, targets in ((model.eval, labels.float()), (model.train, torch.tensor([[0.9, 0.1]]))):
        mode()
        wanted = F.binary_cross_entropy_with_logits(logits, targets)
        torch.testing.assert_close(model(batch, Want.LOSS)["total"], wanted)
