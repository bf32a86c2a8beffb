#!/usr/bin/env bash
# Runs suites one after another, says how long each took, and stops at the first that fails.
#   scripts/suites.sh COMMAND... -- SUITE...    runs COMMAND SUITE for each suite
set -euo pipefail

command=()
while [[ $1 != -- ]]; do
  command+=("$1")
  shift
done
shift

took() { printf '%s: %d min %02d s\n' "$1" $(($2 / 60)) $(($2 % 60)); }

for suite in "$@"; do
  start=$SECONDS
  "${command[@]}" "$suite" || { code=$?; took "$suite failed after" $((SECONDS - start)) >&2; exit "$code"; }
  took "$suite" $((SECONDS - start))
done
took "all suites" "$SECONDS"
