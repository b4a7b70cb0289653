"""What the environment of a process that trains says to its C library and its threads."""

from __future__ import annotations

HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""Huge pages for the heap save address look-ups, which cost most under a hypervisor: 4-10 % of the CPU time
of a step of a 10 M model there, where the kernel gives them on request ("madvise"). glibc before 2.35 ignores
it."""

PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""Threads of a worker that wait for each other spin for 10,000 rounds, then sleep. Seconds a step of a 10 M
model on 2 cores, quiet and beside three busy programs: 0.43 and 1.5 to 2.4 so; 0.42 and above 8 with OpenMP's
default, whose spinners take the time of those they wait for; 0.59 and 0.8 to 1.0 without any spinning."""
