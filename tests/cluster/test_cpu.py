"""What is said of CPUs of several kinds, from the lines that their kernels print."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsc.cluster.health.cpu import Cpu, this_cpu, usable_cores

AVX2 = "fpu sse4_2 avx avx2 fma"
KINDS = {
    "avx2": (AVX2, "x86_64", ["AVX-512", "AVX-512 bf16", "AMX bf16"], "trains in fp32"),
    "avx512": (f"{AVX2} avx512f", "x86_64", ["AVX-512 bf16", "AMX bf16"], "trains in fp32"),
    "avx512_bf16": (f"{AVX2} avx512f avx512_bf16", "x86_64", ["AMX bf16"], "trains in bf16, slower than"),
    "amx": (f"{AVX2} avx512f avx512_bf16 amx_bf16", "x86_64", [], "trains in bf16"),
    "arm": ("fp asimd", "aarch64", ["bf16"], "trains in fp32"),
    "arm_bf16": ("fp asimd bf16", "aarch64", [], "trains in bf16"),
    "not listed": ("", "arm64", [], "the kernel does not list"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_doctor_says_what_a_cpu_lacks_and_what_that_means(kind: str) -> None:
    flags, architecture, lacks, meaning = KINDS[kind]
    cpu = Cpu("a CPU", cores=2, flags=frozenset(flags.split()), architecture=architecture)
    assert cpu.lacks == lacks
    assert cpu.meaning.startswith(meaning)
    assert all(name in str(cpu) for name in lacks)


def test_model_and_features_come_from_the_first_processor(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: A: fast one\nflags\t\t: avx2 vaes\n\nprocessor\t: 1\nmodel name\t: B\n"
    )
    cpu = this_cpu(cpuinfo)
    assert (cpu.model, cpu.flags) == ("A: fast one", {"avx2", "vaes"})


def test_machine_that_lists_nothing_lacks_nothing(tmp_path: Path) -> None:
    cpu = this_cpu(tmp_path / "missing")
    assert cpu.model
    assert cpu.lacks == []
    assert not cpu.emulates_bf16


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert usable_cores() == 1
