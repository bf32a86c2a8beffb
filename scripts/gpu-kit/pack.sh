#!/usr/bin/env bash
# Packs what a bare machine with an NVIDIA driver, Python 3.12 and torch 2.11.0 needs, beyond the repository itself, into a folder.
# `pack.sh FOLDER PROGRAMS`: the folder, and where cargo puts programs.
set -euo pipefail

out=$1 programs=$2
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$out/bin"
cp "$kit/run.sh" "$kit"/*.py "$out/"
for program in hlrp-train-laq hlrp-train-vla hlrp-golden examples/bench_step examples/bench_policy; do
  strip -o "$out/bin/$(basename "$program")" "$programs/$program"
done
package=$(cd "$kit/../../python/hlrp_rs" && pwd)
mkdir -p "$out/python/hlrp_rs"
cp "$package"/*.py "$package"/*.pyi "$package/py.typed" "$out/python/hlrp_rs/"
strip -o "$out/python/hlrp_rs/_core.abi3.so" "$programs/lib_core.so"
tar -C "$out/.." -c "$(basename "$out")" | xz -T0 -9e > "$out.tar.xz"
du -h "$out.tar.xz"
