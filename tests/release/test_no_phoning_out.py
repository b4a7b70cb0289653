"""No light command opens a socket that could leave the machine: every verb of the table is tried.

All run in one process inside an empty network namespace, under an audit hook (PEP 578) that records each
socket of another family than AF_UNIX and each look-up of a name. A verb that is neither tried here nor
named as heavy fails the first test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import typer
from click import Command
from house import require_namespaces

from rsc.cli.main import VERBS, _load

HEAVY = {"quickstart", "train", "eval", "generate", "predict", "runs", "doctor", "bundle", "cluster"}
"""They load torch or start processes, and workers have a sandbox and its probe instead; `bundle` fetches, and
`cluster dev` starts a Slurm whose daemons talk to each other."""

ELSEWHERE = {"review enroll", "plan score", "plan fit", "plan calibrate", "explain"}
"""Not tried here: they need a second account, a file of measured rows, or a run; calibrate loads torch, and
its two processes meet over loopback."""

TRIED = [
    "data plant posts.jsonl --truth truth.jsonl --records 40",
    "data import posts.jsonl --processes 1",
    "data ls --json",
    "data show posts --json",
    "data review posts --json",
    "data policy posts --json",
    "data approve posts --note looked",
    "data verify posts --with-key --json",
    "data trace --subject ana@example.org --json",
    "keys ls --json",
    "keys rotate posts --json",
    "keys sweep --json",
    "data erase --subject ana@example.org --json",
    "data import posts.jsonl --name talks --processes 1",
    "data reject talks --note no",
    "data expire talks --json",
    "review score truth.jsonl --json",
    "review scan posts.jsonl --json",
    "review policy new policy.toml",
    "review policy lint policy.toml --json",
    "review reviewers --json",
    "audit attest --json",
    "audit show --json",
    "audit verify --json",
    "audit export copy",
    "audit checkpoint --witness witness.txt",
    "recipes ls --json",
    "recipes cat language --json",
    "recipes cp language mine.toml",
    "plan machines --json",
    "plan data --size 1EB --gpus 8 --json",
    "plan run 7B --gpus 8 --tokens 1B --json",
    "simulate ls --json",
    "simulate cat laptop-lab",
    "simulate run laptop-lab --json",
    "verify --json",
]

INSIDE = """
import json, socket, sys
seen, codes = [], {}
def hook(event, args):
    if event == "socket.__new__" and args[1] != socket.AF_UNIX:
        seen.append(f"{current}: socket of family {args[1]}")
    elif event.startswith("socket.get") and "name" not in event.removeprefix("socket.gethostby"):
        seen.append(f"{current}: {event} {args[:1]}")
sys.addaudithook(hook)
current = "import"
from rsc.cli.main import run
for current in json.loads(sys.argv[1]):
    codes[current] = run(current.split())
with open("result.json", "w") as file:
    json.dump({"seen": seen, "codes": codes}, file)
"""


def leaves(command: Command, path: tuple[str, ...]) -> list[str]:
    inner_commands = getattr(command, "commands", None)  # of a group; typer may bring a click of its own
    if inner_commands is None:
        return [" ".join(path)]
    return [name for word, inner in inner_commands.items() for name in leaves(inner, (*path, word))]


def test_every_verb_is_tried_or_named_as_heavy():
    light = [name for name in VERBS if name not in HEAVY]
    known = [leaf for name in light for leaf in leaves(typer.main.get_command(_load(name)), (name,))]
    untried = [leaf for leaf in known if not any(f"{line} ".startswith(f"{leaf} ") for line in TRIED)]
    assert set(untried) == ELSEWHERE


@pytest.mark.slow
def test_no_light_command_opens_a_socket_that_leaves_the_machine(tmp_path):
    require_namespaces()
    environment = {**os.environ, "RSC_HOME": str(tmp_path / "home")}
    argv = ["unshare", "-Urn", sys.executable, "-c", INSIDE, json.dumps(TRIED)]
    done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["seen"] == []
    assert {line: code for line, code in result["codes"].items() if code} == {}, done.stderr


def test_the_hook_sees_a_socket_and_a_look_up(tmp_path):
    """The same listening code with one command that would phone out."""
    bad = INSIDE.replace(
        "from rsc.cli.main import run",
        "def run(argv):\n    socket.socket().close()\n    try: socket.getaddrinfo('example.org', 80)\n"
        "    except OSError: pass\n    return 0",
    )
    subprocess.run([sys.executable, "-c", bad, '["x"]'], cwd=tmp_path, check=True)
    seen = json.loads((tmp_path / "result.json").read_text())["seen"]
    assert [what.partition(" ")[0] for what in seen] == ["x:", "x:"]
