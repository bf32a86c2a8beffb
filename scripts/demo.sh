#!/usr/bin/env bash
# Trains the tiny latent action model on the Meta-World recordings of the repository, and says where its pictures are.
#   scripts/demo.sh [OVERRIDE...]    for example training.max_steps=200
set -euo pipefail
cd "$(dirname "$0")/.."

readonly RUN_DIR=runs/demo_$(date +%Y-%m-%d_%H-%M-%S)
"${CARGO_TARGET_DIR:-target}/release/hlrp" train-laq experiment=laq_tiny logging.run_dir="$RUN_DIR" "$@"

printf '\nPictures:\n'
find "$RUN_DIR" -name '*.png' | sort | sed 's/^/  /'
