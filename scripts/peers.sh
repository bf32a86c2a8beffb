#!/usr/bin/env bash
# Installs what `make bench` compares with and the project itself does not use, into an environment on top of the project's. Prints nothing
# where nothing is missing.
#   scripts/peers.sh     after scripts/setup.sh test
set -euo pipefail
cd "$(dirname "$0")/.."

readonly BASE=.venv VENV=target/peers REQUIREMENTS=tests/bench/peers.txt

packages() { "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }

[[ -x $BASE/bin/python ]] || {
  printf 'error: there is no %s\nhint: run scripts/setup.sh test first\n' "$BASE" >&2
  exit 1
}
# Both environments belong together: LeRobot and torch are the project's.
stamp=$(cat requirements/*.txt "$REQUIREMENTS" | sha256sum | cut -d ' ' -f 1)
[[ ! -f $VENV/$stamp.done ]] || exit 0
printf 'setup: installing %s into %s\n' "$REQUIREMENTS" "$VENV"
"$BASE/bin/python" -m venv --clear "$VENV"
packages "$BASE" > "$(packages "$VENV")/project.pth"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -r "$REQUIREMENTS"
touch "$VENV/$stamp.done"
