#!/usr/bin/env bash
# Builds the FFmpeg libraries that the wheel carries, from the source of the FFmpeg that this machine's programs are linked with: the video
# decoders of datasets and nothing else (no encoder, no network, no part under the GPL). Does nothing where they are built already.
#   scripts/ffmpeg.sh FOLDER [SOURCE]    FOLDER/lib gets the libraries, FOLDER/licenses their licences. SOURCE: FFmpeg's unpacked source, where apt-get source cannot fetch it
set -euo pipefail
cd "$(dirname "$0")/.."

FOLDER=$(realpath -m "$1")
readonly FOLDER GIVEN=${2:-}
# AV1 is decoded by dav1d (BSD licence), everything else by FFmpeg itself (LGPL 2.1 or later).
readonly CONFIGURE=(
  --disable-everything --disable-autodetect --disable-programs --disable-doc --disable-debug --disable-static --enable-shared
  --disable-network --disable-avdevice --disable-avfilter --disable-postproc --disable-swresample
  --enable-libdav1d --enable-protocol=file --enable-demuxer=mov
  --enable-decoder='libdav1d,h264,hevc,vp8,vp9,mpeg1video,mpeg2video,mpeg4,mjpeg,png,ffv1,prores,rawvideo'
  --enable-parser='av1,h264,hevc,vp8,vp9,mpegvideo,mpeg4video,mjpeg,png'
)

say() { printf 'ffmpeg: %s\n' "$*"; }
fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 1; }

RELEASE=$(pkg-config --modversion libavcodec) || fail "FFmpeg's development files are missing" "scripts/setup.sh run"
readonly RELEASE STAMP=$FOLDER/built WORK=$FOLDER/libavcodec-$RELEASE
wanted() { printf '%s\n' "libavcodec $RELEASE" "source ${GIVEN:-of the system}" "${CONFIGURE[@]}"; }
! [[ -f $STAMP && $(< "$STAMP") == "$(wanted)" ]] || exit 0

# Fetches the source of the installed package through the system's own mirrors; the lists of source packages stay in WORK.
fetch() {
  command -v dpkg-query > /dev/null || fail "the source of FFmpeg can be fetched on Debian and Ubuntu only" \
    "unpack the source of this machine's FFmpeg (libavcodec $RELEASE), then: make wheel FFMPEG_SOURCE=<folder>"
  local package apt_folder=$WORK/apt
  package=$(dpkg-query -W -f '${source:Package}=${source:Version}' libavcodec-dev)
  mkdir -p "$apt_folder"/{sources,lists/partial,cache/archives/partial}
  # shellcheck disable=SC2016 # apt fills these in
  apt-get indextargets --format '$(ORIGIN) deb-src $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    sed -n 's/^\(Debian\|Ubuntu\) //p' | sort -u > "$apt_folder/sources/system.list"
  local apt=(apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$apt_folder/sources"
    -o "Dir::State::lists=$apt_folder/lists" -o "Dir::Cache=$apt_folder/cache" -o APT::Sandbox::User=)
  say "fetching the source of $package"
  "${apt[@]}" update
  (cd "$WORK" && "${apt[@]}" source "$package" > /dev/null)
}

# The folder of the unpacked source, if there is one.
unpacked() { compgen -G "$WORK/ffmpeg-*/" | tail -n 1; }

mkdir -p "$WORK/build"
[[ -n $GIVEN ]] || unpacked > /dev/null || fetch
source=$(realpath -m "${GIVEN:-$(unpacked)}")
readonly source
[[ -x $source/configure ]] || fail "$source is not a source of FFmpeg: it has no configure" "name the folder that FFmpeg's archive unpacks to"

say "building decoders from $source (minutes)"
cd "$WORK/build"
{
  "$source/configure" --prefix="$FOLDER" "${CONFIGURE[@]}"
  make -j "$(nproc)"
  make install
} > "$WORK/build.log" 2>&1 || { tail -n 20 "$WORK/build.log" >&2; fail "FFmpeg was not built" "see $WORK/build.log"; }
[[ $(PKG_CONFIG_PATH=$FOLDER/lib/pkgconfig pkg-config --modversion libavcodec) == "$RELEASE" ]] ||
  fail "$source is not the FFmpeg that the programs are linked with (libavcodec $RELEASE)" "unpack the source of that release"
mkdir -p "$FOLDER/licenses"
cp "$source/COPYING.LGPLv2.1" "$FOLDER/licenses/ffmpeg.txt"
cp /usr/share/doc/libdav1d-dev/copyright "$FOLDER/licenses/dav1d.txt"
wanted > "$STAMP"
