"""`rsc quickstart`: the main job end to end, each step the command that a user would type.

It works in a workspace of its own (`<workspace>/quickstart`, made anew each time), so it never meets
your data, and it needs nothing but what is on the machine. What it prints it did: every figure of the
summary comes out of the JSON of a command, and the steps that must fail are run until they do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.cli.quickstart.drill import WHOLE_STEPS, Drill, DrillPace, fitting_drill, pace_of, whole_minutes
from rsc.cli.quickstart.guide import Guide
from rsc.cluster.health.cpu import Cpu, this_cpu
from rsc.config import Workspace
from rsc.errors import ConfigError, GateRefused, RequeueMe, RscError
from rsc.runs.folder import RunFolder
from rsc.units import format_seconds

MARKER = "made-by-rsc-quickstart"
"""A file that says a workspace may be deleted; without it quickstart leaves a folder alone."""

DEFAULT_MINUTES = 3.0
NUM_POSTS = 1000
MIN_SENTENCE = 24
"""Characters that make a sentence worth seeking: shorter ones could stand in a file by chance."""

PROBE_STEPS = 8
"""Steps of the run that measures how fast this machine trains."""

TRAIN = ("train", "language", "data.name=pydocs", "parallel.workers=2")
"""Two workers, because one of them will be killed."""


def quickstart(
    minutes: Annotated[
        float | None, typer.Option(help="Train as many steps as fit in this time (3 unless given).")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train the whole recipe, however long it takes.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Private text in, trained model out: import, review, encrypt, train, kill, resume, export, erase."""
    checked = _checked(minutes, full=full)
    limit_s = None if full else 60 * checked
    guide, cpu = Guide(_fresh_workspace(Workspace.from_environment())), this_cpu()
    _announce(cpu, limit_s=limit_s)
    guide.tell("What this machine has")
    guide.run("doctor")
    summary: dict[str, Any] = {"machine": {**asdict(cpu), "flags": sorted(cpu.flags), "lacks": cpu.lacks}}
    summary |= _bring_data_in(guide)
    pace = _measure(guide)
    drill = Drill(WHOLE_STEPS) if limit_s is None else fitting_drill(limit_s - guide.seconds(), pace=pace)
    _announce_drill(drill, pace=pace, guide=guide)
    summary |= {"drill": {"steps": drill.steps, "checkpoint_every": drill.checkpoint_every, **asdict(pace)}}
    summary |= _train_and_kill(guide, drill=drill)
    summary |= _evaluate_and_export(guide, run=summary["run"], drill=drill)
    _judge(summary["eval"], drill=drill, pace=pace)
    summary |= _search_for_plaintext(guide)
    summary |= _expire(guide)
    guide.tell("Every promise, checked once more")
    guide.run("verify")
    summary |= {"stages": guide.stages(), "seconds": round(guide.seconds(), 1)}
    emit(summary, as_json=as_json, text=_summary_table(summary))
    _next(guide, run=summary["run"])


def _checked(minutes: float | None, *, full: bool) -> float:
    if full and minutes is not None:
        raise ConfigError("--full and --minutes contradict each other", hint="give one of them")
    if minutes is not None and not minutes > 0:
        raise ConfigError(f"--minutes {minutes:g} leaves no time", hint="give a number above 0")
    return minutes or DEFAULT_MINUTES


def _fresh_workspace(outer: Workspace) -> Workspace:
    root = outer.root / "quickstart"
    if root.exists() and not (root / MARKER).exists():
        raise ConfigError(f"{root} was not made by quickstart", hint="move it away, or set RSC_HOME")
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(mode=0o700)
    (root / MARKER).touch()
    return Workspace(root)


def _announce(cpu: Cpu, *, limit_s: float | None) -> None:
    """How long this will take on this CPU, and why."""
    if limit_s is None:
        say("This trains the whole recipe; how long that takes is measured before it begins.")
    else:
        say(f"This takes about {whole_minutes(limit_s)}: training gets as many steps as fit in that time.")
        say("Another length: --minutes N. The whole recipe: --full.")
    say(f"This machine: {cpu}.")


