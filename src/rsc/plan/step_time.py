"""Seconds of one optimiser step, by part, from closed forms over columns (work.py). No torch here.

What the formulas do not know by themselves - how near a product comes to the best one, what is hidden behind
computation, what a launch costs - stands in `Factors`, fitted once to published rows (fit.py); none of it
depends on the name of a model. Sources of the forms: pipeline and tensor parallelism, Narayanan et al. 2021
(arXiv:2104.04473); recompute and sequence parallelism, Korthikanti et al. 2022 (arXiv:2205.05198); sharding,
Rajbhandari et al. 2020 (arXiv:1910.02054); flash attention, Dao 2023 (arXiv:2307.08691).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rsc.plan.work import Layouts, Machine, Shape

_BALANCE = 271e12 / 2.039e12
"""FLOP a byte of an A100, to which the sizes at which products become slow are compared."""


@dataclass(frozen=True)
class Factors:
    """What is fitted. Shares are of the best measured rate of a device or of a link's one-way rate."""

    matmul: float = 0.85
    """Share of the best product that large products reach inside training."""
    narrow: float = 0.8
    """The same for 8 and 4 bits, over `matmul`."""
    rows: float = 128.0
    """Rows of a product at which half of the rate is lost, on an A100."""
    columns: float = 128.0
    """The same for its narrower side of weights."""
    attention: float = 0.6
    """Share of the best 16 bit product that fused attention reaches."""
    square: float = 20.0
    """Bytes read and written for one score of attention that is not fused, forward."""
    stream: float = 40.0
    """Bytes read and written a feature of the residual stream and block, forward."""
    inner: float = 10.0
    """The same a feature inside the MLP."""
    cast: float = 6.0
    """Bytes a feature that goes into a product of 8 or 4 bits."""
    young: float = 0.2
    """Time that kernels take beyond that when the device is new; fades with `ripe`."""
    ripe: float = 1.0
    """Years in which that shrinks to 1 / e."""
    eager_attention: float = 1.5
    """Times that plain kernels of attention take over the best for the device."""
    eager_stream: float = 1.5
    """The same of norms and activations."""
    launch_s: float = 2e-4
    """Seconds that the kernels of a block's forward pass take at least."""
    launch_unfused_s: float = 6e-4
    """The same of software before 2023."""
    up: float = 0.75
    """Share of the fast links that collectives reach."""
    out: float = 0.75
    """Share of the links between domains."""
    latency_s: float = 3e-5
    """Seconds of a message to each further power of two of ranks."""
    tensor_shown: float = 0.6
    """Of tensor parallel messages, what today's software does not hide."""
    expert_shown: float = 0.8
    pipe_shown: float = 0.5
    dp_hidden: float = 0.6
    """Of the backward pass, what gradients' messages can hide behind."""
    shard_hidden: float = 0.8
    """Of computation, what FSDP's messages can hide behind."""
    shard_shown: float = 0.05
    """Of FSDP's messages, what is always seen."""
    optimizer: float = 40.0
    """Bytes read and written a parameter by the optimiser."""
    step_s: float = 0.02
    """Seconds of a step besides."""
    jitter: float = 0.01
    """What each doubling beyond 8 devices adds, since all wait for the slowest."""
    logits: float = 16.0
    """Bytes read and written a score of the vocabulary."""
    route: float = 30.0
    """Bytes a feature of a token that goes to an expert, to sort and to bring back."""
    route_launch_s: float = 3e-4
    """Seconds of a block with experts at least, beyond a plain one."""

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimiser step on the slowest rank, by part."""

    compute: Any
    """Products and attention."""
    memory: Any
    """What waits for memory: norms, activations, casts, scores."""
    recompute: Any
    tensor: Any
    context: Any
    expert: Any
    pipe: Any
    bubble: Any
    data: Any
    """Messages of gradients and weights that are seen."""
    optimizer: Any
    jitter: Any

    @property
    def total(self) -> Any:
        return sum(np.asarray(part) for part in self.parts().values())

    def parts(self) -> dict[str, Any]:
        return dict(vars(self))


def step_time(shape: Shape, plan: Layouts, machine: Machine, factors: Factors) -> StepTime:
    f, p, s, m = factors, plan, shape, machine
    tokens = p.micro * np.asarray(s.sequence) / p.cp
    block = _Block(s, p, m, f, tokens)
    count = p.microbatches
    per_rank = np.asarray(s.layers) / p.pp
    head_compute, head_memory = _head(s, p, m, f, tokens)
    # A stage with the scores is the slowest unless layers are dealt out with them in mind.
    share = np.where(np.asarray(s.layers) % p.pp == 0, 1.0, 1.0 / np.asarray(p.pp))
    head_compute, head_memory = share * head_compute, share * head_memory
    compute = count * (per_rank * block.compute + head_compute)
    memory = count * (per_rank * block.memory + head_memory)
    again = count * per_rank * block.again
    tensor = count * per_rank * block.tensor
    context = count * per_rank * block.context
    expert = count * per_rank * block.expert
    pipe = _pipe(s, p, m, f, tokens)
    once = (compute + memory + again + tensor + context + expert) / count
    bubble = np.where(np.asarray(p.zero_bubble), 0.35, 1.0) * once * (np.asarray(p.pp) - 1) / p.virtual
    data = _data(s, p, m, f, busy=once * count, backward=once * 2 / 3)
    optimizer = _optimizer(s, p, m, f)
    total = once * count + pipe + bubble + data
    jitter = f.jitter * np.log2(np.maximum(np.asarray(p.world) / 8, 1)) * total
    return StepTime(compute, memory, again, tensor, context, expert, pipe, bubble, data, optimizer, jitter)


class _Block:
    """One block, one microbatch, forward and backward, averaged over dense blocks and those with experts."""

    def __init__(self, s: Shape, p: Layouts, m: Machine, f: Factors, tokens: Any) -> None:
        tp = np.asarray(p.tp)
        self._tokens, self._f, self._p, self._m = tokens, f, p, m
        self._narrow = np.asarray(p.bits) < 16
        self._slow = 1 + f.young * np.exp(-np.asarray(p.age) / f.ripe)
        self._rate = (
            f.matmul / self._slow * np.where(self._narrow, f.narrow * np.asarray(m.matmul_narrow), m.matmul)
        )
        self._scale = self._rate / np.asarray(m.memory_rate) / _BALANCE
        q = np.asarray(s.heads) * s.head_width / tp
        attention = self._product(tokens, s.attention_weights / tp, np.minimum(q, s.width))
        plain = self._product(tokens, s.mlp_weights / tp, np.minimum(np.asarray(s.mlp_width) / tp, s.width))
        share = s.expert_layers / np.asarray(s.layers)
        routed = self._experts(s) if np.any(share) else 0.0
        products = attention + (1 - share) * plain + share * routed
        core, core_memory = self._core(s)
        inner = (1 - share) * np.asarray(s.mlp_width) + share * (
            np.asarray(s.top_k) * s.expert_width + s.shared_width
        )
        stream = self._stream(s, inner=inner, share=share)
        launch = np.where(np.asarray(p.unfused), f.launch_unfused_s, f.launch_s) + share * f.route_launch_s
        busy = products + core + stream + core_memory
        idle = np.sqrt(busy**2 + launch**2) - busy
        self.compute = 3 * products + 3.5 * core
        self.memory = 3 * (stream + core_memory) + 2 * idle
        forward = busy + idle
        self.tensor = self._tensor(s) * (2 + (np.asarray(p.recompute) == 2))
        unfused = np.asarray(p.unfused)
        selective = np.where(unfused, core + core_memory, 0.1 * stream)
        self.again = np.select(
            [np.asarray(p.recompute) == 2, np.asarray(p.recompute) == 1], [forward, selective], 0.0
        )
        self.context = self._context(s, core)
        self.expert = (
            share * self._exchange(s) * (2 + (np.asarray(p.recompute) == 2)) if np.any(share) else 0.0
        )

    def _product(self, rows: Any, weights: Any, narrow_side: Any) -> Any:
        """Forward seconds of matrices of so many weights; slower where rows or a side are few."""
        f = self._f
        loss = (1 + f.rows * self._scale / rows) * (1 + f.columns * self._scale / narrow_side)
        return 2 * rows * weights / self._rate * loss

    def _experts(self, s: Shape) -> Any:
        """Rows of an expert are its share of what the ranks of its group bring."""
        p, tp = self._p, np.asarray(self._p.tp)
        rows = np.maximum(self._tokens * s.top_k * np.asarray(p.ep) / np.maximum(s.experts, 1), 1)
        side = np.minimum(np.maximum(np.asarray(s.expert_width), 1), s.width)
        each = s.matrices * s.width * np.asarray(s.expert_width) * s.top_k / tp
        loss = (1 + self._f.rows * self._scale / rows) * (1 + self._f.columns * self._scale / side)
        return 2 * self._tokens * each / self._rate * loss + self._product(
            self._tokens, s.shared_weights / tp, np.asarray(s.width)
        )

    def _core(self, s: Shape) -> tuple[Any, Any]:
        """(products, memory) of softmax(q k) v, forward; fused ones skip what a causal mask hides."""
        p, f, m = self._p, self._f, self._m
        scores = self._tokens * np.asarray(s.sequence) * s.heads / p.tp
        flops = 4 * scores * np.asarray(s.head_width)
        unfused = np.asarray(p.unfused)
        half = np.where(np.asarray(s.causal), 0.5, 1.0)
        eager = np.where(np.asarray(p.eager), f.eager_attention, 1.0)
        core = np.where(
            unfused,
            flops / (f.matmul * np.asarray(m.matmul) * 0.6),
            self._slow * eager * half * flops / (f.attention * np.asarray(m.matmul)),
        )
        return core, np.where(unfused, f.square * scores / m.memory_rate, 0.0)

    def _stream(self, s: Shape, *, inner: Any, share: Any) -> Any:
        p, f = self._p, self._f
        slow = self._slow * np.where(np.asarray(p.eager), f.eager_stream, 1.0)
        outer = f.stream * s.width / np.where(np.asarray(p.sequence_parallel), p.tp, 1)
        inside = f.inner * inner * np.where(s.gated, 1.5, 1.0) / p.tp
        cast = np.where(self._narrow, f.cast * (3 * np.asarray(s.width) + inner) / p.tp, 0.0)
        route = share * f.route * s.top_k * np.asarray(s.width) / p.tp
        return self._tokens * (outer + inside + cast + route) * slow / self._m.memory_rate

    def _tensor(self, s: Shape) -> Any:
        """Seen seconds of one pass: two sums of the stream over tp ranks."""
        p, m, f = self._p, self._m, self._f
        tp = np.asarray(p.tp)
        size = 2 * self._tokens * s.width
        rate = link_rate(m, f, ranks=tp, stride=1)
        seconds = 2 * (2 * size * (tp - 1) / tp / rate + f.latency_s * np.log2(tp))
        return np.where(np.asarray(p.unfused), 1.0, f.tensor_shown) * seconds

    def _context(self, s: Shape, core: Any) -> Any:
        """Keys and values go round the ring, once forward and twice backward; attention hides them."""
        p, m, f = self._p, self._m, self._f
        cp = np.asarray(p.cp)
        size = 2 * 2 * self._tokens * np.asarray(s.kv_heads) * s.head_width / p.tp
        seconds = 3 * ((cp - 1) * size / link_rate(m, f, ranks=cp, stride=p.tp) + f.latency_s * (cp - 1))
        return 0.1 * seconds + np.maximum(0.0, 0.9 * seconds - 3.5 * core)

    def _exchange(self, s: Shape) -> Any:
        """Of one pass: tokens go to their experts and back."""
        p, m, f = self._p, self._m, self._f
        ep = np.asarray(p.ep)
        size = 2 * self._tokens * np.asarray(s.top_k) * s.width / p.tp * (ep - 1) / ep
        inside = np.minimum(ep, m.domain) / ep
        seconds = size * np.maximum(
            inside / (f.up * np.asarray(m.scale_up)), (1 - inside) / (f.out * np.asarray(m.scale_out))
        )
        return f.expert_shown * 2 * (seconds + f.latency_s * np.log2(ep))


def _head(s: Shape, p: Layouts, m: Machine, f: Factors, tokens: Any) -> tuple[Any, Any]:
    scores = tokens * np.asarray(s.vocabulary) / p.tp
    return 6 * scores * s.width / (f.matmul * np.asarray(m.matmul)), f.logits * scores / m.memory_rate


def link_rate(m: Machine, f: Factors, *, ranks: Any, stride: Any) -> Any:
    """B/s of a ring over `ranks` that lie `stride` apart: inside a domain, or through all links of its
    members there."""
    domain = np.minimum(np.asarray(m.domain), m.world)
    inside = np.maximum(domain / np.asarray(stride), 1)
    up = f.up * np.asarray(m.scale_up)
    across = np.minimum(up, f.out * np.asarray(m.scale_out) * np.minimum(inside, ranks))
    return np.where(np.asarray(ranks) * stride <= domain, up, across)


def _pipe(s: Shape, p: Layouts, m: Machine, f: Factors, tokens: Any) -> Any:
    pp, size = np.asarray(p.pp), 2 * tokens * s.width
    size = size / np.where(np.asarray(p.sequence_parallel), p.tp, 1)
    stride = np.asarray(p.world) / pp
    rate = np.where(
        np.asarray(m.domain) >= stride * 2, f.up * np.asarray(m.scale_up), f.out * np.asarray(m.scale_out)
    )
    each = size / rate + f.latency_s
    return np.where(pp > 1, f.pipe_shown * 2 * p.microbatches * p.virtual * each, 0.0)


def _data(s: Shape, p: Layouts, m: Machine, f: Factors, *, busy: Any, backward: Any) -> Any:
    """Seen seconds of gradients' sums and, with FSDP, of gathered weights."""
    ranks = np.asarray(p.dp) * p.cp
    group = p.copies
    held = (s.block_weights + s.edge_weights) / np.asarray(p.tp) / p.pp
    experts = s.expert_weights / np.asarray(p.tp) / p.pp / p.ep
    rate = link_rate(m, f, ranks=np.where(np.asarray(p.shard) == 3, group, ranks), stride=p.tp)
    ring = (ranks - 1) / ranks
    rounds = f.latency_s * np.log2(np.maximum(ranks, 1))
    trained = np.asarray(s.trainable)
    once = 4 * (held + experts) * trained * ring / rate * np.where(np.asarray(p.unfused), 1.0, 1.25) + rounds
    plain = np.where(np.asarray(p.unfused), once, np.maximum(0.1 * once, once - f.dp_hidden * backward))
    gathers = np.where(np.asarray(p.pp) > 1, 1.0, p.microbatches)
    sharded = gathers * (2 * (2 * held + 2 * experts) + 2 * (held + experts) * trained) * ring / rate
    sharded = sharded + gathers * 3 * np.asarray(s.layers) / p.pp * rounds
    full = np.maximum(f.shard_shown * sharded, sharded - f.shard_hidden * busy)
    return np.where(ranks > 1, np.where(np.asarray(p.shard) == 3, full, plain), 0.0)


def _optimizer(s: Shape, p: Layouts, m: Machine, f: Factors) -> Any:
    held = (s.block_weights + s.edge_weights + s.expert_weights / np.asarray(p.ep)) / np.asarray(p.tp) / p.pp
    share = np.where(np.asarray(p.shard) >= 1, p.copies, 1)
    rate = np.where(np.asarray(p.offload), np.minimum(m.memory_rate, 25e9), m.memory_rate)
    return f.step_s + f.optimizer * held * s.trainable / share / rate
