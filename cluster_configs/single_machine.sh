#!/usr/bin/env bash
# cluster_configs/single_machine.sh NAME --preset fsdd --data-root /abs/data --trials 40 --gpus-per-trial 0.25
#
# One machine with all of its GPUs. Starts a Ray head unless you already run one, submits the study and follows it; the
# same command continues a study that was killed. Without GPUs, leave out --gpus-per-trial. If another user occupies
# Ray's ports, set RAY_PORT and DASHBOARD_PORT.
# Data are in the folder of --data-root, features in $CATUVAC_CACHE or ~/.cache/catuvac, results in $STORAGE/NAME
# (default ~/catuvac/results/NAME).
set -euo pipefail

if [[ $# -lt 1 || $1 == -* ]]; then
  echo "usage: $0 NAME [flags of studies/tau_sweep.py]" >&2
  exit 2
fi
name=$1
shift
if [[ " $* " == *" --storage"[\ =]* || " $* " == *" --name"[\ =]* ]]; then
  echo "leave out --storage and --name: set STORAGE, and give the name as the first argument" >&2
  exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Needed on loopback too: every account on this machine reaches 127.0.0.1, and Ray's own port is on all interfaces.
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH=${RAY_AUTH_TOKEN_PATH:-$HOME/.config/catuvac/ray-token}
export RAY_USAGE_STATS_ENABLED=0
export RAY_JOB_STOP_WAIT_TIME_S=30 # `ray job stop` waits before it kills: a study writes its tables first
bash cluster_configs/make_token.sh "$RAY_AUTH_TOKEN_PATH" >/dev/null

port=${RAY_PORT:-6379}
dashboard=${DASHBOARD_PORT:-8265}
jobs=http://127.0.0.1:$dashboard
storage=${STORAGE:-$HOME/catuvac/results}
# The kernel lists each socket's address, state (0A is listening) and user; macOS has no such list, so no check.
listener() { # PORT: prints the uid of the user who listens there
  awk -v port=":$(printf '%04X' "$1")" '$4 == "0A" && $2 ~ port "$" {print $8; exit}' \
    < <(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null)
}
# The process that listens on the dashboard's port receives the token.
owner=$(listener "$dashboard")
if [[ -n $owner && $owner != "$UID" ]]; then
  echo "port $dashboard is used by another user; set DASHBOARD_PORT and RAY_PORT to free ones" >&2
  exit 2
fi
if ! ray job list --address "$jobs" >/dev/null 2>&1; then
  for taken in "$port" "$dashboard"; do
    if [[ -n $(listener "$taken") ]]; then
      echo "port $taken is taken, but no Ray there accepts this token; set DASHBOARD_PORT and RAY_PORT to free ones" >&2
      exit 2
    fi
  done
  # Ray makes its session's folders and sockets world-accessible; their parent folder keeps others out. A long path
  # would exceed the length limit of a socket's address.
  temp=${RAY_TMPDIR:-/tmp}/catuvac-$UID
  mkdir -m 700 "$temp" 2>/dev/null || true
  if [[ ! -d $temp || -L $temp || ! -O $temp ]]; then
    echo "$temp is not a folder that you own; set RAY_TMPDIR to one that is, with a short path" >&2
    exit 2
  fi
  chmod 700 "$temp"
  python cluster_configs/start_head.py --port="$port" --dashboard-host=127.0.0.1 --dashboard-port="$dashboard" \
    --dashboard-agent-listen-port=0 --temp-dir="$temp/$port" --disable-usage-stats
  # An empty job: the jobs API answers other requests seconds before it can start a job.
  deadline=$((SECONDS + 60))
  until ray job submit --address "$jobs" --no-wait -- true >/dev/null 2>&1 || ((SECONDS >= deadline)); do
    sleep 1
  done
fi

job=$name-$(date +%Y%m%d-%H%M%S)
cat <<EOF
results    $storage/$name
watch      $jobs (asks for the token in $RAY_AUTH_TOKEN_PATH), from another machine through
           ssh -L $dashboard:127.0.0.1:$dashboard $(hostname); or catuvac watch $storage/$name
stop       ray job stop --address $jobs $job (with RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH)
resume     run the same command again
end Ray    ${RAY_PORT:+RAY_PORT=$port }cluster_configs/stop_head.sh
EOF
exec ray job submit --address "$jobs" --submission-id "$job" --working-dir . -- \
  env CATUVAC_REVISION="$(git describe --always --dirty=+dirty --abbrev=12 2>/dev/null || echo unknown)" \
  STORAGE="$storage" bash cluster_configs/run_study.sh "$name" "$@"
