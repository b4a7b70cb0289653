"""A cluster's life, event by event: jobs that queue, nodes that fail, what is lost by which cause. No torch.

    scenario -> workload + faults -> Simulation (core) -> GpuTimeLedger -> Outcome -> report

`rsc simulate` and docs/simulate.md are the way in. Not covered: what a job computes, packets on the fabric,
users who react to their queue.
"""
