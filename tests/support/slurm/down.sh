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
    ! tr '\0' '\n' < "/proc/$pid/cmdline" 2> /dev/null | grep -qF "$DIR/" || echo "$pid"
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
  local process
  for process in /proc/[0-9]*; do
    if grep -qzxF "SLURM_CONF=$DIR/etc/slurm.conf" "$process/environ" 2> /dev/null; then
      if grep -qz '^SLURM_JOB_ID=' "$process/environ" || [[ $(< "$process/comm") == slurmstepd ]]; then
        echo "${process#/proc/}"
      fi
    fi
  done 2> /dev/null
}

mapfile -t pids < <(own "$DIR"/run/slurmctld.pid "$DIR"/run/slurmd.*.pid)
# Everything has been saved that this Slurm will ever need.
[[ ${#pids[@]} == 0 ]] || kill -KILL "${pids[@]}" 2> /dev/null
mapfile -t pids < <(jobs_of_this)
[[ ${#pids[@]} == 0 ]] || kill -KILL "${pids[@]}" 2> /dev/null
mapfile -t pids < <(own "$DIR"/run/slurmdbd.pid)
stop "${pids[@]}"
mapfile -t pids < <(own "$DIR"/run/mariadbd.pid "$DIR"/run/munged.pid)
stop "${pids[@]}"
