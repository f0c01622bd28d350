#!/usr/bin/env bash
# Measure on a bare GPU machine, in order of worth, and stop in time:   bash benchmarks/gpu.sh [SECONDS] [FOLDER FOR RESULTS]
# PRESET=smoke rehearses every line on a CPU. Each case is a process of its own and leaves its JSON before the next begins. A second call with
# the same folder measures what the first did not reach.
# Needs Python 3.12, torch 2.11 or newer and Triton; what else, `bash benchmarks/gpu_wheels.sh .whl` collects, and this installs.
set -uo pipefail
cd "$(dirname "$0")"
seconds=${1:-780} results=${2:-$PWD/results/gpu} preset=${PRESET:-h200}
end=$((SECONDS + seconds))
mkdir -p "$results"
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
[ -d /dev/shm ] && export TMPDIR=/dev/shm  # the models are written and read again
if [ -d ../.whl ]; then
    # The folder must be called site-packages: dill pickles what lies elsewhere by value, and pyarrow cannot be
    site=$(mktemp -d)/site-packages
    python3 -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" ../.whl*/*.whl 2> /dev/null || exit 1
    export PYTHONPATH=$site
fi
export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$PWD/../src

measure() { # seconds that it needs, name, command
    local needed=$1 name=$2 left=$((end - SECONDS)) started=$SECONDS
    shift 2
    [ -e "$results/$name.json" ] && return  # measured by a call before this one
    if [ "$left" -lt "$needed" ]; then
        echo "== $name: not measured, $left s left of the $needed it needs"
        return
    fi
    timeout "$left" python3 "$@" > "$results/$name.log" 2>&1
    echo "== $name: exit $?, $((SECONDS - started)) s"
}

if [ "$preset" = smoke ]; then
    measure 5 decode_smoke decode.py --model smoke --prompts 1 2 --tokens 8 --output "$results/decode_smoke.json"
    measure 5 precision_smoke precision.py --model smoke --output "$results/precision_smoke.json"
    measure 5 grpo_smoke grpo_step.py --preset smoke --case smoke:2x2x4 smoke:1x2x4:lora --output "$results/grpo_smoke.json"
    measure 5 training_memory_smoke training_memory.py --preset smoke --output "$results/training_memory_smoke.json"
    measure 5 silent_probe_smoke silent_probe.py --preset smoke --output "$results/silent_probe_smoke.json"
    measure 5 answering_smoke answering.py --preset smoke --output "$results/answering_smoke.json"
    exit
fi
measure 10 kernels gpu_check.py
measure 80 grpo_7B grpo_step.py --preset h200 --case 7B:1x8x128 --output "$results/grpo_7B.json"
measure 70 grpo_3B grpo_step.py --preset h200 --case 3B:1x8x128 --output "$results/grpo_3B.json"
measure 80 grpo_3B_2 grpo_step.py --preset h200 --case 3B:2x8x128 --output "$results/grpo_3B_2.json"
measure 60 grpo_3B_lora grpo_step.py --preset h200 --case 3B:1x8x128:lora --output "$results/grpo_3B_lora.json"
measure 80 silent_probe_7B silent_probe.py --preset h200 --output "$results/silent_probe_7B.json"
measure 45 training_memory training_memory.py --preset h200 --output "$results/training_memory.json" \
    --case 3B:sft:4:lora 3B:sft:4:lora:stored 3B:grpo:8x128:lora 3B:grpo:16x128:lora:stored
measure 60 grpo_3B_short grpo_step.py --preset h200 --case 3B:1x8x16 3B:4x8x16 --output "$results/grpo_3B_short.json"
measure 80 answering_7B answering.py --preset h200 --output "$results/answering_7B.json"
measure 35 decode_7B decode.py --model 7B --prompts 1 8 --output "$results/decode_7B.json"
measure 40 decode_3B decode.py --model 3B --prompts 1 8 16 --output "$results/decode_3B.json"
measure 20 precision_3B precision.py --model 3B --output "$results/precision_3B.json"
