"""An approved data set for any PyTorch script: `DataLoader(rsc.api.TrainingData("posts", batch_size=32),
batch_size=None)`.

The gate is asked as by `rsc train`, the key released to this process is logged, and both happen again every
few minutes, so that an end of the data, of its approval or of its key reaches a script that runs for days.
A process outside the sandbox is no isolated one: a policy with `isolation = "required"` refuses it.

Not covered: what the script does with a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from rsc.api.record import entry
from rsc.control.workspace_gate import WorkspaceGate
from rsc.loader.config import DataConfig
from rsc.loader.loader import Batch, Loader
from rsc.release.agent.custody import Custody
from rsc.release.agent.decision import LEASE_S
from rsc.release.agent.request import KeyRequest
from rsc.store.dataset import Dataset


class TrainingData(IterableDataset[Batch]):
    """Batches of a split, decrypted just before they are used: dicts of tensors [B, ...], or `RaggedTensor`
    for samples of any length. Shuffled anew each epoch; every sample once an epoch over ranks and workers.

    One iteration is one epoch; the next one goes on with the next epoch's order. With workers of a
    `DataLoader`, which are made anew each time, call `set_epoch` before each epoch. Raises GateRefused where
    the data may not be trained on, ConfigError for an unknown split or field.
    """

    def __init__(
        self,
        name: str,
        *,
        batch_size: int,
        version: int | None = None,
        split: str = "train",
        fields: tuple[str, ...] | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__()
        config = DataConfig(name=name, version=version, split=split, fields=fields, seed=seed)
        self._config = config.model_copy(update={"version": _admitted(config)})
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        self._epoch = 0
        self._state: dict[str, Any] | None = None

    @property
    def version(self) -> int:
        """Of the data set, as the gate admitted it."""
        assert self._config.version is not None
        return self._config.version

    def set_epoch(self, epoch: int) -> None:
        """Begin the next iteration with the order of that epoch."""
        self._epoch, self._state = epoch, None

    def state_dict(self) -> dict[str, Any]:
        """What comes after the newest batch of this process, as JSON values. With workers of a `DataLoader`
        the loader has to ask them (torchdata's StatefulDataLoader does)."""
        return {"epoch": self._epoch, "loader": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after that batch, in the next iteration. The number of ranks and workers may be another."""
        self._epoch, self._state = state["epoch"], state["loader"]

    def __iter__(self) -> Iterator[Batch]:
        is_done = False
        while not is_done:
            with closing(_Lease(self._config)) as lease, self._open(lease) as loader:
                is_done = True
                for batch in loader:
                    self._state = loader.state_dict()
                    yield batch
                    if lease.is_over:
                        is_done = False
                        break
        self.set_epoch(self._epoch + 1)

    def _open(self, lease: _Lease) -> Loader:
        """The loader of this process: a rank, or a part of one where `DataLoader` has workers."""
        worker = get_worker_info()
        parts, part = (worker.num_workers, worker.id) if worker is not None else (1, 0)
        split = lease.split
        loader = Loader(
            split,
            batch_size=self._batch_size,
            rank=self._rank * parts + part,
            world_size=self._world_size * parts,
            seed=self._config.seed,
            epochs=self._epoch + 1,
            fields=self._config.fields,
        )
        if self._state is not None:
            loader.load_state_dict(self._state)
        else:
            loader.return_to(self._epoch * split.num_samples)
        return loader


class _Lease:
    """A key of the data in this process, for a few minutes. Raises GateRefused."""

    @entry
    def __init__(self, config: DataConfig) -> None:
        house = Custody.open()
        self._clock = house.clock
        dataset = Dataset.open(house.workspace.bulk, name=config.name, version=config.version)
        request = KeyRequest("train", data=config.name, version=dataset.version)
        self._key = house.agent.release(request)
        self.split = dataset.split(config.split, key=self._key)
        self._ends_s = self._clock.monotonic_s() + LEASE_S

    @property
    def is_over(self) -> bool:
        return self._clock.monotonic_s() >= self._ends_s

    def close(self) -> None:
        self.split.close()
        self._key.close()


@entry
def _admitted(config: DataConfig) -> int:
    """The version that the gate lets train, now. Raises GateRefused; the refusal is logged."""
    house = Custody.open()
    gate = WorkspaceGate(house.workspace, house.providers, house.clock, house.account)
    return gate.admit(config).version
