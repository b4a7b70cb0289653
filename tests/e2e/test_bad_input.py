"""What goes wrong outside us: one clear sentence, the right exit code, and nothing lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import pytest

from rsc.train.metrics import losses_by_step
from tests.e2e.conftest import TINY, Rsc, write_posts
from tests.warm import Command

TRAIN = ["train", "language", "data.name=posts", *TINY]


def runs_of(rsc: Rsc) -> list[Path]:
    return sorted((rsc.home / "runs").glob("*"))


def test_an_unknown_key_names_the_nearest(trained: Rsc) -> None:
    before = runs_of(trained)
    told = trained("train", "language", "data.name=posts", "train.stepz=3", expect=2).stderr
    assert 'did you mean "steps"?' in told
    assert runs_of(trained) == before


def test_a_data_set_that_is_not_there(rsc: Rsc) -> None:
    assert "there is no data set" in rsc("train", "language", "data.name=nothing", expect=2).stderr


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist"),
        (b"", "empty"),
        (b'{"text": "caf\xe9"}\n', "UTF-8"),
        (b"{not json}\n", "line 1"),
    ],
    ids=["missing", "empty", "not UTF-8", "not JSON"],
)
def test_a_source_that_cannot_be_read(rsc: Rsc, tmp_path: Path, content: bytes | None, told: str) -> None:
    source = tmp_path / "source.jsonl"
    if content is not None:
        source.write_bytes(content)
    assert told.lower() in rsc("data", "import", str(source), "--name", "mine", expect=2).stderr.lower()
    assert rsc.json("data", "ls")["data"] == []


def test_labels_that_the_recipe_does_not_know_are_told(rsc: Rsc, tmp_path: Path) -> None:
    """One of the classes: counted. All of them: refused at the first step, before anything was learned."""
    source = tmp_path / "posts.csv"
    source.write_text("text,class\n" + "".join(f"post {n},{'abc'[n % 3]}\n" for n in range(60)))
    rsc("data", "import", str(source), "--name", "posts")
    rsc("data", "approve", "posts", "--note", "made up")
    train = ["train", "harmful-content", "data.name=posts", "train.steps=2", "train.batch_size=30"]
    told = rsc(*train, 'model.head.labels=["a", "b"]').stderr
    assert re.search(r"samples with something wrong, of those that rank 0 met: [12][0-9] label\b", told)
    told = rsc(*train, 'model.head.labels=["A", "B"]', expect=2).stderr
    assert "step 1: no sample of the batch can be used (30 label)" in told
    assert "name the classes as they stand in the data" in told


def test_data_that_never_fits_makes_no_run(rsc: Rsc, tmp_path: Path) -> None:
    """Sound at another rate would train in silence; a split that is not there would fail in the workers."""
    for name in ("yes_1", "no_1"):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(bytes(16_000))
    source = [str(tmp_path), "--name", "words", "--safeguard", "made up"]
    rsc("data", "import", *source, "sample_rate=16000", "label_pattern={label}_{take}", "holdout=0")
    rsc("data", "approve", "words", "--note", "silence")
    train = ["train", "speech", "data.name=words", 'model.head.labels=["yes", "no"]']
    told = rsc(*train, expect=2).stderr
    assert "field audio was decoded at 16000 Hz, the model wants 8000" in told
    assert "words has no split 'trial'" in rsc(*train, "data.split=trial", expect=2).stderr
    assert runs_of(rsc) == []


def test_a_model_is_not_measured_on_data_that_it_cannot_read(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    (tmp_path / "points.csv").write_text("x,y\n1,2\n3,4\n")
    mine("data", "import", str(tmp_path / "points.csv"), "--name", "points", "holdout=0")
    mine("data", "approve", "points", "--note", "a test")
    told = mine("eval", "last", "--data", "points", "--split", "train", expect=2).stderr
    assert "the data has no field 'text'" in told


def test_unreviewed_data_is_refused(rsc: Rsc, tmp_path: Path) -> None:
    rsc("data", "import", str(write_posts(tmp_path / "posts.jsonl")), "--name", "posts")
    assert "1 more approval needed" in rsc(*TRAIN, expect=3).stderr
    assert runs_of(rsc) == []


@pytest.mark.parametrize(
    "file", ["train/000000000.rsc", "review/report.json", "review/policy.toml", "root.json"]
)
def test_one_changed_byte_voids_the_approval(trained: Rsc, tmp_path: Path, file: str) -> None:
    mine = trained.copy(tmp_path)
    before = runs_of(mine)
    flip_a_byte(mine.home / "data" / "posts" / "v0001" / file)
    done = mine.try_(*TRAIN)
    assert done.returncode in ((1, 3) if file == "root.json" else (3,)), done.stderr
    assert runs_of(mine) == before


def flip_a_byte(path: Path) -> None:
    """Change a letter to another letter, in the middle, so that JSON and TOML still parse."""
    content = bytearray(path.read_bytes())
    middle = next(
        (i for i in range(len(content) // 2, len(content)) if 97 <= content[i] < 122), len(content) // 2
    )
    content[middle] ^= 1
    path.write_bytes(content)


def test_a_truncated_shard_is_refused(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    shard = mine.home / "data" / "posts" / "v0001" / "train" / "000000000.rsc"
    shard.write_bytes(shard.read_bytes()[:-40])
    assert "train/000000000.rsc" in mine(*TRAIN, expect=3).stderr
    assert "train/000000000.rsc" in mine("data", "verify", "posts", expect=1).stdout


def test_a_key_of_another_workspace_opens_nothing(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    other = Rsc(home=tmp_path / "other", cwd=tmp_path)
    other("data", "import", str(write_posts(tmp_path / "posts.jsonl")), "--name", "posts")
    shutil.rmtree(mine.home / "keys")
    shutil.copytree(other.home / "keys", mine.home / "keys")
    assert "key" in mine("data", "review", "posts", expect=3).stderr


LONG = [*TRAIN, "train.steps=200", "checkpoint.every=20"]


@pytest.fixture(scope="module")
def uninterrupted(trained: Rsc, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    """Losses of the long run that nobody disturbed."""
    mine = trained.copy(tmp_path_factory.mktemp("whole"))
    mine(*LONG)
    return losses_by_step(newest_metrics(mine))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="ctrl-c"),
        pytest.param(signal.SIGTERM, 75, id="term"),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="kill"),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_losses(
    trained: Rsc, uninterrupted: dict[int, float], tmp_path: Path, number: signal.Signals, code: int
) -> None:
    mine = trained.copy(tmp_path)
    process = start_until(mine, step=30)
    assert end(process, number) == code
    assert mine.json("runs", "show", "last")["state"] == ("requeue" if code == 75 else "interrupted")
    mine("runs", "resume", "last")
    assert losses_by_step(newest_metrics(mine)) == uninterrupted


def test_two_trainings_never_share_a_run(trained: Rsc, tmp_path: Path) -> None:
    mine = trained.copy(tmp_path)
    process = start_until(mine, step=5)
    assert f"by process {process.pid}" in mine("runs", "resume", "last", expect=2).stderr
    assert end(process, signal.SIGINT) == 130


def start_until(rsc: Rsc, *, step: int) -> Command:
    """Start the long run and wait until it has done so many steps."""
    before = set(runs_of(rsc))
    slow = f"train.fail_at=rank=0,step={step + 1},kind=slow"  # so that a busy machine's signal is in time
    process = rsc.start(*LONG, slow)
    while process.poll() is None:
        fresh = [run for run in runs_of(rsc) if run not in before]
        if fresh and len(losses_by_step(fresh[0] / METRICS)) >= step:
            return process
        time.sleep(0.02)
    pytest.fail(f"the run ended before step {step}: {process.communicate()}")


def end(process: Command, number: signal.Signals) -> int:
    """Send a signal and return the exit code."""
    process.send_signal(number)
    process.communicate(timeout=120)
    return process.returncode


def newest_metrics(rsc: Rsc) -> Path:
    return Path(rsc.json("runs", "show", "last")["path"]) / METRICS


METRICS = Path("metrics") / "rank0.jsonl"


SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs {mount} && cp -r {home}/. {mount}/ 2>/dev/null && exec "$@"
"""


