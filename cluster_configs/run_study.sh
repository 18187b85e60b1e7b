#!/usr/bin/env bash
# STORAGE=/shared/results cluster_configs/run_study.sh NAME --preset fsdd --data-root /shared/data
#
# Starts the study NAME, or continues it if it already exists, so that every restart of a job (Slurm's requeue, a
# RayJob's retry, you) repeats the same command. Runs on the head, as the entrypoint of a Ray job.
# STORAGE: an absolute path, or s3://… or gs://… (default ~/catuvac/results).
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
  echo "usage: run_study.sh NAME [flags of studies/tau_sweep.py]" >&2
  exit 2
fi
name=$1
shift
if [[ " $* " == *" --storage"[\ =]* || " $* " == *" --name"[\ =]* ]]; then
  echo "leave out --storage and --name: set STORAGE, and give the name as the first argument" >&2
  exit 2
fi
storage=${STORAGE:-$HOME/catuvac/results}
begun=0
if [[ $storage == *://* ]]; then
  begun=$(python -c 'import sys; from pyarrow.fs import FileSystem
system, path = FileSystem.from_uri(sys.argv[1])
print(int(system.get_file_info(path).is_file))' "$storage/$name/study.json")
elif [[ -f $storage/$name/study.json ]]; then
  begun=1
fi
resume=()
if [[ $begun == 1 ]]; then
  resume=(--resume)
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python studies/tau_sweep.py --name "$name" --storage "$storage" "$@" "${resume[@]}"
