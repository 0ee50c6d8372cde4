#!/bin/bash
# One rented machine, looked at: `smoke.sh PLACE [STORE]`, run once by what `account.py doctor --smoke` starts (cluster/smoke.py).
# A line of PLACE/said for each thing: what it is and what came of it. Every step is tried, whatever became of those before.
set -uo pipefail
place=$1 store=${2:-}
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
said=$HOME/said log=$HOME/log

# say NAME COMMAND...: its last line of output, or that it failed.
say() {
    local name=$1 text
    shift
    if text=$("$@" 2>> "$log"); then text="yes  $name: $(tail --lines 1 <<< "$text")"; else text="NO   $name: $(tail --lines 1 "$log")"; fi
    echo "$text" >> "$said"
    aws s3 cp --quiet "$said" "$place/said"
}

gpu_check() {
    cd "$project" && "$HOME/venv/bin/python" -m benchmarks gpu-check --minutes 5 ${store:+--store "$store"} >> "$log" 2>&1
    local status=$?
    aws s3 cp --quiet gpu-check.json "$place/gpu-check.json" && echo "all rows in gpu-check.json"
    return "$status"
}

nccl='import torch, torch.distributed as d
d.init_process_group("nccl", init_method="tcp://127.0.0.1:29500", rank=0, world_size=1)
x = torch.ones(1 << 20, device="cuda"); d.all_reduce(x); torch.cuda.synchronize(); print(torch.cuda.nccl.version())'

say "GPU, capability, driver" nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader
say "environment" bash "$project/cluster/node/setup.sh"
say "NCCL alone" "$HOME/venv/bin/python" -c "$nccl"
say "training steps${store:+ from the bucket}" gpu_check
aws s3 cp --quiet "$log" "$place/log"
echo "done" >> "$said"
aws s3 cp --quiet "$said" "$place/said"
