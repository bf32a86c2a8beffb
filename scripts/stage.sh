#!/usr/bin/env bash
# Puts the programs (stripped) and the configuration tree where the Python package hlrp_rs ships them from. Does nothing where nothing changed.
#   scripts/stage.sh PROGRAMS [FFMPEG]    PROGRAMS: the folder that cargo built them into; FFMPEG: what scripts/ffmpeg.sh built, for its licences
set -euo pipefail
cd "$(dirname "$0")/.."

readonly FROM=${1:-target/release} PACKAGE=python/hlrp_rs

mkdir -p "$PACKAGE/bin"
for program in hlrp hlrp-data hlrp-train-laq hlrp-train-vla; do
  [[ -x $FROM/$program ]] || { printf 'error: %s is not built\nhint: make build\n' "$FROM/$program" >&2; exit 1; }
  if [[ ! $PACKAGE/bin/$program -nt $FROM/$program ]]; then
    strip -o "$PACKAGE/bin/$program.partial" "$FROM/$program"
    mv "$PACKAGE/bin/$program.partial" "$PACKAGE/bin/$program"
  fi
done

# A machine's own values stay on that machine.
if ! diff -qr --exclude=local.yaml config "$PACKAGE/config" > /dev/null 2>&1; then
  rm -rf "$PACKAGE/config"
  cp -r config "$PACKAGE/config"
  rm -f "$PACKAGE/config/user_config/local.yaml"
fi

if [[ $# -gt 1 ]]; then
  mkdir -p "$PACKAGE/licenses"
  cp "$2"/licenses/* "$PACKAGE/licenses/"
fi