def _bring_data_in(guide: Guide) -> dict[str, Any]:
    guide.tell("Real text that every machine has, and 1,000 posts with planted personal data")
    guide.run(
        "data", "plant", "posts.jsonl", "--records", str(NUM_POSTS), "--seed", "1", "--truth", "truth.jsonl"
    )
    guide.run("data", "import", "posts.jsonl", "--name", "posts")
    guide.run("data", "import", "python-docs", "--name", "pydocs")
    guide.tell("What the gate found in the posts, against the planted truth")
    review = guide.run("data", "review", "posts", "--truth", "truth.jsonl")
    guide.tell("A person approves these bytes, and no others")
    guide.run("data", "approve", "posts", "--note", "planted data of the quickstart")
    guide.run("data", "approve", "pydocs", "--note", "documentation that ships with Python")
    score = review.result["score"]
    return {"review": {key: score[key] for key in ("recall", "precision")}}


def _measure(guide: Guide) -> DrillPace:
    guide.tell(f"How fast does this machine train? {PROBE_STEPS} steps to see")
    probe = guide.run(*TRAIN, f"train.steps={PROBE_STEPS}")
    lines = RunFolder(Path(probe.result["path"])).metrics()
    return pace_of(probe.seconds, steps_s=[line["step_s"] for line in lines])


def _announce_drill(drill: Drill, *, pace: DrillPace, guide: Guide) -> None:
    rate = f"{format_seconds(pace.step_s)} a step, {format_seconds(pace.start_s)} to start and to end a run"
    say(f"{rate}: the drill gets {drill.steps} of the recipe's {WHOLE_STEPS} steps.")
    rest_s = pace.seconds(drill)
    say(f"About {whole_minutes(rest_s)} from here, {whole_minutes(guide.seconds() + rest_s)} in all.")


def _train_and_kill(guide: Guide, *, drill: Drill) -> dict[str, Any]:
    guide.tell(f"Training on two worker processes; one of them is killed (SIGKILL) at step {drill.kill_step}")
    command = [*TRAIN, f"train.steps={drill.steps}", f"checkpoint.every={drill.checkpoint_every}"]
    killed = guide.run(*command, f"train.fail_at=rank=1,step={drill.kill_step},kind=sigkill").result
    if not killed["restarts"]:
        raise RscError(f"no worker died at step {drill.kill_step} of run {killed['run']}")
    far = drill.compare_steps
    guide.tell(f"The same run with nobody killed, asked to stop at step {far} (exit code 75)")
    stop = f"train.fail_at=rank=0,step={far},kind=sigterm"
    whole = guide.run(*command, stop, expect=RequeueMe.exit_code).result
    ours, theirs = _losses(guide, killed["run"]), _losses(guide, whole["run"])
    common = ours.keys() & theirs.keys()
    equal = len(common) >= far and all(ours[step] == theirs[step] for step in common)
    resumed_at = killed["resumed_at"]
    say(f"losses of steps 1 to {len(common)} in both, {resumed_at + 1} and later after the resume:")
    say("equal, bit for bit" if equal else "DIFFERENT")
    found = {"killed_at_step": drill.kill_step, "resumed_at_step": resumed_at, "losses_equal": equal}
    return {"run": killed["run"], "resume": {**found, "losses_compared": len(common)}}


def _losses(guide: Guide, run: str) -> dict[int, float]:
    """Loss of each step; of a step that was done twice, the later one. JSON keeps every bit of a float."""
    return {line["step"]: line["loss"] for line in RunFolder(guide.workspace.runs / run).metrics()}


def _search_for_plaintext(guide: Guide) -> dict[str, Any]:
    """Search every file of the data, cache and run folders; the posts' own file is the control."""
    guide.tell("Looking for the plaintext in every file of the store, the cache and the runs")
    posts = guide.workspace.root / "posts.jsonl"
    sentences = _known_sentences(posts)
    if not _holds_any(posts, sentences):
        raise RscError("the search found nothing in posts.jsonl itself: it would find nothing anywhere")
    files = [path for folder in ("data", "cache", "runs") for path in _files(guide.workspace.root / folder)]
    hits = [path for path in files if _holds_any(path, sentences)]
    say(f"{len(sentences)} sentences sought: found in posts.jsonl, as they must be, and in")
    say(f"{len(hits)} of {len(files)} files")
    return {"store": {"plaintext_hits": len(hits), "files": len(files), "sentences": len(sentences)}}


