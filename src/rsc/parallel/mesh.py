"""The ranks as device meshes. Three views of the same ranks, because axes group them differently.

    dense    pp, dp_replicate, fsdp = dp_shard x cp, tp          weights of everything but experts
    data     pp, dp, cp, tp                                      samples and sequence parts
    experts  pp, dp_replicate, expert_fsdp, ep                   expert weights: (fsdp x tp) regrouped by ep

A view is made only when an axis needs it; a process group costs milliseconds and sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from rsc.parallel.layout import Layout


@dataclass(frozen=True)
class Mesh:
    layout: Layout
    rank: int
    device: torch.device
    dense: DeviceMesh
    data: DeviceMesh
    experts: DeviceMesh | None

    def axis(self, name: str) -> DeviceMesh:
        """The ranks that differ from this one on one axis only."""
        for view in (self.dense, self.data, self.experts):
            if view is not None and name in (view.mesh_dim_names or ()):
                return view[name]
        raise AssertionError(f"no mesh axis {name}")

    def group(self, name: str) -> dist.ProcessGroup:
        return self.axis(name).get_group()

    def data_group(self) -> dist.ProcessGroup:
        """Ranks that read different samples and hold the same part of everything else."""
        return self.group("dp" if self.data is not self.dense else "fsdp")

    def place(self, name: str) -> int:
        """This rank's coordinate on an axis of the layout."""
        return self.layout.coordinates(self.rank)[name]

    def is_writer(self, tensor: torch.Tensor) -> bool:
        """Of the ranks that hold the same part and differ on axes this tensor knows nothing of: the first.

        Pipeline ranks never hold the same weights, so `pp` does not count.
        """
        names = tensor.device_mesh.mesh_dim_names or () if isinstance(tensor, DTensor) else ()
        known = {axis for name in names for axis in _COVERS[name]}
        return all(self.place(axis) == 0 for axis in _WEIGHT_AXES if axis not in known)


_WEIGHT_AXES = ("dp_replicate", "dp_shard", "cp", "tp")
_COVERS = {
    "pp": ("pp",),
    "dp_replicate": ("dp_replicate",),
    "fsdp": ("dp_shard", "cp"),
    "tp": ("tp",),
    "expert_replicate": ("dp_replicate",),
    "expert_fsdp": ("dp_shard", "cp", "tp"),
    "ep": ("dp_shard", "cp", "tp"),
}
"""Layout axes whose ranks a mesh axis tells apart. Expert axes come in pairs, so both cover all three."""


def build_mesh(layout: Layout, *, rank: int, device: torch.device, has_experts: bool = False) -> Mesh:
    """Make the process groups. Every rank calls it at the same time; needs an initialised process group."""

    def view(**sizes: int) -> DeviceMesh:
        return init_device_mesh(device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))

    dense = view(pp=layout.pp, dp_replicate=layout.dp_replicate, fsdp=layout.fsdp, tp=layout.tp)
    is_apart = layout.cp > 1 or layout.dp_replicate > 1
    data = view(data_pp=layout.pp, dp=layout.dp, cp=layout.cp, data_tp=layout.tp) if is_apart else dense
    experts = None
    if has_experts and (layout.ep > 1 or layout.tp > 1):
        holders = layout.fsdp * layout.tp
        experts = view(
            expert_pp=layout.pp,
            expert_replicate=layout.dp_replicate,
            expert_fsdp=holders // layout.ep,
            ep=layout.ep,
        )
    return Mesh(layout=layout, rank=rank, device=device, dense=dense, data=data, experts=experts)