def on_a_small_disk(
    rsc: Rsc, *, mount: Path, size: str, arguments: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run a command whose workspace lies on a tmpfs of that size, in a mount namespace of its own."""
    mount.mkdir()
    script = SMALL_DISK.format(size=size, mount=mount, home=rsc.home)
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*inside[:4], "true"], capture_output=True).returncode:
        pytest.skip("the kernel refuses user namespaces: run as a user that may make them")
    command = [*inside, sys.executable, "-m", "rsc", *arguments]
    environment = {**os.environ, "RSC_HOME": str(mount)}
    return subprocess.run(command, capture_output=True, text=True, cwd=rsc.cwd, env=environment)


def test_a_full_disk_ends_an_import_and_commits_nothing(rsc: Rsc, tmp_path: Path) -> None:
    source = tmp_path / "large.txt"
    source.write_text("".join(f"{os.urandom(300).hex()}\n" for _ in range(8_000)))
    rsc.home.mkdir()
    script = ["data", "import", str(source), "--name", "large"]
    done = on_a_small_disk(rsc, mount=tmp_path / "small", size="2m", arguments=script)
    assert done.returncode == 4, done.stderr
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_at_checkpoints_is_told_and_the_last_one_decides(trained: Rsc, tmp_path: Path) -> None:
    large = [*TRAIN, "model.trunk.width=256", "model.trunk.mlp_width=512", "checkpoint.every=2"]
    done = on_a_small_disk(trained, mount=tmp_path / "small", size="4m", arguments=large)
    assert done.returncode == 4, done.stderr
    assert "checkpoint of step 2 failed: rank" in done.stderr
    assert "No space left" in done.stderr
