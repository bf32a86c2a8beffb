#!/usr/bin/env bash
# Builds the extension and installs the package hlrp_rs into .venv, editable. Prints nothing where nothing changed.
#   scripts/develop.sh CARGO_FLAGS...
set -euo pipefail
cd "$(dirname "$0")/.."
export VIRTUAL_ENV=${VIRTUAL_ENV:-$PWD/.venv}

# What an installation depends on besides the compiled extension, which is rebuilt in its place.
readonly STAMP=$VIRTUAL_ENV/.hlrp_rs.sha256
installation() { { cat pyproject.toml Cargo.toml rust/python/Cargo.toml; pwd; } | sha256sum | cut -d ' ' -f 1; }

flags=(--quiet "$@")
[[ ! -f $STAMP || $(< "$STAMP") != "$(installation)" ]] || flags+=(--skip-install)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
PIP_QUIET=1 PIP_DISABLE_PIP_VERSION_CHECK=1 "$VIRTUAL_ENV/bin/python" -m maturin develop "${flags[@]}" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
installation > "$STAMP"
