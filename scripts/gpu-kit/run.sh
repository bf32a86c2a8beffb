#!/usr/bin/env bash
# Proves and times hlrp on this machine: `run.sh` on one with a GPU, `run.sh --cpu` does the same checks with tiny sizes anywhere.
# Runs in a copy of the repository; needs Python 3.12 with torch 2.11.0. `run.sh --help` lists the options.
set -euo pipefail

kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export HLRP_REPO=${HLRP_REPO:-$(cd "$kit/../.." && pwd)}
python=${PYTHON:-python3}
torch_lib=$("$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parent / "lib")') \
  || { echo "error: $python cannot import torch"; echo "hint: set PYTHON to an interpreter that has torch 2.11.0"; exit 2; }
export LD_LIBRARY_PATH=$torch_lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# As `hlrp` starts its programs: waiting threads sleep soon.
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=2000
export PYTHONPATH=$kit/python${PYTHONPATH:+:$PYTHONPATH}
exec "$python" -u "$kit/kit.py" "$@"
