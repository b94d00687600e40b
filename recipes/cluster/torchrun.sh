#!/usr/bin/env bash
# Train a recipe on several nodes with torchrun. Run this on every node; the folder of the run must be shared.
#
#   HEAD=node0 NODES=2 GPUS=8 ./torchrun.sh recipes/cogvideox_5b/magic_mirror.toml -o /shared/runs/magic_mirror
#
# When a process or node is lost, the elastic agent starts all processes again, and the run continues from its last
# checkpoint: the order of samples is a function of seed, epoch and position, so each sample is used once an epoch.
set -euo pipefail
# Workers that are started again would find the addresses of the earlier ones in the agent's store (pytorch 135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun \
    --nnodes="${MIN_NODES:-${NODES:-1}}:${NODES:-1}" \
    --nproc-per-node="${GPUS:-gpu}" \
    --max-restarts="${RESTARTS:-3}" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="${HEAD:-localhost}:${PORT:-29500}" \
    --rdzv-id="${RUN_ID:-likeness}" \
    -m likeness train "$@"
