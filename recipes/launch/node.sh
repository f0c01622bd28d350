#!/usr/bin/env bash
# What srun starts once on each node (train.sbatch): the training processes of this node. Options: those of `accelerate launch`, but for --machine_rank.
set -euo pipefail

signals=0
launcher=
pass_on() {
    signals=$((signals + 1))
    [[ -z $launcher ]] || kill -TERM "$launcher" 2>/dev/null || true
}
trap pass_on USR1 TERM

# A cluster sends the signal to this shell alone or to everything that it has started (SignalChildrenProcesses, ProctrackType). The training processes
# are to get one TERM, and those that load data none: they ignore USR1.
(
    trap '' USR1
    exec python -m audiomcq.launch --machine_rank "$SLURM_NODEID" "$@"
) &
launcher=$!

while true; do
    before=$signals code=0
    wait "$launcher" || code=$?
    # A signal interrupts `wait` with a code of its own
    ((signals > before)) || exit "$code"
done
