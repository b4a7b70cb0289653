"""What it costs that thousands of ranks find each other: the job's hub and keys, by real sockets, no tensors.

    python benchmarks/rendezvous.py [--quick] [--json]

`direct`: every rank is a connection of its own. `tree`: eight ranks behind an agent, which asks once for all
of them (the agents are played here too: their CPU time is in `seconds`, not in `hub_cpu_s`). Each rank sets
its address and asks for those of eight others, spread over the job as the process groups of a mesh are; the
job has met when all have their answers. The hub runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import secrets
import selectors
import statistics
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

from rsc.cluster.rendezvous.channel import SECRET_BYTES
from rsc.cluster.rendezvous.hub import Heard, Hub
from rsc.cluster.rendezvous.key_value import KeyValues
from rsc.cluster.rendezvous.member import Member
from rsc.cluster.rendezvous.message import Message

ADDRESS_BYTES = 186  # what a rank of gloo sets
PEERS = 8  # ranks whose addresses a rank asks for


def serve(secret: bytes, pipe: Connection) -> None:
    """A hub with the keys of one start, until the pipe closes; sends its CPU seconds back."""
    raise_limit()
    hub, keys, is_over = Hub(secret, host="127.0.0.1"), KeyValues(), []
    pipe.send(hub.address)
    hub.watch(pipe.fileno(), call=lambda: is_over.append(pipe.recv()))
    while not is_over:
        for event in hub.wait(timeout_s=1.0):
            if not isinstance(event, Heard):
                continue
            peer, key = event.peer, str(event.message.facts["key"])
            if event.message.kind == "set":
                keys.put(key, event.message.payload)
            else:
                keys.ask(key, lambda value, peer=peer: hub.send(peer, Message("value", payload=value)))
    pipe.send(time.process_time())
    hub.close()


def meet(num_ranks: int, *, ranks_per_connection: int) -> dict[str, float]:
    secret = secrets.token_bytes(SECRET_BYTES)
    ours, theirs = get_context("fork").Pipe()
    hub = get_context("fork").Process(target=serve, args=(secret, theirs))
    hub.start()
    address = ours.recv()
    started_s = time.monotonic()
    groups = range(0, num_ranks, ranks_per_connection)
    members = [Member.join(secret, address=address, patience_s=600) for _ in groups]
    joined_s = time.monotonic() - started_s
    for first, member in zip(groups, members, strict=True):
        for rank in range(first, first + ranks_per_connection):
            member.send(Message("set", {"key": f"address/{rank}"}, os.urandom(ADDRESS_BYTES)))
    waiting = selectors.DefaultSelector()
    for first, member in zip(groups, members, strict=True):
        ranks = range(first, first + ranks_per_connection)
        asked = {(rank + hop * num_ranks // PEERS) % num_ranks for rank in ranks for hop in range(PEERS)}
        for rank in asked:
            member.send(Message("ask", {"key": f"address/{rank}"}))
        waiting.register(member.sock, selectors.EVENT_READ, [member, len(asked)])
    while waiting.get_map():
        for key, _ in waiting.select():
            key.data[1] -= len(key.data[0].hear())
            if not key.data[1]:
                waiting.unregister(key.fileobj)
    seconds = time.monotonic() - started_s
    for member in members:
        member.close()
    ours.send("over")
    hub_cpu_s = ours.recv()
    hub.join()
    return {"seconds": seconds, "joined_s": joined_s, "hub_cpu_s": hub_cpu_s}


def raise_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    raise_limit()
    rows = []
    for num_ranks in (512,) if arguments.quick else (512, 4096):
        for case, together in (("direct", 1), ("tree", 8)):
            runs = [meet(num_ranks, ranks_per_connection=together) for _ in range(3)]
            for metric in runs[0]:
                values = [run[metric] for run in runs]
                rows.append(
                    {
                        "case": f"{case} {num_ranks}",
                        "metric": metric,
                        "subject": "rsc",
                        "value": statistics.median(values),
                        "min": min(values),
                        "max": max(values),
                        "runs": len(values),
                    }
                )
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    if arguments.json:
        print(json.dumps({"machine": machine, "rows": rows}, indent=1))
        return
    for row in rows:
        print(f"{row['case']:<14} {row['metric']:<10} {row['value']:.3f}")


if __name__ == "__main__":
    main()
