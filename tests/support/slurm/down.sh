#!/usr/bin/env bash
# Stops what up.sh started in DIR, with the jobs that still run there: by its pid files, and only processes that are of that folder.
#   down.sh DIR
set -uo pipefail
shopt -s nullglob
DIR=$(realpath -m "$1")

# Pids of the given files whose process was started with this folder's configuration.
own() {
  local file pid
  for file in "$@"; do
    pid=$(< "$file")
    ! grep -qzF "$DIR/" "/proc/$pid/cmdline" "/proc/$pid/environ" || echo "$pid"
  done 2> /dev/null
}

# Ends processes; those that are still there after 10 s are killed.
stop() {
  local pids=("$@")
  [[ $# -gt 0 ]] || return 0
  kill "${pids[@]}" 2> /dev/null
  for ((i = 0; i < 200; i++)); do
    kill -0 "${pids[@]}" 2> /dev/null || return 0
    sleep 0.05
  done
  kill -KILL "${pids[@]}" 2> /dev/null
}

# Pids of this Slurm's jobs and of the daemons that watch them: they outlive slurmd.
jobs_of_this() {
  local environ process
  grep -lzxF "SLURM_CONF=$DIR/etc/slurm.conf" /proc/[0-9]*/environ 2> /dev/null | while read -r environ; do
    process=$(dirname "$environ")
    if grep -qz '^SLURM_JOB_ID=' "$environ" || grep -qx slurmstepd "$process/comm"; then basename "$process"; fi
  done 2> /dev/null
}

mapfile -t pids < <(own "$DIR"/run/slurmctld.pid "$DIR"/run/slurmd.*.pid)
# They would save their state for 3 s first; nobody needs it.
[[ ${#pids[@]} == 0 ]] || kill -KILL "${pids[@]}" 2> /dev/null
mapfile -t pids < <(jobs_of_this)
[[ ${#pids[@]} == 0 ]] || kill -KILL "${pids[@]}" 2> /dev/null
mapfile -t pids < <(own "$DIR"/run/slurmdbd.pid)
stop "${pids[@]}"
mapfile -t pids < <(own "$DIR"/run/mariadbd.pid "$DIR"/run/munged.pid)
stop "${pids[@]}"
: > "$DIR/run/stopped"
