#!/usr/bin/env bash
# Installs what the project needs and this machine lacks, and says what it installs. Prints nothing where nothing is missing.
#   [SLOW=yes] scripts/setup.sh [run|demo|wheel|test]
#     run: what building and training need; demo: also what stage 3 and its simulator need; wheel: also what `make wheel` needs; test (default):
#     also what only tests, lints and benchmarks need; with SLOW=yes also what only the slow tests need
set -euo pipefail
cd "$(dirname "$0")/.."

readonly KIND=${1:-test}
readonly MIN_RUST=1.95 PYTHON_VERSION=3.12 NEWEST_WANDB=0.31.0
readonly REQUIREMENTS=requirements/$KIND.txt
readonly VENV=.venv
# Each kind includes the ones before it.
readonly KINDS=(run demo wheel test)
# To build: the compiler's C++ half, FFmpeg's development files, Gloo's headers for distributed training.
APT_PACKAGES=(
  build-essential pkg-config clang libclang-dev
  libavcodec-dev libavdevice-dev libavfilter-dev libavformat-dev libavutil-dev libswresample-dev libswscale-dev
  libgloo-dev
)
# For the demo: Mesa's off-screen renderer for simulators. For tests: the ffmpeg program, which makes and measures videos; strace, which sees
# what a run deletes; Slurm with its accounting, which the tests start in a folder of their own, and its headers for a stand-in of Pyxis.
[[ $KIND == run ]] || APT_PACKAGES+=(libosmesa6)
[[ $KIND != test ]] || APT_PACKAGES+=(ffmpeg strace slurm-wlm slurm-wlm-basic-plugins munge slurmdbd mariadb-server libslurm-dev)
# For the slow tests (SLOW=yes): a browser that shows the pages; systems and images to run in; hosts with networks of their own.
[[ $KIND != test || -z ${SLOW:-} ]] || APT_PACKAGES+=(chromium fonts-dejavu-core mmdebstrap buildah squashfs-tools bubblewrap shellcheck iproute2)
# For wheels: what builds the FFmpeg that they carry. (Slow tests build wheels.)
[[ $KIND != wheel && ($KIND != test || -z ${SLOW:-}) ]] || APT_PACKAGES+=(nasm libdav1d-dev)
readonly APT_PACKAGES
# Services that Debian starts with some of these packages, and that nothing here uses.
readonly UNUSED_SERVICES=(munge slurmctld slurmd slurmdbd mariadb)

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

check_rust() {
  command -v cargo > /dev/null || fail "cargo is not on PATH" "install Rust $MIN_RUST or newer from https://rustup.rs"
  local version
  version=$(rustc --version | cut -d ' ' -f 2)
  [[ $(printf '%s\n' "$MIN_RUST" "$version" | sort -V | head -n 1) == "$MIN_RUST" ]] ||
    fail "Rust $version is older than $MIN_RUST" "rustup update"
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null) == installed ]]; }

install_apt_packages() {
  if ! command -v dpkg-query > /dev/null; then
    pkg-config --exists libavformat libavcodec libavutil libswscale libswresample 2> /dev/null ||
      fail "FFmpeg's development files are missing, and this is not a Debian system" \
        "install the counterparts of these packages with the system's package manager: ${APT_PACKAGES[*]}"
    return
  fi
  local missing=() package
  for package in "${APT_PACKAGES[@]}"; do
    is_installed "$package" || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  local as_root=()
  if [[ $(id -u) -ne 0 ]]; then
    command -v sudo > /dev/null || fail "these packages are missing: ${missing[*]}" "ask an administrator to install them with apt-get"
    as_root=(sudo)
  fi
  say "installing with apt-get: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  local service had=()
  for service in "${UNUSED_SERVICES[@]}"; do
    ! has_service "$service" || had+=("$service")
  done
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  for service in "${UNUSED_SERVICES[@]}"; do
    [[ " ${had[*]} " == *" $service "* ]] || ! has_service "$service" ||
      "${as_root[@]}" systemctl disable --quiet --now "$service"
  done
}

# Whether systemd runs here and knows a service. A service that was here before belongs to the user.
has_service() { [[ -d /run/systemd/system ]] && systemctl cat "$1" > /dev/null 2>&1; }

# A Python of the right version that can create environments: on PATH, from pyenv, or from uv.
find_python() {
  local candidate
  while read -r candidate; do
    if "$candidate" -c "import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '$PYTHON_VERSION')" 2> /dev/null; then
      printf '%s\n' "$candidate"
      return
    fi
  done < <(
    command -v "python$PYTHON_VERSION" || true
    command -v python3 || true
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}/versions/$PYTHON_VERSION"*/bin/python 2> /dev/null || true
    uv python find "$PYTHON_VERSION" 2> /dev/null || true
  )
  fail "no Python $PYTHON_VERSION with the modules venv and ensurepip" \
    "install it (apt-get install python$PYTHON_VERSION-venv, pyenv install $PYTHON_VERSION, or uv python install $PYTHON_VERSION)"
}

stamp() { printf '%s\n' "$VENV/.requirements-$1.sha256"; }

fingerprint() { cat requirements/*.txt | sha256sum | cut -d ' ' -f 1; }

# Whether the packages of this kind, or of one that includes it, are installed in their present versions.
is_installed_in_venv() {
  local kind is_included=
  for kind in "${KINDS[@]}"; do
    [[ $kind != "$KIND" ]] || is_included=yes
    [[ -z $is_included || ! -f $(stamp "$kind") || $(< "$(stamp "$kind")") != "$(fingerprint)" ]] || return 0
  done
  return 1
}

install_python_packages() {
  ! is_installed_in_venv || return 0
  if [[ ! -x $VENV/bin/python ]]; then
    local python
    python=$(find_python)
    say "creating $VENV with $python"
    "$python" -m venv "$VENV"
  fi
  say "installing $REQUIREMENTS into $VENV (torch is large: several minutes the first time)"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile -r "$REQUIREMENTS"
  fingerprint > "$(stamp "$KIND")"
}

# For the slow tests: the newest client of W&B, which reads our logs as well. LeRobot needs an older one in the environment itself.
install_newest_wandb() {
  local venv=target/newest-wandb
  [[ ! -f $venv/$NEWEST_WANDB.done ]] || return 0
  say "installing wandb $NEWEST_WANDB into $venv"
  "$VENV/bin/python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile "wandb==$NEWEST_WANDB"
  touch "$venv/$NEWEST_WANDB.done"
}

[[ -f $REQUIREMENTS ]] || fail "there is no $REQUIREMENTS" "scripts/setup.sh [run|demo|wheel|test]"
check_rust
install_apt_packages
install_python_packages
[[ $KIND != test || -z ${SLOW:-} ]] || install_newest_wandb
