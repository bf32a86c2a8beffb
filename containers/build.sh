#!/usr/bin/env bash
# Builds an image of hlrp with docker, podman or buildah, whichever works here first, as an OCI archive and as a squashfs file for Enroot and Pyxis.
#   containers/build.sh train|lerobot FOLDER [OPTION...] [-- FLAGS of the engine's build command...]
#     FOLDER                gets hlrp-<kind>_<date>_<time>.oci.tar and .sqsh; what is there is neither replaced nor deleted
#     --base IMAGE          Debian or a relative, bookworm or newer (default: debian:bookworm)
#     --wheels FOLDER       the wheels of `make wheel`, and any others that pip shall prefer to an index (default: target/wheels)
#     --python FOLDER       a Python 3.12 that can be moved (default: uv fetches one)
#     --torch-index URL     an index of PyTorch's wheels for another CUDA or for CPUs only (default: CUDA, from the default index)
#     --engine NAME         docker, podman or buildah
#     --no-sqsh             the OCI archive only
set -euo pipefail

fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit "${3:-1}"; }
say() { printf 'build: %s\n' "$*"; }

HERE=$(dirname "$(realpath "$0")")
REPOSITORY=$(dirname "$HERE")
readonly HERE REPOSITORY
[[ $# -ge 2 && -f $HERE/Containerfile.$1 ]] || fail "which image, and where to?" "containers/build.sh train|lerobot FOLDER" 2
readonly KIND=$1
mkdir -p "$2"
FOLDER=$(realpath "$2")
readonly FOLDER
shift 2

base='' wheels=$REPOSITORY/target/wheels python='' torch_index='' engine='' squash=yes
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --no-sqsh) squash=''; shift; continue ;;
    --base | --wheels | --python | --torch-index | --engine) [[ $# -ge 2 ]] || fail "$1 needs a value" "$0 $KIND FOLDER $1 VALUE" 2 ;;
    *) fail "unknown option $1" "head -n 12 $0 lists them" 2 ;;
  esac
  case $1 in
    --base) base=$2 ;;
    --wheels) wheels=$2 ;;
    --python) python=$2 ;;
    --torch-index) torch_index=$2 ;;
    --engine) engine=$2 ;;
  esac
  shift 2
done
[[ $# -eq 0 ]] || shift
readonly FLAGS=("$@")

compgen -G "$wheels/hlrp_rs-*.whl" > /dev/null || fail "$wheels has no wheel of hlrp_rs" "make wheel"
if [[ -z $engine ]]; then
  # A client of docker without its daemon builds nothing: an engine is one that can list its images.
  for candidate in docker podman buildah; do
    ! "$candidate" images --quiet > /dev/null 2>&1 || { engine=$candidate; break; }
  done
  [[ -n $engine ]] || fail "neither docker (with its daemon) nor podman nor buildah works here" "install one of them, or start docker's daemon"
fi
NAME=hlrp-${KIND}_$(date +%Y-%m-%d_%H-%M-%S)
readonly NAME TAG=localhost/hlrp-$KIND:${NAME#*_}
[[ ! -e $FOLDER/$NAME.oci.tar && ! -e $FOLDER/$NAME.sqsh ]] || fail "$FOLDER/$NAME exists" "images are never replaced: build again"

# The build sees a folder of its own with just what the image is made of.
work=$(mktemp -d "$FOLDER/.build.XXXXXX")
container=''
clean() {
  [[ -z $container ]] || "$engine" rm "$container" > /dev/null
  rm -rf "$work"
}
trap clean EXIT
mkdir "$work/context" "$work/context/wheels"
ln "$wheels"/*.whl "$work/context/wheels/" 2> /dev/null || cp "$wheels"/*.whl "$work/context/wheels/"
cp "$REPOSITORY/requirements/constraints.txt" "$work/context/wheels/"
if [[ -z $python ]]; then
  command -v uv > /dev/null || fail "uv, which fetches Python 3.12, is not on PATH" "pip install uv, or name a Python: --python FOLDER"
  uv python install --quiet --install-dir "$work/python" 3.12
  python=$(compgen -G "$work/python/cpython-3.12*" | head -n 1)
fi
[[ -x $python/bin/python3.12 ]] || fail "$python has no bin/python3.12" "--python names the folder above bin"
tar -C "$python" -c --exclude=__pycache__ --exclude=site-packages/[!p]* --exclude='*.a' --exclude=lib/python3.12/test . |
  tar -C "$work/context" -x --one-top-level=python

build=(build)
[[ $engine != buildah ]] || build=(bud)
arguments=()
[[ -z $base ]] || arguments+=(--build-arg "BASE=$base")
[[ -z $torch_index ]] || arguments+=(--build-arg "TORCH_INDEX=$torch_index")
say "$TAG with $engine"
DOCKER_BUILDKIT=1 "$engine" "${build[@]}" "${arguments[@]}" "${FLAGS[@]}" -t "$TAG" -f "$HERE/Containerfile.$KIND" "$work/context"

# Gives a finished file its name, unless there is one of that name by now.
finish() {
  chmod a-w "$1"
  sync "$1"
  mv --no-clobber --no-target-directory "$1" "$2"
  [[ ! -e $1 ]] || fail "$2 exists" "images are never replaced: build again"
  say "$2, $(($(stat -c %s "$2") / 1000000)) MB"
}

case $engine in
  docker) docker save --output "$work/image.tar" "$TAG" ;;
  *) "$engine" push --quiet "$TAG" "oci-archive:$work/image.tar:${TAG##*/}" ;;
esac
finish "$work/image.tar" "$FOLDER/$NAME.oci.tar"
[[ -n $squash ]] || exit 0

if command -v enroot > /dev/null && [[ $engine != buildah ]]; then
  scheme=podman
  [[ $engine == podman ]] || scheme=dockerd
  ENROOT_TEMP_PATH=$work enroot import --output "$work/image.sqsh" "$scheme://$TAG"
else
  # What Enroot's import does: the files of all layers, owned by root, and the image's environment and command where Enroot looks for them.
  command -v mksquashfs > /dev/null || fail "neither enroot nor mksquashfs is on PATH" "install squashfs-tools, or build with --no-sqsh"
  case $engine in
    buildah)
      container=$(buildah from --pull-never "$TAG")
      rootfs=$(buildah mount "$container")
      environment=$(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$TAG")
      ;;
    *)
      container=$("$engine" create "$TAG")
      rootfs=$work/rootfs
      mkdir "$rootfs"
      "$engine" export "$container" | tar -C "$rootfs" -x --anchored --exclude='dev/*' --exclude=.dockerenv
      environment=$("$engine" inspect --format '{{range .Config.Env}}{{println .}}{{end}}' "$TAG")
      ;;
  esac
  printf '%s\n' "$environment" > "$rootfs/etc/environment"
  : > "$rootfs/etc/fstab"
  # shellcheck disable=SC2016 # expanded when the container starts
  printf '%s\n' 'cd / && unset OLDPWD || exit 1' 'if [ $# -gt 0 ]; then exec "$@"; else exec /bin/bash; fi' > "$rootfs/etc/rc"
  mksquashfs "$rootfs" "$work/image.sqsh" -all-root -comp lzo -noD -no-progress -quiet
fi
finish "$work/image.sqsh" "$FOLDER/$NAME.sqsh"
