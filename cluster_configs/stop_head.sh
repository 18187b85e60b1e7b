#!/usr/bin/env bash
# cluster_configs/stop_head.sh
#
# Ends the Ray head that single_machine.sh started, with its workers and jobs; RAY_PORT and RAY_TMPDIR as there.
# `ray stop` would end every Ray process of yours on this machine, and with them studies that run outside of this head.
set -euo pipefail

temp=${RAY_TMPDIR:-/tmp}/catuvac-$UID/${RAY_PORT:-6379}
# Ray's own processes have their session's folder on their command line; workers end with the node that started them.
pattern="/ray/.*[= ]${temp//./[.]}/"
found=$(pgrep -u "$UID" -f -- "$pattern" || true)
if [[ -z $found ]]; then
  echo "no Ray head of yours runs in $temp"
  exit 0
fi
pkill -TERM -u "$UID" -f -- "$pattern" || true
deadline=$((SECONDS + 20))
while pgrep -u "$UID" -f -- "$pattern" >/dev/null && ((SECONDS < deadline)); do
  sleep 0.5
done
pkill -KILL -u "$UID" -f -- "$pattern" || true
echo "ended the Ray head in $temp"
