#!/usr/bin/env bash
# Hosts of a test cluster: network namespaces n1..nN (10.77.0.1..) on a bridge 10.77.0.254. Root only.
#   netns_hosts.sh up|down N
set -euo pipefail
readonly ACTION=$1 N=$2

up() {
  local i j
  ip link add hlrpbr type bridge
  ip addr add 10.77.0.254/24 dev hlrpbr
  ip link set hlrpbr up
  for ((i = 1; i <= N; i++)); do
    ip netns add "n$i"
    ip link add "hv$i" type veth peer name ib0 netns "n$i"
    ip link set "hv$i" master hlrpbr up
    ip -n "n$i" addr add "10.77.0.$i/24" dev ib0
    ip -n "n$i" link set ib0 up
    ip -n "n$i" link set lo up
    mkdir -p "/etc/netns/n$i"
    {
      echo "127.0.0.1 localhost"
      for ((j = 1; j <= N; j++)); do echo "10.77.0.$j n$j"; done
      echo "10.77.0.254 $(hostname -s)"
    } > "/etc/netns/n$i/hosts"
  done
}

# What is missing already is no error: it may have been taken down half.
down() {
  local i
  for ((i = 1; i <= N; i++)); do
    ip netns del "n$i" 2> /dev/null || true
    rm -f "/etc/netns/n$i/hosts"
    rmdir "/etc/netns/n$i" 2> /dev/null || true
  done
  ip link del hlrpbr 2> /dev/null || true
}

"$ACTION"
