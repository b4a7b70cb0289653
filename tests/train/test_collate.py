from __future__ import annotations

import io
from collections import Counter
from itertools import accumulate
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image

from rsc.loader.ragged import RaggedTensor
from rsc.models.build import build_model
from rsc.models.config import AudioConfig, HeadConfig, ImageConfig, ModelConfig, TextConfig, TrunkConfig
from rsc.models.cross_entropy import IGNORED
from rsc.train.batches.collate import Binder, bind_images
from rsc.train.batches.sample_seeds import Draws
from rsc.train.engine.loss import loss_of

TRUNK = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, causal=False)
CLASSES = HeadConfig(kind="classes", labels=("cat", "dog"))
PIXELS = ImageConfig(height=8, width=8)
VOICE = AudioConfig(sample_rate=8000, num_mels=8, max_seconds=0.1)


def ragged(samples: list[Any], *, dtype: torch.dtype = torch.uint8) -> RaggedTensor:
    parts = [torch.tensor(list(s) if isinstance(s, bytes) else s, dtype=dtype) for s in samples]
    values = torch.cat(parts) if parts else torch.empty(0, dtype=dtype)
    return RaggedTensor(values=values, offsets=torch.tensor([0, *accumulate(map(len, parts))]))


def strings(*texts: str) -> RaggedTensor:
    return ragged([text.encode() for text in texts])


def config(head: HeadConfig = CLASSES, **stems: Any) -> ModelConfig:
    return ModelConfig(trunk=TRUNK, head=head, **stems)


def picture(size: tuple[int, int] = (8, 8), *, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 128).save(file, kind)
    return file.getvalue()


