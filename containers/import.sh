#!/usr/bin/env bash
# Imports a container image as a squashfs file for Enroot and Pyxis, under a name with the time of the import. For a compute node with plenty
# of memory: layers are unpacked and compressed there.
#   containers/import.sh SOURCE IMAGE_DIR NAME
#     SOURCE      docker://[HOST#]IMAGE:TAG, podman://IMAGE:TAG, or oci-archive:FILE (needs podman on this machine)
#     IMAGE_DIR   folder of images on project storage; temporary files and Enroot's cache of layers are below it
#     NAME        the image becomes IMAGE_DIR/NAME_<date>_<time>.sqsh
# The last line of the output is the path of the image. IMAGE_DIR/activation_log.tsv gets one line. Nothing is replaced and nothing is
# deleted: what an interrupted import wrote stays under a name that ends in `.partial`.
set -euo pipefail

fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit "${3:-1}"; }

[[ $# -eq 3 ]] || fail "import.sh takes three arguments, not $#" "containers/import.sh SOURCE IMAGE_DIR NAME" 2
readonly SOURCE=$1 NAME=$3
case $SOURCE in
  docker://?* | podman://?* | oci-archive:?*) ;;
  *) fail "unknown kind of image '$SOURCE'" "docker://IMAGE:TAG, podman://IMAGE:TAG or oci-archive:FILE" 2 ;;
esac
[[ $NAME =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ && $NAME != *.sqsh ]] ||
  fail "invalid name of an image '$NAME'" "letters, digits and -_. only, without .sqsh: the date and .sqsh are added" 2
[[ $2 == /* && $2 != *[:,[:space:]]* ]] ||
  fail "invalid image folder '$2'" "an absolute path without ':', ',' and spaces, which the lists of container mounts cannot hold" 2
command -v enroot > /dev/null ||
  fail "enroot is not on PATH of $(hostname)" "run this on a compute node, or build the .sqsh elsewhere (docs/containers.md) and copy it"

mkdir -p "$2"
IMAGE_DIR=$(cd "$2" && pwd)
readonly IMAGE_DIR
STAMP=$(date +%Y-%m-%d_%H-%M-%S)
readonly STAMP JOB=${SLURM_JOB_ID:-$$}
readonly IMAGE=$IMAGE_DIR/${NAME}_$STAMP.sqsh
readonly PARTIAL=$IMAGE_DIR/.${NAME}_$STAMP.$JOB.sqsh.partial
[[ ! -e $IMAGE && ! -e $PARTIAL ]] || fail "$IMAGE exists" "images are never replaced: import again, or under another name"

# Everything large is on project storage, not in the home directory or in the memory of the node.
readonly WORK=$IMAGE_DIR/.import/$JOB
export ENROOT_CACHE_PATH=$IMAGE_DIR/.import/cache ENROOT_DATA_PATH=$WORK/data ENROOT_RUNTIME_PATH=$WORK/run
export ENROOT_TEMP_PATH=$WORK/tmp TMPDIR=$WORK/tmp PARALLEL_TMPDIR=$WORK/tmp
mkdir -p "$ENROOT_CACHE_PATH" "$ENROOT_DATA_PATH" "$ENROOT_RUNTIME_PATH" "$TMPDIR"
# Each processor unpacks a layer, and needs memory for it.
readonly DEFAULT_PROCESSORS=4
export ENROOT_MAX_PROCESSORS=${ENROOT_MAX_PROCESSORS:-${SLURM_CPUS_PER_TASK:-$DEFAULT_PROCESSORS}}

uri=$SOURCE
if [[ $SOURCE == oci-archive:* ]]; then
  readonly ARCHIVE=${SOURCE#oci-archive:}
  [[ -f $ARCHIVE ]] || fail "there is no file $ARCHIVE" "containers/build.sh writes it"
  command -v podman > /dev/null || fail "podman, which reads OCI archives for enroot, is not on PATH of $(hostname)" \
    "push the image to a registry and import docker://…, or build the .sqsh elsewhere (docs/containers.md) and copy it"
  # Podman's store is beside the temporary files, for enroot's own calls of podman too.
  export CONTAINERS_STORAGE_CONF=$WORK/storage.conf
  printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$WORK/podman" "$WORK/podman-run" > "$CONTAINERS_STORAGE_CONF"
  uri=podman://$(podman pull --quiet "oci-archive:$ARCHIVE" | tail -n 1)
fi

printf 'import: %s to %s with %s processors, temporary files in %s\n' "$SOURCE" "$IMAGE" "$ENROOT_MAX_PROCESSORS" "$WORK"
enroot import --output "$PARTIAL" "$uri" || fail "enroot import ended with code $?" \
  "its output is above; killed without a message means out of memory: ask for more (--mem), or set ENROOT_MAX_PROCESSORS lower"
[[ -s $PARTIAL ]] || fail "enroot succeeded, but wrote no $PARTIAL" "its output is above"

chmod a-w "$PARTIAL"
sync "$PARTIAL"
mv --no-clobber --no-target-directory "$PARTIAL" "$IMAGE"
[[ ! -e $PARTIAL ]] || fail "$IMAGE exists" "another import wrote it; this one's is $PARTIAL"

readonly LOG=$IMAGE_DIR/activation_log.tsv
[[ -e $LOG ]] || printf 'time\taction\timage\tbytes\tsha256\tsource\thost\tjob\n' >> "$LOG"
printf '%s\timported\t%s\t%s\t%s\t%s\t%s\t%s\n' "$(date +%Y-%m-%dT%H:%M:%S%z)" "${IMAGE##*/}" "$(stat -c %s "$IMAGE")" \
  "$(sha256sum "$IMAGE" | cut -d ' ' -f 1)" "$SOURCE" "$(hostname)" "${SLURM_JOB_ID:--}" >> "$LOG"
printf '%s\n' "$IMAGE"
