#!/bin/bash
# Run 2026-12-01-language-1a2b. Submit it again with: rsc runs resume 2026-12-01-language-1a2b
#SBATCH --job-name=2026-12-01-language-1a2b
#SBATCH --chdir=/shared/rsc/runs/2026-12-01-language-1a2b
#SBATCH --output=slurm-%j.log
#SBATCH --open-mode=append
#SBATCH --export=NIL  # else slurmctld keeps the environment of whoever submits, secrets too
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=h100:8
#SBATCH --cpus-per-task=96
#SBATCH --mem=900G
#SBATCH --partition=batch
#SBATCH --account=research
#SBATCH --time=12:00:00
#SBATCH --constraint="nvlink&ib"
#SBATCH --exclude="gpu[3,17-19]"
#SBATCH --switches=1

export PATH=/usr/bin:/bin
export RSC_HOME=/shared/rsc
module load cuda/12.8

# SIGUSR1 comes 120 s before the time limit and is passed on: the run checkpoints and ends with 75.
# SIGTERM (cancelled, preempted, at the limit) reaches the run without this shell, which waits for it.
trap 'kill -USR1 "$controller"' USR1
trap : TERM
/opt/rsc/bin/python -m rsc runs resume 2026-12-01-language-1a2b --on local &
controller=$!
while :; do
    wait "$controller"
    code=$?
    kill -0 "$controller" 2>/dev/null || break
done

# 75: checkpointed, start again. Above 130: killed from outside; `rsc runs resume` stops where that repeats.
# A job that was cancelled is not started again, one that Slurm requeues already need not be.
state=$(squeue -h -j "$SLURM_JOB_ID" -o '%T %r')
if [ "$code" -eq 75 ] || [ "$code" -gt 130 ]; then
    case $state in
    RUNNING* | *TimeLimit) scontrol requeue "$SLURM_JOB_ID" ;;
    esac
fi
exit "$code"
