"""Count what a piece of a model does while it runs, on real or fake tensors: FLOPs, saved bytes, messages."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from rsc.parallel.mesh import Mesh
from rsc.parallel.tensor import local

_CPU_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_CPU_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default,
             _CPU_ATTENTION.default}  # fmt: skip


class Meter:
    """Use `forward()` round the forward pass and `backward()` round the other."""

    def __init__(self, mesh: Mesh) -> None:
        self._axes = _axes(mesh)
        self.flops = 0.0
        self.saved_bytes = 0
        """Distinct storages that autograd keeps, weights left out."""
        self.kept_bytes = 0
        """Results of matrix products and attention in the forward pass."""
        self.sent_bytes: Counter[str] = Counter()
        self.peak_bytes = 0
        """Most bytes alive at one time of what both passes made; weights and inputs left out."""
        self._alive: dict[int, int] = {}
        self._given: set[int] = set()

    @contextmanager
    def forward(self, model: nn.Module) -> Iterator[None]:
        weights = {local(parameter).untyped_storage()._cdata for parameter in model.parameters()}
        self._given = weights
        seen: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = local(tensor).untyped_storage()
            if storage._cdata not in weights:
                seen[storage._cdata] = storage.nbytes()
            return tensor

        with self._counting(is_forward=True), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            yield
        self.saved_bytes += sum(seen.values())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Messages only, of whatever runs."""
        with _Listener(self, is_forward=False, watches_memory=False):
            yield

    @contextmanager
    def backward(self) -> Iterator[None]:
        with self._counting(is_forward=False):
            yield

    @contextmanager
    def _counting(self, *, is_forward: bool) -> Iterator[None]:
        flops = FlopCounterMode(
            display=False,
            custom_mapping={
                _CPU_ATTENTION: _attention_flops,
                _CPU_ATTENTION_BACKWARD: _attention_backward_flops,
            },
        )
        with flops, _Listener(self, is_forward=is_forward):
            yield
        self.flops += flops.get_total_flops()

    def see(self, made: Any) -> None:
        """Note new storages among the results of an operation, until they die."""
        for tensor in tree_leaves(made):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = local(tensor).untyped_storage()
            if storage._cdata not in self._alive and storage._cdata not in self._given:
                self._alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self._alive.pop, storage._cdata, None)
        self.peak_bytes = max(self.peak_bytes, sum(self._alive.values()))

    def hear(self, operation: Any, args: tuple[Any, ...]) -> None:
        """Add the payload that this rank gives to a collective."""
        name = operation._schema.name.removeprefix("c10d::")
        if name not in _PAYLOAD:
            return
        group = next(arg for arg in args if isinstance(arg, torch.ScriptObject))
        axis = self._axes.get(dist.ProcessGroup.unbox(group).group_name, "world")
        given = args[_PAYLOAD[name]]
        tensors = given if isinstance(given, list) else [given]
        self.sent_bytes[axis] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)


_PAYLOAD = {"_allgather_base_": 1, "_reduce_scatter_base_": 1, "alltoall_base_": 1, "allreduce_": 0,
            "send": 0}  # fmt: skip
"""Which argument of a message is what the rank gives."""


class _Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, meter: Meter, *, is_forward: bool, watches_memory: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._meter = meter
        self._is_forward = is_forward
        self._watches_memory = watches_memory

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d":
            self._meter.hear(func, args)
        out = func(*args, **(kwargs or {}))
        if self._watches_memory and func.namespace == "aten":
            self._meter.see(out)
        if self._is_forward and func in _PRODUCTS:
            first = out[0] if isinstance(out, tuple) else out
            self._meter.kept_bytes += first.numel() * first.element_size()
        return out


def _axes(mesh: Mesh) -> dict[str, str]:
    """Axis by the name of its process group."""
    found: dict[str, str] = {}
    for view in (mesh.experts, mesh.data, mesh.dense):
        for axis in (view.mesh_dim_names or ()) if view is not None else ():
            assert view is not None
            found[view[axis].get_group().group_name] = axis
    return found


def _attention_flops(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    shapes = (query, _like_query(query, key), _like_query(query, value))
    return int(sdpa_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    shapes = (grad, query, _like_query(query, key), _like_query(query, value))
    return int(sdpa_backward_flop_count(*shapes))  # type: ignore[no-untyped-call]


def _like_query(query: Any, shared: Any) -> Any:
    """Grouped-query attention does the work of as many key heads as there are query heads."""
    return (*shared[:1], query[1], *shared[2:])
