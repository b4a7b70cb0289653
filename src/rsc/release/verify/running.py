"""What `rsc verify` sees of processes that hold keys, and of those that held some, from outside.

Not covered: descriptors of processes that hide their memory, which only root can list: the row is then
unknown, unless something else is wrong; what ended before anybody looked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from rsc.clock import parse_timestamp
from rsc.release.agent.sandboxes import orphans_of, sandbox_of
from rsc.release.verify.checks import VerifyContext, lives_since
from rsc.release.verify.promise import Breach, Promise, judge, unknown

_TTY_FIELD = 4  # tty_nr of proc(5), counted behind the name
_TERMINALS = ("/dev/pts/", "/dev/tty", "/dev/console", "/dev/ptmx")
_END_S = 2.5  # the agent ends what is left behind within two seconds


def no_inherited_channel(house: VerifyContext) -> Promise:
    """No process that holds a key in a sandbox, and none above it there, has a terminal."""
    name = "no inherited channel"
    breaches, num_processes, num_hidden, num_open = [], 0, 0, 0
    for entry in house.leases[0]:
        box = sandbox_of(entry["pid"])
        if box is None:  # `running jobs isolated` says whether its policy allows that
            num_open += 1
            continue
        for pid in sorted({entry["pid"], box.main, box.top}):
            num_processes += 1
            what = f"process {pid} of a sandbox with a key of {entry['data']}"
            since = parse_timestamp(entry["time"])
            breaches += [Breach(f"{what} {told}", entry["data"], since) for told in _terminals(pid)]
            num_hidden += not os.access(f"/proc/{pid}/fd", os.R_OK)
    if num_hidden and not breaches:
        told = f"the descriptors of {num_hidden} of {num_processes} processes can be seen by root alone"
        return unknown(name, told)
    outside = f", {num_open} holders of keys in no sandbox" if num_open else ""
    return judge(name, breaches, told=f"{num_processes} processes of sandboxes with keys{outside}")


def leases_end_with_their_holders(house: VerifyContext) -> Promise:
    """No process outlives its lease, and none is left behind in a sandbox by one that ended."""
    living, ended = house.leases
    breaches = [
        Breach(
            f"process {release['pid']} lives, and its lease of {release['data']} has ended",
            release["data"],
            parse_timestamp(end["time"]),
        )
        for release, end in ended
        if lives_since(release)
    ]
    tops = {box.top: (box.main, entry) for entry in living if (box := sandbox_of(entry["pid"]))}
    breaches += [
        Breach(f"process {pid} was left behind in the sandbox of {entry['pid']}", entry["data"])
        for top, (main, entry) in tops.items()
        for pid in _left_behind(top, main=main)
    ]
    return judge(
        "leases end with their holders",
        breaches,
        told=f"{len(tops)} sandboxes with keys, nothing left behind",
    )


def _terminals(pid: int) -> Iterator[str]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        if fields[_TTY_FIELD] != "0":
            yield "has a controlling terminal"
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if str(descriptor.readlink()).startswith(_TERMINALS):
                yield f"has a terminal open as descriptor {descriptor.name}"
    except OSError:  # it ended, or hides its descriptors
        return


def _left_behind(top: int, *, main: int) -> list[int]:
    """Of those found, the ones that still are there after the agent has had its time."""
    found = orphans_of(top, kept={main})
    if not found:
        return []
    time.sleep(_END_S)
    return sorted(set(found) & set(orphans_of(top, kept={main})))
