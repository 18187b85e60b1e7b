#!/usr/bin/env bash
# cluster_configs/make_token.sh [PATH]
#
# Makes the secret that a Ray cluster and its users share: 256 random bits in a file that only you can read. It is made
# once, and kept where it exists already. What is printed is the path, never the token.
set -euo pipefail

path=${1:-$HOME/.config/catuvac/ray-token}
if [[ ! -e $path ]]; then
  umask 077
  mkdir -p "$(dirname "$path")"
  # No newline at the end: a Kubernetes Secret made from this file would carry it into RAY_AUTH_TOKEN.
  head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$path"
elif [[ ! -f $path || ! -O $path || ! -s $path ]]; then
  echo "$path is empty, or no file of yours; remove it and run this again" >&2
  exit 2
elif [[ -n $(find "$path" \( -perm -g=r -o -perm -o=r \)) ]]; then
  echo "$path can be read by others; chmod 600 it, or remove it and run this again" >&2
  exit 2
fi
echo "$path"
