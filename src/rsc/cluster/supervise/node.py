"""`python -m rsc.cluster.supervise.node SPEC`: starts the supervisor of one node.

Importing torch makes objects by the hundred thousand, none of them garbage: collections during it took a
fifth of its time (3.8 s of CPU time, 3.1 without). They are then left out of later collections, which the
ranks, forked from this process, would else each pay for by copying the pages that a collection touches.
"""

from __future__ import annotations

import gc
import sys

from rsc.hardening import harden_process


def start(argument: str) -> int:
    harden_process()
    gc.disable()
    from rsc.cluster.supervise.supervisor import main  # here, since it is the import that takes the time

    gc.freeze()
    gc.enable()
    return main(argument)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1]))
