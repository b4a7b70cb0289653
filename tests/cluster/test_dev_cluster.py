"""A private Slurm: what is asked comes up, faults do what they say, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rsc.cluster.dev.cluster import DevCluster, missing
from rsc.cluster.dev.config_files import files_of
from rsc.cluster.dev.plan import ClusterPlan, check, default_folder
from rsc.cluster.dev.processes import of_cluster, of_node
from rsc.errors import ConfigError

needs_slurm = pytest.mark.skipif(bool(missing()), reason=f"no Slurm for tests: {missing()}")


def wait_until(is_so: Callable[[], bool], *, patience_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + patience_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("change", [{"nodes": 0}, {"nodes": 65}, {"gpus": 8}, {"cpus": 0}, {"memory_mib": 1}])
def test_what_cannot_be_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"a development cluster has"):
        check(ClusterPlan(Path("/tmp/c"), **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("folder", ["/tmp/" + "long" * 20, "/tmp/a b", "/tmp/x%n", "/tmp/a,b", "/tmp/a\nb"])
def test_paths_that_slurm_cannot_take_are_refused(folder: str) -> None:
    with pytest.raises(ConfigError):
        check(ClusterPlan(Path(folder)))


@pytest.mark.parametrize("namespaces", [False, True])
@pytest.mark.parametrize("accounting", [False, True])
def test_each_node_has_a_line_and_an_address_of_its_own(namespaces: bool, accounting: bool) -> None:
    plan = ClusterPlan(
        Path("/tmp/c"), nodes=3, accounting=accounting, namespaces=namespaces, ports=(1, 2, 3, 4, 5)
    )
    text, _ = files_of(plan)["slurm.conf"]
    nodes = [line for line in text.splitlines() if line.startswith("NodeName=")]
    assert len(set(nodes)) == 3
    assert ("slurmdbd.conf" in files_of(plan)) == accounting


@pytest.mark.slurm
def test_a_job_over_all_nodes_sees_its_gpus(slurm_cluster: DevCluster) -> None:
    told = slurm_cluster.run(
        ["srun", "-N4", "-n4", "--gpus-per-node=2", "sh", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"]
    )
    assert sorted(told.splitlines()) == ["n1 0,1", "n2 0,1", "n3 0,1", "n4 0,1"]


@pytest.mark.slurm
def test_a_node_that_loses_power_is_down_and_comes_back(slurm_cluster: DevCluster) -> None:
    job = slurm_cluster.run(["sbatch", "--parsable", "-wn2", "-o/dev/null", "--wrap=sleep 300"]).strip()
    wait_until(lambda: "RUNNING" in slurm_cluster.run(["squeue", "-h", "-j", job, "-o", "%T"], check=False))
    slurm_cluster.faults.kill_node("n2", tell=True)
    assert not of_node(slurm_cluster.plan.folder, "n2")
    assert slurm_cluster.states()["n2"].startswith("down")
    slurm_cluster.run(["scancel", job])
    slurm_cluster.faults.restore_node("n2")
    slurm_cluster.run(["scontrol", "update", "NodeName=n2", "State=RESUME"], check=False)
    slurm_cluster.wait_idle()


@pytest.mark.slurm
def test_a_bad_prolog_drains_its_node(slurm_cluster: DevCluster) -> None:
    slurm_cluster.faults.bad_prolog("n3")
    job = slurm_cluster.run(["sbatch", "--parsable", "-wn3", "-o/dev/null", "--wrap=true"]).strip()
    wait_until(lambda: slurm_cluster.states()["n3"].startswith("drain"))
    slurm_cluster.run(["scancel", job])
    slurm_cluster.faults.good_prolog("n3")
    slurm_cluster.wait_idle()


@pytest.mark.slurm
def test_a_slow_node_slows_its_jobs_alone(slurm_cluster: DevCluster) -> None:
    slurm_cluster.faults.slow_node("n4", share=0.1)
    try:
        code = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.monotonic())"
        told = slurm_cluster.run(["srun", "-w", "n4", sys.executable, "-c", code])
    finally:
        slurm_cluster.faults.fast_node("n4")
    assert float(told) > 0


@pytest.mark.slurm
@pytest.mark.slow
def test_nodes_with_networks_of_their_own(slurm_network: DevCluster) -> None:
    faults = slurm_network.faults
    assert sorted(slurm_network.run(["srun", "-N4", "hostname"]).split()) == ["n1", "n2", "n3", "n4"]
    assert faults.fill_disk() > 1 << 20
    full = slurm_network.run(
        ["srun", "-wn2", "sh", "-c", f"echo x >{slurm_network.plan.shared}/x || echo full"]
    )
    assert "full" in full
    faults.free_disk()
    faults.slow_link("n2", kbit_per_s=500)
    assert slurm_network.run(["srun", "-wn2", "hostname"]) == "n2\n"
    faults.fast_link("n2")
    faults.cut_network("n3")
    wait_until(lambda: slurm_network.states()["n3"] != "idle")
    faults.join_network("n3")
    slurm_network.wait_idle(timeout_s=60)


@pytest.mark.slurm
@pytest.mark.slow
def test_accounting_knows_jobs_and_qos(slurm_accounting: DevCluster) -> None:
    slurm_accounting.run(["srun", "--qos=high", "true"])
    ask = ["sacct", "-nPX", "-o", "JobID,QOS,State"]
    wait_until(lambda: "1|high|COMPLETED" in slurm_accounting.run(ask).splitlines())


@pytest.mark.slurm
def test_faults_that_need_networks_say_so(slurm_cluster: DevCluster) -> None:
    for fault in (slurm_cluster.faults.cut_network, slurm_cluster.faults.slow_link):
        with pytest.raises(ConfigError, match="a network and disk of their own"):
            fault("n1")
    with pytest.raises(ConfigError, match="no node 'n9'"):
        slurm_cluster.faults.kill_node("n9")


@needs_slurm
@pytest.mark.slurm
@pytest.mark.parametrize("namespaces", [False, True])
@pytest.mark.parametrize("after_s", [0.0, 0.1, 0.3])
def test_an_up_that_is_killed_is_cleaned_up(after_s: float, namespaces: bool) -> None:
    if namespaces and missing(namespaces=True):
        pytest.skip(missing(namespaces=True))
    name = f"kill{os.getpid()}"
    argv = [sys.executable, "-m", "rsc", "cluster", "dev"]
    options = ["--name", name, *(["--namespaces"] if namespaces else [])]
    folder = default_folder(name)
    up = subprocess.Popen([*argv, "up", *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(lambda: up.poll() is not None or any(folder.parent.glob(f"{folder.name}*")))
    time.sleep(after_s)
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert subprocess.run([*argv, "down", "--name", name], capture_output=True).returncode == 0
    wait_until(lambda: not of_cluster(folder), patience_s=5)
    assert not list(folder.parent.glob(f"{folder.name}*"))


@pytest.mark.slurm
def test_a_job_outlives_no_cluster(tmp_path: Path) -> None:
    if missing():
        pytest.skip(missing())
    plan = ClusterPlan(default_folder(f"end{os.getpid()}"), nodes=2, gpus=0)
    with DevCluster.started(plan) as cluster:
        script = "srun sh -c 'trap : TERM; setsid sleep 300; sleep 301'"
        cluster.run(["sbatch", "-N2", "-o/dev/null", f"--wrap={script}"])
        wait_until(lambda: "sleep 300" in {each.command for each in of_cluster(plan.folder)})
        with pytest.raises(ConfigError, match="is there already"):
            DevCluster.up(plan)
    assert not of_cluster(plan.folder)
    assert not plan.folder.exists()
