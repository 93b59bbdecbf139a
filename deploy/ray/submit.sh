#!/usr/bin/env bash
# Runs `cskd-pipeline precompute` on a Ray cluster that runs already; all arguments are those of precompute.
#
#   deploy/ray/submit.sh --data DATA --teacher resnet50 --seeds 0:30 --out s3://BUCKET/labels.zarr --tasks 16
#
# RAY_API_SERVER_ADDRESS: the cluster's dashboard, by default that of this machine. With `ray up`, first:
#   ray dashboard deploy/ray/cluster.yaml    # in another terminal: forwards port 8265
# Paths are those of the cluster's machines. The job's output is shown here; the job goes on if this is interrupted.
# Run again, it goes on where the store is.
set -euo pipefail

export RAY_API_SERVER_ADDRESS="${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}"

# Ray would give the job's own process one thread, and tasks have as many as that process. On GPUs this does not
# matter to the labels; on CPUs use one number for all of a store.
exec ray job submit -- env OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}" \
  cskd-pipeline precompute --engine ray --ray-address auto "$@"
