"""What a job asks for: settings, refusals with their numbers, and the script, letter by letter."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rsc.cluster.dev.cluster import DevCluster
from rsc.cluster.slurm.facts import ask_facts
from rsc.cluster.slurm.feasible import require_feasible
from rsc.cluster.slurm.script import BatchJob, render
from rsc.cluster.slurm.site import JobSettings, Site, SiteEnvironment, read_site
from rsc.cluster.slurm.site_text import site_text
from rsc.errors import ConfigError
from tests.cluster.test_slurm_answers import RecordedSlurm

GOLDEN = Path(__file__).parents[1] / "vectors" / "slurm" / "job.sh"


def job(
    folder: str = "/shared/rsc/runs/2026-12-01-language-1a2b", *, run: str = "", **asked: Any
) -> BatchJob:
    name = run or Path(folder).name
    return BatchJob(
        run=name,
        folder=Path(folder),
        command=("/opt/rsc/bin/python", "-m", "rsc", "runs", "resume", name, "--on", "local"),
        environment={"RSC_HOME": "/shared/rsc", "PATH": "/usr/bin:/bin"},
        site=Site(slurm=JobSettings(**asked), environment=SiteEnvironment(modules=("cuda/12.8",))),
    )


def test_the_script_letter_by_letter() -> None:
    asked = {
        "partition": "batch",
        "account": "research",
        "time": "12:00:00",
        "gpus_per_node": 8,
        "gpu_type": "h100",
        "cpus_per_node": 96,
        "memory": "900G",
        "exclude": "gpu[3,17-19]",
        "constraint": "nvlink&ib",
        "switches": 1,
    }
    assert render(job(**asked)) == GOLDEN.read_text()


def test_a_job_of_several_nodes_outlives_one_and_starts_anew_with_too_few() -> None:
    text = render(replace(job(), nodes=4))
    assert "\n#SBATCH --nodes=4\n#SBATCH --no-kill " in text
    assert '[ "$code" -eq 4 ]' in text
    assert not {"--no-kill", '"$code" -eq 4'} & set(render(job()).split())


@pytest.mark.parametrize(
    ("key", "written", "meant"),
    [
        ("time", "12:00:00", "12:00:00"),
        ("time", "00:30:00", "00:30:00"),
        ("time", "36:00:00", "36:00:00"),
        ("time", "2-00:00:00", "2-00:00:00"),
        ("time", "90", "90"),
        ("time", "'90'", "90"),
        ("memory", "2000", "2000"),
        ("memory", "64G", "64G"),
    ],
)
def test_times_and_sizes_are_written_as_slurm_writes_them(key: str, written: str, meant: str) -> None:
    assert getattr(Site().with_overrides([f"slurm.{key}={written}"]).slurm, key) == meant


@pytest.mark.parametrize("written", ["12:00:00", '"12:00:00"', "720"])
def test_a_file_may_write_a_time_plainly(written: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(f"[slurm]\ntime = {written}\n")
    assert read_site(tmp_path).slurm.time in ("12:00:00", "720")


@pytest.mark.parametrize("written", ["true", "1.5", "12:00:00.5", "1979-05-27", "[1]", "-5"])
def test_what_is_no_time_or_size_is_refused(written: str) -> None:
    for key in ("time", "memory"):
        with pytest.raises(ConfigError, match=f"slurm.{key}"):
            Site().with_overrides([f"slurm.{key}={written}"])


HOSTILE = [
    *("a b", "it's", 'say "hi"', "$(touch owned)", "`id`", "a#b"),
    *("a;b", "--wrap=x", "\u00e9\u4e2d", "a&b", "*", "~"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_names(name: str, tmp_path: Path) -> None:
    """bash gets every word as it is, whatever the name of a run or a folder."""
    text = render(job(f"{tmp_path}/{name}"))
    lines = text.replace("/opt/rsc/bin/python -m rsc", "printf '%s\\n'").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("printf"))
    said = subprocess.run(["bash", "-c", lines[start].removesuffix(" &")], capture_output=True, text=True)
    assert said.stdout.split("\n")[2] == name
    assert not any(line.startswith("#SBATCH") for line in text.split("\n\n")[1].split("\n"))


@pytest.mark.slurm
@pytest.mark.parametrize("name", HOSTILE)
def test_slurm_reads_hostile_folders_as_they_are(
    name: str, tmp_path: Path, slurm_cluster: DevCluster
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    script = tmp_path / "job.sh"
    script.write_text(render(job(str(folder), cpus_per_node=1)))
    number = slurm_cluster.run(["sbatch", "--parsable", "--hold", str(script)]).strip()
    told = slurm_cluster.run(["scontrol", "-o", "show", "job", number])
    slurm_cluster.run(["scancel", number])
    assert f" WorkDir={folder} " in told
    assert f" StdOut={folder}/slurm-{number}.log " in told
    assert f" JobName={name} " in told


@pytest.mark.parametrize("name", ["50%j", "back\\slash", "new\nline", "\x1b[2J", "nul\0"])
def test_paths_that_slurm_would_change_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="Slurm cannot write into"):
        render(job(f"/shared/{name}"))


@pytest.mark.parametrize("key", ["partition", "account", "qos", "exclude", "constraint", "licenses"])
@pytest.mark.parametrize("value", ["a b", 'a"b', "a\n#SBATCH --uid=0", "a#b", "a'b", "a\\b", "$(id)"])
def test_no_setting_becomes_another_option(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"slurm.{key}"):
        Site().with_overrides([f"slurm.{key}={value!r}" if "\n" not in value else f'slurm.{key}="a\\nb"'])


def feasible(*, nodes: int = 1, **asked: Any) -> None:
    require_feasible(JobSettings(**asked), ask_facts(RecordedSlurm()), nodes=nodes)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"partition": "batsch"}, 'did you mean "batch"'),
        ({"nodes": 5}, "wants 5 nodes; partition batch has 4 nodes"),
        ({"nodes": 2, "partition": "short"}, "wants 2 nodes; partition short has 1 nodes"),
        (
            {"gpus_per_node": 5},
            "wants 1 nodes with 5 GPUs each; partition batch has 4 nodes, of which 0 have",
        ),
        ({"gpus_per_node": 1, "gpu_type": "b200"}, "1 b200 GPUs"),
        ({"cpus_per_node": 9}, "the most there: 4 GPUs, 8 CPUs, 4,000 MiB"),
        ({"memory": "4G"}, "4,096 MiB"),
        (
            {"partition": "short", "time": "6"},
            "slurm.time is 00:06:00; jobs of partition short run 00:05:00",
        ),
        ({"time": "2", "warn_s": 120}, "nothing would be trained"),
        ({"licenses": "matlab:2"}, "has 0 of matlab"),
        ({"licenses": "matlab:x"}, "has 0 of matlab"),
    ],
)
def test_the_impossible_is_refused_with_the_arithmetic(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        feasible(**asked)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"nodes": 4, "gpus_per_node": 4, "gpu_type": "h100", "cpus_per_node": 8, "memory": "4000"},
        {"partition": "short", "time": "5"},
        {"time": "30-0"},
    ],
)
def test_the_possible_is_not(asked: dict[str, Any]) -> None:
    feasible(**asked)


def test_what_init_writes_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text(site_text(ask_facts(RecordedSlurm())))
    site = read_site(tmp_path)
    assert (site.on, site.slurm.partition, site.slurm.gpus_per_node) == ("slurm", "batch", 4)
    require_feasible(site.slurm, ask_facts(RecordedSlurm()), nodes=1)


def test_without_a_file_runs_start_here(tmp_path: Path) -> None:
    assert read_site(tmp_path) == Site()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("on = 'k8s'", "on"),
        ("[clustr]\nnodes = 1", "unknown key clustr"),
        ("[slurm]\ntime = 'soon'", "time"),
        ("nonsense", "is not TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "cluster.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_site(tmp_path)
    assert words in str(refused.value)


def test_the_command_of_the_script_is_the_one_that_was_given() -> None:
    line = next(line for line in render(job()).split("\n") if line.endswith(" &"))
    assert tuple(shlex.split(line.removesuffix(" &"))) == job().command
