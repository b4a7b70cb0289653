"""What a model is made of, as settings: stems (inputs), one trunk, one head. No torch here.

A stem that is absent is an input the model does not read. Stems that are present feed one sequence,
in the order image, audio, text, so that a post with a picture is one sample.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rsc.layers import FrozenModel
from rsc.models.tasks.kinds import TASKS, task_of
from rsc.models.tasks.task import Task

NUM_BYTES = 256
TOKENIZER_FILE = "tokenizer.json"  # its name in the folder of a run or an export
SEPARATOR = 256  # the id between two documents; the byte tokenizer has 257 ids in all


class MoeConfig(FrozenModel):
    """Experts in place of a block's MLP; a token takes `top_k` of them and all the shared ones."""

    num_experts: PositiveInt
    """Routed experts of a block. Expert parallelism must divide it."""
    top_k: PositiveInt
    """Routed experts a token takes."""
    expert_width: PositiveInt
    """Features inside one expert's gated MLP."""
    num_shared: NonNegativeInt = 0
    """Shared experts, as one MLP of num_shared x expert_width that every token takes."""
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    """How router logits become scores: softmax as Mixtral, sigmoid as DeepSeek-V3."""
    normalise: bool = True
    """Divide the scores of the chosen experts by their sum."""
    balance_rate: NonNegativeFloat = 1e-3
    """Step of the choice bias towards even load after each optimiser step; 0 turns balancing off."""
    first_layer: NonNegativeInt = 0
    """Blocks before this one keep a plain MLP of mlp_width."""

    @model_validator(mode="after")
    def _enough_experts(self) -> MoeConfig:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        return self


class RopeScaling(FrozenModel):
    """Llama 3.1's stretch of the long rotary wavelengths to a longer context (Llama 3 paper, section 3.4)."""

    factor: PositiveFloat
    """How many times longer than the original context."""
    low_freq_factor: PositiveFloat = 1.0
    """Wavelengths above original_context / this are stretched in full."""
    high_freq_factor: PositiveFloat = 4.0
    """Wavelengths below original_context / this are left alone; between the two it blends."""
    original_context: PositiveInt
    """Positions the model was first trained on."""


class TrunkConfig(FrozenModel):
    """A pre-norm transformer: RMSNorm, rotary positions, grouped-query attention, gated MLP."""

    width: PositiveInt
    """Features of the residual stream."""
    num_layers: PositiveInt
    """Transformer blocks."""
    num_heads: PositiveInt
    """Query heads."""
    num_kv_heads: PositiveInt | None = None
    """Key and value heads; divides num_heads; default num_heads. Tensor parallelism must divide it."""
    head_width: PositiveInt | None = None
    """Features of one head; even; default width / num_heads."""
    mlp_width: PositiveInt
    """Features inside the gated MLP, which has three matrices of width x mlp_width."""
    causal: bool = True
    """True: a position sees itself and earlier ones (next token). False: all of its document."""
    documents: Literal["masked", "joined"] = "masked"
    """Packed documents: `masked` never attends across a separator, `joined` does (one document, faster)."""
    rope_base: PositiveFloat = 10_000.0
    """Base of the rotary wavelengths (Su et al. 2021, arXiv:2104.09864); larger for longer context."""
    rope_scaling: RopeScaling | None = None
    """Set for weights that were stretched to a longer context."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the mean square inside RMSNorm."""
    moe: MoeConfig | None = None
    """Set: blocks from moe.first_layer on have experts."""

    def has_experts(self, layer: int) -> bool:
        return self.moe is not None and layer >= self.moe.first_layer

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_features(self) -> int:
        return self.head_width or self.width // self.num_heads

    @model_validator(mode="after")
    def _heads_fit(self) -> TrunkConfig:
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_kv_heads {self.kv_heads} does not divide num_heads {self.num_heads}")
        if self.head_width is None and self.width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide width {self.width}")
        if self.head_features % 2:
            raise ValueError(f"head_width {self.head_features} is odd; rotary positions turn pairs")
        return self


