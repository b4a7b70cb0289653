"""Which nodes are free: buckets by free GPUs, so that placing a job never walks the whole cluster.

A job below one node goes where it fits most tightly; a job of whole nodes goes into as few pods as can be.
"""

from __future__ import annotations


class Pool:
    """GPUs of nodes that are up. `free[node]` counts them; a node that is down has none."""

    def __init__(self, nodes: int, *, gpus_per_node: int, nodes_per_pod: int) -> None:
        self.per_node, self.per_pod = gpus_per_node, nodes_per_pod
        self.free = [gpus_per_node] * nodes
        self.up = [True] * nodes
        self.free_gpus = nodes * gpus_per_node
        self._buckets: list[list[int]] = [[] for _ in range(gpus_per_node + 1)]
        self._buckets[gpus_per_node] = list(range(nodes - 1, -1, -1))
        self._position = list(range(nodes - 1, -1, -1))
        pods = -(-nodes // nodes_per_pod)
        self._whole_in_pod = [min(nodes_per_pod, nodes - pod * nodes_per_pod) for pod in range(pods)]

    @property
    def whole_nodes(self) -> int:
        return len(self._buckets[self.per_node])

    def fits(self, gpus: int) -> bool:
        whole = self._buckets[self.per_node]
        if gpus < self.per_node:
            return bool(whole) or any(self._buckets[gpus : self.per_node])
        return len(whole) * self.per_node >= gpus

    def take(self, gpus: int) -> list[int]:
        """Nodes for a job that fits: one for a part of a node, whole ones otherwise."""
        if gpus < self.per_node:
            bucket = next(b for b in self._buckets[gpus:] if b)
            chosen = [bucket[-1]]
        elif gpus == self.per_node:
            chosen = [self._buckets[self.per_node][-1]]
        else:
            chosen = self._whole(gpus // self.per_node)
        share = min(gpus, self.per_node)
        for node in chosen:
            self._change(node, -share)
        return chosen

    def give_back(self, node: int, gpus: int) -> None:
        self._change(node, gpus)

    def take_down(self, node: int) -> int:
        """The node takes no more jobs. Returns the GPUs that were free on it."""
        free = self.free[node]
        self._move(node, free, 0)
        self.up[node] = False
        return free

    def bring_up(self, node: int, gpus: int) -> None:
        self.up[node] = True
        self._change(node, gpus)

    def pods_of(self, nodes: list[int]) -> int:
        return len({node // self.per_pod for node in nodes})

    def _whole(self, count: int) -> list[int]:
        pods = self._whole_in_pod
        if count <= self.per_pod:
            best = min((free for free in pods if free >= count), default=0)
            if best:
                return self._from_pod(pods.index(best), count)
        chosen: list[int] = []
        for pod in sorted(range(len(pods)), key=pods.__getitem__, reverse=True):
            chosen += self._from_pod(pod, count - len(chosen))
            if len(chosen) == count:
                break
        return chosen

    def _from_pod(self, pod: int, count: int) -> list[int]:
        nodes = range(pod * self.per_pod, min(len(self.free), (pod + 1) * self.per_pod))
        return [node for node in nodes if self.free[node] == self.per_node][:count]

    def _change(self, node: int, gpus: int) -> None:
        free = self.free[node]
        self._move(node, free, free + gpus)

    def _move(self, node: int, old: int, new: int) -> None:
        """To another bucket, in constant time: the last of the old one takes the place."""
        if old:
            bucket, place = self._buckets[old], self._position[node]
            last = bucket.pop()
            if last != node:
                bucket[place] = last
                self._position[last] = place
        if new:
            self._position[node] = len(self._buckets[new])
            self._buckets[new].append(node)
        if old == self.per_node:
            self._whole_in_pod[node // self.per_pod] -= 1
        elif new == self.per_node:
            self._whole_in_pod[node // self.per_pod] += 1
        self.free[node] = new
        self.free_gpus += new - old
