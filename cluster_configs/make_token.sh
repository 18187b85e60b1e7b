#!/usr/bin/env bash
# cluster_configs/make_token.sh [PATH]
#
# Creates the secret that a Ray cluster and its users share: 256 random bits in a file that only you can read. An
# existing token is kept. The script prints the path, never the token.
set -euo pipefail

path=${1:-$HOME/.config/catuvac/ray-token}
if [[ ! -e $path ]]; then
  umask 077
  mkdir -p "$(dirname "$path")"
  # No newline at the end: a Kubernetes Secret made from this file would include it in RAY_AUTH_TOKEN.
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$path"
elif [[ ! -f $path || ! -O $path || ! -s $path ]]; then
  echo "$path is empty, not a regular file, or not owned by you; remove it and run this again" >&2
  exit 2
elif [[ -n $(find "$path" \( -perm -g=r -o -perm -o=r \)) ]]; then
  echo "$path can be read by others; run chmod 600 on it, or remove it and run this again" >&2
  exit 2
fi
echo "$path"