class TextConfig(FrozenModel):
    """Token ids in, vectors of the trunk's width out."""

    field: str = "text"
    """Field of a sample: text, bytes or token ids. Packed language data has no fields; it ignores this."""
    vocabulary: PositiveInt = NUM_BYTES + 1
    """Number of token ids; 257 is the byte tokenizer (256 bytes and the separator)."""
    tokenizer: str = "bytes"
    """`bytes`, or the path of a tokenizer.json. Runs and exports keep a copy beside their papers."""
    tokenizer_sha256: str = ""
    """Of that file's content, written down when a run is made; another file is refused. Empty: any."""
    max_length: PositiveInt = 512
    """Tokens of one sample; longer text is cut there, and counted. Packed language data ignores this."""
    ngrams: tuple[PositiveInt, ...] = ()
    """Lengths of token sequences, such as [3, 4, 5], whose hashes get vectors that are added to the last
    token's (Pagnoni et al. 2024, arXiv:2412.09871): spelling for little work. Letters lose their case."""
    words: NonNegativeInt = 0
    """Longest sequence of whole words whose hash gets such a vector, at its last letter; for bytes only."""
    ngram_rows: PositiveInt = 32768
    """Vectors per length; a power of two. Sequences that share one are not told apart."""
    ngram_width: PositiveInt = 48
    """Features of such a vector, before one matrix brings them to the trunk's width."""
    positions: Literal["tokens", "words"] = "tokens"
    """What a position of the trunk is. words: a run of letters, digits and bytes over 127 with what follows
    it, for bytes only: a fifth of the positions, and fewer samples teach it. Not for heads that answer by
    token."""
    drop: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """In training this share of the positions is hidden; for small data sets."""
    pad_to: PositiveInt = 64
    """The embedding gets rows up to the next multiple of this, for fast and divisible matrices."""
    initial_std: Annotated[float, Field(gt=0.0)] = 0.02
    """Of the embedding's first values. Muon moves the blocks so fast that they do better beside larger ones
    (0.2 in recipe `language`); AdamW does not."""

    @property
    def rows(self) -> int:
        return -(-self.vocabulary // self.pad_to) * self.pad_to

    @model_validator(mode="after")
    def _rows_fit(self) -> TextConfig:
        if self.ngram_rows & (self.ngram_rows - 1):
            raise ValueError(f"ngram_rows {self.ngram_rows} is not a power of two")
        if (self.words or self.positions == "words") and self.tokenizer != "bytes":
            raise ValueError(
                "words are found in bytes: set words = 0 and positions = tokens with this tokenizer"
            )
        if self.drop and self.rows == self.vocabulary:
            raise ValueError("drop needs a padding row to stand for dropped tokens: raise pad_to")
        return self


class ImageConfig(FrozenModel):
    """Images in, one vector per patch out."""

    field: str = "image"
    """Field of a sample: a tensor [height, width, channels] uint8, or an encoded file (JPEG, PNG)."""
    height: PositiveInt = 32
    """Pixels; encoded files of other sizes are resized."""
    width: PositiveInt = 32
    """Pixels."""
    channels: Literal[1, 3] = 3
    """1 grey, 3 red green blue."""
    patch: Literal[1, 2, 4, 8, 16, 32] = 4
    """Pixels of a side that become one position; must divide height and width."""
    style: Literal["patch", "conv"] = "patch"
    """patch: one linear map. conv: residual convolutions that halve the sides log2(patch) times, which learn
    from far fewer images (Xiao et al. 2021, arXiv:2106.14881)."""
    conv_width: PositiveInt = 64
    """conv only: channels at half the sides; from a quarter of the sides on there are four times as many."""
    augment: Literal["none", "flip_crop"] = "none"
    """flip_crop: in training mirror half of the images and shift all by up to an eighth of a side."""

    @property
    def num_positions(self) -> int:
        return (self.height // self.patch) * (self.width // self.patch)

    @model_validator(mode="after")
    def _patches_fit(self) -> ImageConfig:
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"patch {self.patch} does not divide {self.height} x {self.width}")
        return self


class AudioConfig(FrozenModel):
    """Sound in, one vector per `stack` frames of log-mel energies out."""

    field: str = "audio"
    """Field of a sample: mono samples at sample_rate (int16 or float), or an encoded file (WAV, FLAC)."""
    sample_rate: PositiveInt = 8000
    """Samples a second; encoded files at other rates are resampled."""
    window_ms: PositiveFloat = 25.0
    """Length of the Hann window."""
    hop_ms: PositiveFloat = 10.0
    """Time between two frames."""
    num_mels: PositiveInt = 40
    """Triangular filters, even on the mel scale."""
    stack: PositiveInt = 4
    """Frames per position."""
    max_seconds: PositiveFloat = 4.0
    """Longer sound is cut there, and counted."""
    augment: Literal["none", "mask"] = "none"
    """mask: in training blank random stretches of time and pitch (SpecAugment, arXiv:1904.08779)."""

    @property
    def hop(self) -> int:
        return round(self.sample_rate * self.hop_ms / 1000)

    @property
    def max_samples(self) -> int:
        return round(self.sample_rate * self.max_seconds)


class HeadConfig(FrozenModel):
    """What the model answers."""

    kind: Literal["next_token", "masked_token", "classes", "multi_label", "ctc", "contrastive"] = "next_token"
    """next_token: each position says what follows. masked_token: hidden tokens are guessed. classes: one
    of `labels`. multi_label: any of `labels`. ctc: a sequence of `labels` shorter than the positions
    (Graves et al. 2006). contrastive: which text goes with which image or sound (CLIP, arXiv:2103.00020)."""
    field: str = "label"
    """Field of a sample that holds the answer. classes: a number, or one of `labels` as text. multi_label:
    a tensor of 0 and 1. ctc: text."""
    labels: tuple[str, ...] = ()
    """Names of the classes, in order of their numbers; the symbols of ctc."""
    unit: Literal["words", "characters"] = "words"
    """ctc: what of the text one symbol stands for."""
    balance: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """classes: an item weighs (1 / share of its class) to this power: 0 counts items, 1 counts classes. The
    shares are counted in the training split before the first step."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """classes, multi_label: this much of the target is spread evenly over the answers."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """classes, multi_label: share of the pooled features that is hidden from the last layer in training."""
    mask_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    """masked_token: share of the tokens that are hidden (BERT, arXiv:1810.04805)."""
    projection: PositiveInt = 128
    """contrastive: features of the space in which the two sides meet."""

    @model_validator(mode="after")
    def _labels_fit(self) -> HeadConfig:
        task = TASKS[self.kind]
        if task.answers_field:
            if len(self.labels) < task.least_labels:
                raise ValueError(f'a {self.kind} head needs `labels`, for example ["cat", "dog"]')
            if len(set(self.labels)) < len(self.labels):
                raise ValueError("labels has a name twice")
        if self.label_smoothing and not task.pools_features:
            raise ValueError(
                f"label_smoothing {self.label_smoothing} has no meaning for a {self.kind} head: set 0"
            )
        if self.dropout and not task.pools_features:
            raise ValueError(f"dropout {self.dropout} has no meaning for a {self.kind} head: set 0")
        if self.balance and not task.balances_classes:
            raise ValueError(f"balance {self.balance} has no meaning for a {self.kind} head: set 0")
        return self


class BagConfig(FrozenModel):
    """A second opinion on a text's class: a linear one, from which n-grams and words are in it, whatever
    their order. Rare ones weigh more (tf-idf), as counted in the training split before the first step.

    Bag and trunk are trained side by side, each on its own loss; the answer is the mean of their log
    probabilities. Without `ngrams` and `words` there is no bag."""

    ngrams: tuple[PositiveInt, ...] = ()
    """Lengths of token sequences, such as [2, 3, 4, 5]. Letters lose their case."""
    words: NonNegativeInt = 0
    """Longest sequence of whole words; for bytes only."""
    rows: PositiveInt = 65536
    """Weights per class and length; a power of two. Sequences whose hashes share one are not told apart."""
    min_texts: PositiveInt = 2
    """What is in fewer texts of the training split than this is not looked at."""

    @property
    def num_tables(self) -> int:
        return len(self.ngrams) + self.words

    @model_validator(mode="after")
    def _rows_fit(self) -> BagConfig:
        if self.rows & (self.rows - 1):
            raise ValueError(f"rows {self.rows} is not a power of two")
        return self


class ModelConfig(FrozenModel):
    """One model: `[model.trunk]`, the stems that are present, `[model.head]`, `[model.bag]`."""

    trunk: TrunkConfig
    text: TextConfig | None = None
    image: ImageConfig | None = None
    audio: AudioConfig | None = None
    head: HeadConfig = Field(default_factory=HeadConfig)
    bag: BagConfig | None = None
    init_from: str = ""
    """A run of the same workspace, or a folder of open weights (an export, Llama, Mixtral), to start from:
    weights of the same name and shape are taken over."""

    @property
    def task(self) -> Task:
        """What `head.kind` names, with these settings."""
        return task_of(self)

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelConfig:
        stems = [name for name in ("image", "audio", "text") if getattr(self, name) is not None]
        if not stems:
            raise ValueError("no stem: set [model.text], [model.image] or [model.audio]")
        self.task.check(stems)
        return self

    @model_validator(mode="after")
    def _bag_fits(self) -> ModelConfig:
        if self.bag is None or not self.bag.num_tables:
            return self
        if not self.task.balances_classes or self.text is None:
            raise ValueError(
                f"a bag sorts texts into classes, here is a {self.head.kind} head"
                f"{'' if self.text is not None else ' without text'}: set bag.ngrams = [] and bag.words = 0"
            )
        if self.bag.words and self.text.tokenizer != "bytes":
            raise ValueError("words are found in bytes: set bag.words = 0 with this tokenizer")
        return self


def with_tokenizer_in(config: ModelConfig, folder: Path) -> ModelConfig:
    """The settings with the tokenizer that lies in the folder of their run or export, if one does: papers
    name it without a folder, so that they stay true where they are moved."""
    text = config.text
    if text is None or text.tokenizer != TOKENIZER_FILE or not (folder / TOKENIZER_FILE).is_file():
        return config
    found = text.model_copy(update={"tokenizer": str((folder / TOKENIZER_FILE).resolve())})
    return config.model_copy(update={"text": found})
