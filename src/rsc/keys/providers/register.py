"""What a key service does not keep for us: period, dates and state of each key, as public JSON files.

    <folder>/<kek id>.json
    <folder>/<kek id>.ending    its end began

The service decides whether a key opens anything; this register only remembers, and keeps the tombstone
of a destroyed key after the service has forgotten it. A key whose end began is refused, and counts as active
until the service has confirmed its end.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rsc.clock import Clock, parse_timestamp, timestamp
from rsc.durable import replace_file, sync_folder
from rsc.errors import KeyUnavailable
from rsc.keys.envelope import KekInfo, check_kek_id


class Register:
    def __init__(self, folder: Path, *, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    def find(self, kek_id: str) -> tuple[KekInfo, str] | None:
        """The key's facts and its name in the service; None for one never made."""
        try:
            return self._read(self._path(kek_id))
        except FileNotFoundError:
            return None

    def require(self, kek_id: str) -> str:
        """Its name in the service. Raises KeyUnavailable for one that is unknown, destroyed or expired."""
        found = self.find(kek_id)
        if found is None:
            raise KeyUnavailable(f"there is no key {kek_id} in this register", kek_id=kek_id)
        info, service_name = found
        if info.destroyed is not None:
            raise KeyUnavailable(
                f"key {kek_id} was destroyed on {info.destroyed:%Y-%m-%d}", kek_id=kek_id, state="destroyed"
            )
        if self._ending_path(kek_id).exists():
            raise KeyUnavailable(
                f"the end of key {kek_id} began and is not confirmed",
                hint="do again what was to end it",
                kek_id=kek_id,
                state="destroyed",
            )
        if info.expires is not None and self._clock.now() >= info.expires:
            raise KeyUnavailable(
                f"key {kek_id} expired at {timestamp(info.expires)}", kek_id=kek_id, state="expired"
            )
        return service_name

    def add(self, kek_id: str, *, period: str, expires: datetime | None, service_name: str) -> KekInfo:
        info = KekInfo(kek_id, period, self._clock.now(), expires, "active")
        self._write(info, service_name)
        return info

    def begin_end(self, kek_id: str, *, is_there: bool, service: str) -> None:
        """Refuse it from now on; again is no error. Raises KeyUnavailable for a key that is unknown, and for
        one that the service does not have although its end never began."""
        info, _ = self._known(kek_id)
        ending = self._ending_path(kek_id)
        if info.destroyed is not None or ending.exists():
            return
        if not is_there:
            raise KeyUnavailable(
                f"{service} has no key {kek_id}: nothing was destroyed",
                hint="check the provider's settings: the key may live on where it was made",
                kek_id=kek_id,
            )
        ending.touch()
        sync_folder(ending.parent)

    def bury(self, kek_id: str) -> KekInfo:
        """Mark as destroyed; the first date stays."""
        info, service_name = self._known(kek_id)
        if info.destroyed is None:
            info = replace(info, state="destroyed", destroyed=self._clock.now())
            self._write(info, service_name)
        self._ending_path(kek_id).unlink(missing_ok=True)
        return info

    def list(self) -> list[KekInfo]:
        return [self._read(path)[0] for path in sorted(self._folder.rglob("*.json")) if path.is_file()]

    def _known(self, kek_id: str) -> tuple[KekInfo, str]:
        found = self.find(kek_id)
        if found is None:
            raise KeyUnavailable(f"there is no key {kek_id} in this register", kek_id=kek_id)
        return found

    def _ending_path(self, kek_id: str) -> Path:
        return self._folder / f"{check_kek_id(kek_id)}.ending"

    def _path(self, kek_id: str) -> Path:
        return self._folder / f"{check_kek_id(kek_id)}.json"

    def _read(self, path: Path) -> tuple[KekInfo, str]:
        record = json.loads(path.read_bytes())
        expires, destroyed = record["expires"], record["destroyed"]
        info = KekInfo(
            kek_id=record["kek_id"],
            period=record["period"],
            created=parse_timestamp(record["created"]),
            expires=parse_timestamp(expires) if expires else None,
            state="destroyed" if destroyed else "active",
            destroyed=parse_timestamp(destroyed) if destroyed else None,
        )
        return info, record["service_name"]

    def _write(self, info: KekInfo, service_name: str) -> None:
        """Replace the file as a whole, durably."""
        path = self._path(info.kek_id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        record = {
            "kek_id": info.kek_id,
            "period": info.period,
            "created": timestamp(info.created),
            "expires": timestamp(info.expires) if info.expires else None,
            "destroyed": timestamp(info.destroyed) if info.destroyed else None,
            "service_name": service_name,
        }
        replace_file(path, json.dumps(record, indent=1).encode())