def wav(samples: np.ndarray, *, rate: int = 8000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def test_text_is_led_by_a_separator_padded_cut_and_counted() -> None:
    binder = Binder(config(text=TextConfig(max_length=4)))
    bound = binder.bind({"text": strings("ab", "", "abcdef"), "label": torch.tensor([0, 1, 1])})
    assert bound.batch["tokens_BL"].tolist() == [[256, 97, 98, 256], [256] * 4, [256, 97, 98, 99]]
    assert bound.batch["text_length_B"].tolist() == [3, 1, 4]
    assert bound.batch["label_B"].tolist() == [0, 1, 1]
    assert +bound.bad == {"text_empty": 1, "text_cut": 1}


def test_labels_as_numbers_or_names_and_what_is_neither() -> None:
    binder = Binder(config(text=TextConfig()))
    texts = strings("a", "b", "c")
    numbers = binder.bind({"text": texts, "label": torch.tensor([1, 2, -1])})
    names = binder.bind({"text": texts, "label": strings("dog", "bird", "cat")})
    assert numbers.batch["label_B"].tolist() == [1, IGNORED, IGNORED]
    assert names.batch["label_B"].tolist() == [1, IGNORED, 0]
    assert (numbers.bad["label"], names.bad["label"]) == (2, 1)


def test_pictures_of_all_kinds_and_what_is_none() -> None:
    files = [
        picture(),
        picture((1, 1), kind="PNG"),
        picture((40, 20), mode="CMYK"),
        b"no",
        b"",
        picture()[:50],
    ]
    bound = Binder(config(image=PIXELS)).bind(
        {"image": ragged(files), "label": torch.zeros(6, dtype=torch.int64)}
    )
    assert bound.batch["image_BHWC"].shape == (6, 8, 8, 3)
    assert bound.batch["image_present_B"].tolist() == [True] * 3 + [False] * 3
    assert bound.batch["label_B"].tolist() == [0] * 3 + [IGNORED] * 3
    assert +bound.bad == {"picture": 3}


def test_pictures_that_came_decoded_are_present_where_they_could_be() -> None:
    image = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    bad: Counter[str] = Counter()
    is_good = torch.tensor([True, False, True])
    bound = bind_images(image, is_good_B=is_good, config=ImageConfig(), bad=bad)
    assert bad["picture"] == 1
    assert bound["image_present_B"].tolist() == is_good.tolist()
    assert torch.equal(bound["image_BHWC"], image)


def test_a_damaged_picture_with_text_still_counts_by_its_text() -> None:
    bound = Binder(config(image=PIXELS, text=TextConfig())).bind(
        {"image": ragged([b"no"]), "text": strings("a"), "label": torch.tensor([1])}
    )
    assert bound.batch["label_B"].tolist() == [1]


def test_numbers_that_are_none_are_set_aside() -> None:
    images = torch.rand(3, 8, 8, 3)
    images[1, 0, 0, 0] = float("nan")
    bound = Binder(config(image=PIXELS)).bind({"image": images, "label": torch.tensor([0, 1, 1])})
    assert bound.batch["label_B"].tolist() == [0, IGNORED, 1]
    assert bound.batch["image_BHWC"].isfinite().all()
    assert +bound.bad == {"not_finite": 1}


def test_sounds_of_all_kinds_and_what_is_none() -> None:
    tone = np.sin(np.arange(400) / 5)
    files = [
        wav(tone),
        wav(np.stack([tone, tone], 1)),
        wav(tone, rate=16000),
        wav(np.zeros(0)),
        b"RIFF",
        wav(np.tile(tone, 5)),
    ]
    bound = Binder(config(audio=VOICE)).bind(
        {"audio": ragged(files), "label": torch.zeros(6, dtype=torch.int64)}
    )
    assert bound.batch["audio_length_B"].tolist() == [400, 400, 200, 0, 0, 800]
    torch.testing.assert_close(bound.batch["audio_BS"][0], bound.batch["audio_BS"][1])
    assert bound.batch["label_B"].tolist() == [0, 0, 0, IGNORED, IGNORED, 0]
    assert +bound.bad == {"sound": 2, "sound_cut": 1}


def test_raw_samples_are_sound_too() -> None:
    shorts = ragged([[0, 16384, -32768], [1]], dtype=torch.int16)
    bound = Binder(config(audio=VOICE)).bind({"audio": shorts, "label": torch.tensor([0, 1])})
    assert bound.batch["audio_BS"].tolist() == [[0.0, 0.5, -1.0], [1 / 32768, 0.0, 0.0]]


def test_symbols_of_words_and_of_characters() -> None:
    head = HeadConfig(kind="ctc", labels=("one", "two"))
    sounds = ragged([[5] * 300] * 3, dtype=torch.int16)
    bound = Binder(config(head, audio=VOICE)).bind(
        {"audio": sounds, "label": strings("two one two", "", "three")}
    )
    assert bound.batch["symbols_BU"].tolist() == [[2, 1, 2], [0, 0, 0], [0, 0, 0]]
    assert bound.batch["symbol_count_B"].tolist() == [3, 0, -1]
    assert bound.bad["label"] == 1
    letters = HeadConfig(kind="ctc", labels=("a", "b"), unit="characters")
    spelled = Binder(config(letters, audio=VOICE)).bind({"audio": sounds, "label": strings("ab", "b", "a")})
    assert spelled.batch["symbols_BU"].tolist() == [[1, 2], [2, 0], [1, 0]]


def test_several_labels_at_once() -> None:
    head = HeadConfig(kind="multi_label", labels=("a", "b"))
    binder = Binder(config(head, text=TextConfig()))
    labels = torch.tensor([[1, 0], [2, 0], [0, 0]], dtype=torch.uint8)
    bound = binder.bind({"text": strings("x", "y", "z"), "label": labels})
    assert bound.batch["labels_BK"].tolist() == [[1, 0], [-1, -1], [0, 0]]
    assert bound.bad["label"] == 1


def test_hidden_tokens_are_the_targets_and_the_model_does_not_see_them() -> None:
    head = HeadConfig(kind="masked_token", mask_share=0.5)
    columns = {"text": strings("abcdefgh" * 8, "xy")}
    bound = Binder(config(head, text=TextConfig())).bind(columns, draws=Draws(0))
    tokens, targets = bound.batch["tokens_BL"], bound.batch["targets_BL"]
    hidden = targets != IGNORED
    assert (tokens[hidden] == 257).all()
    assert (tokens[~hidden] < 257).all()
    assert 0.3 < hidden[0].float().mean() < 0.7
    assert not hidden[1, 3:].any(), "padding is not guessed"


def test_a_whole_batch_of_bad_samples_is_a_loss_of_zero_items() -> None:
    model = build_model(config(image=PIXELS))
    record = loss_of(model, {"image": ragged([b"no", b"nor this"]), "label": torch.tensor([0, 9])})
    record.total.backward()
    assert (int(record.count), float(record.total.detach())) == (0, 0.0)
    assert {name: int(value) for name, value in record.sums.items()} == {
        "correct": 0,
        "bad_picture": 2,
        "bad_label": 1,
    }
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