def _known_sentences(posts: Path) -> list[bytes]:
    """Lines that were imported: what the gate left as it was, what it redacted, and documentation."""
    imported = [json.loads(line)["text"] for line in posts.read_text().splitlines()]
    kept = [part for text in imported[:50] for part in text.split(". ") if len(part) >= MIN_SENTENCE]
    truth = [json.loads(line) for line in (posts.parent / "truth.jsonl").read_text().splitlines()]
    planted = [post["text"][span["start"] : span["end"]] for post in truth[:50] for span in post["spans"]]
    documented = [line for line in (json.__doc__ or "").splitlines() if len(line) >= MIN_SENTENCE]
    long_enough = [text for text in planted if len(text) >= 12]
    return [text.encode() for text in {*kept, *long_enough, *documented}]


def _holds_any(path: Path, sentences: list[bytes]) -> bool:
    content = path.read_bytes()
    return any(sentence in content for sentence in sentences)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _evaluate_and_export(guide: Guide, *, run: str, drill: Drill) -> dict[str, Any]:
    guide.tell("How good is it? Held-out bits per byte, beside xz -9 of the same bytes")
    measured = guide.run("eval", run, *drill.evaluation).result
    guide.run("generate", run, "--prompt", "The str type ", "--bytes", "200")
    guide.tell("Open weights, tokenizer and a model card")
    exported = guide.run("runs", "export", run).result
    return {
        "eval": {key: measured[key] for key in ("bits_per_byte", "xz_bits_per_byte")},
        "export": {"path": exported["path"]},
    }


def _judge(measured: dict[str, Any], *, drill: Drill, pace: DrillPace) -> None:
    """Say plainly when so few steps did not make a model that compresses better than xz."""
    if measured["bits_per_byte"] < measured["xz_bits_per_byte"]:
        return
    say(f"The model does not beat xz -9 after {drill.steps} steps.")
    if drill.steps < WHOLE_STEPS:
        more = whole_minutes(pace.seconds(Drill(WHOLE_STEPS)))
        say(f"`rsc quickstart --full` trains all {WHOLE_STEPS} of the recipe: about {more} on this machine.")


def _expire(guide: Guide) -> dict[str, Any]:
    guide.tell("The posts' time is over: their key is destroyed, their bytes deleted, and both proved")
    gone = guide.run("data", "expire", "posts")
    guide.tell("Training on them is refused now (exit code 3)")
    refused = guide.run("train", "language", "data.name=posts", expect=GateRefused.exit_code)
    return {"expire": {"refused_exit_code": refused.exit_code, "proof": gone.result["proof"]}}


def _summary_table(summary: dict[str, Any]) -> str:
    review, resume, measured = summary["review"], summary["resume"], summary["eval"]
    beaten = "" if measured["bits_per_byte"] < measured["xz_bits_per_byte"] else " (not beaten)"
    rows = [
        ("personal data found", f"recall {review['recall']:.3f}, precision {review['precision']:.3f}"),
        (
            "plaintext at rest",
            f"in {summary['store']['plaintext_hits']} of {summary['store']['files']} files",
        ),
        ("worker killed", f"at step {resume['killed_at_step']}, resumed at {resume['resumed_at_step']}"),
        ("losses after it", "equal, bit for bit" if resume["losses_equal"] else "DIFFERENT"),
        (
            "held-out text",
            f"{measured['bits_per_byte']:.2f} bits a byte; xz -9 {measured['xz_bits_per_byte']:.2f}{beaten}",
        ),
        ("after expiry", f"training refused with exit code {summary['expire']['refused_exit_code']}"),
        ("exported to", summary["export"]["path"]),
        ("trained", f"{summary['drill']['steps']} of the recipe's {WHOLE_STEPS} steps"),
        ("took", format_seconds(summary["seconds"])),
    ]
    return "\n" + table(rows, header=("what", "result"))


def _next(guide: Guide, *, run: str) -> None:
    say(f"\nthe run lies in {guide.workspace.runs / run}")
    next_commands(
        f"RSC_HOME={guide.workspace.root} rsc generate {run} --prompt 'The '",
        "rsc data import YOUR_FILE.jsonl --name mine",
        "rsc recipes ls",
    )
