#!/usr/bin/env bash
# Starts a private Slurm on loopback, all of it in a folder, and prints the environment that its clients need.
#   up.sh DIR [--nodes N] [--cluster NAME] [--accounting] [--dbd DIR_OF_OTHER] [--plugstack LINE] [--preempt MODE:SECONDS[:PARAMETER]] [--by-qos] [--kill-wait SECONDS] [--netns] [--owner PID]
# --accounting  also slurmdbd and MariaDB, for sacct
# --dbd         a second cluster with the accounting of another, for -M
# --plugstack   a line of plugstack.conf: a SPANK plugin
# --preempt     jobs on lrz-cpu make way for those of the other partitions: MODE is REQUEUE or CANCEL, SECONDS the time after the warning,
#               PARAMETER one more of SchedulerParameters
# --by-qos      instead, jobs with the quality of service "cpu" make way for those with "mcml" on any partition; with --accounting
# --kill-wait   seconds between TERM and KILL; 5 without it
# --netns       each node is a network namespace n1..nN with an address and a host name of its own (netns_hosts.sh up N first)
# --owner       stops when that process has gone
# Needs Debian's slurm-wlm, slurm-wlm-basic-plugins and munge (--accounting: also slurmdbd and mariadb-server), and root for the pretended
# GPUs. Changes nothing outside DIR and uses no cgroups, but slurmd 22.05 wants something mounted on /sys/fs/cgroup. down.sh DIR stops it.
set -euo pipefail
HERE=$(dirname "$(realpath "$0")")
DIR=$(realpath -m "$1")
shift
trap 'echo "up.sh failed in line $LINENO" >&2; tail -n 4 "$DIR"/log/*.log >&2; "$HERE/down.sh" "$DIR"' ERR
NODES=1 CLUSTER=lrz ACCOUNTING="" NETNS="" DBD_OF="" PLUGSTACK="" PREEMPT="" BY_QOS="" KILL_WAIT=5 OWNER=""
while [[ $# -gt 0 ]]; do
  case $1 in
    --nodes) NODES=$2; shift 2 ;;
    --cluster) CLUSTER=$2; shift 2 ;;
    --accounting) ACCOUNTING=yes; shift ;;
    --dbd) DBD_OF=$(realpath "$2"); ACCOUNTING=yes; shift 2 ;;
    --plugstack) PLUGSTACK=$2; shift 2 ;;
    --preempt) PREEMPT=$2; shift 2 ;;
    --by-qos) BY_QOS=yes; shift ;;
    --kill-wait) KILL_WAIT=$2; shift 2 ;;
    --netns) NETNS=yes; shift ;;
    --owner) OWNER=$2; shift 2 ;;
    *) echo "up.sh: unknown option $1" >&2; exit 2 ;;
  esac
done
USER_NAME=$(id -un)
mkdir -p "$DIR"/{etc,state,log,run,dev}
chmod 755 "$DIR"
rm -f "$DIR/run/stopped"
for ((i = 1; i <= NODES; i++)); do mkdir -p "$DIR/spool/n$i"; done

free_ports() {
  python3 - "$1" << 'PY'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in sockets])
PY
}

wait_for() {
  local what=$1 end=$((SECONDS + 60))
  shift
  until "$@" > /dev/null 2>&1; do
    ((SECONDS < end)) || { echo "up.sh: no $what after 60 s" >&2; return 1; }
    sleep 0.05
  done
}

all_idle() { [[ $(sinfo -h -N -p lrz-cpu -o %T | grep -cx idle) == "$NODES" ]]; }

stop_with_owner() {
  while kill -0 "$OWNER" 2> /dev/null && [[ -d $DIR/run && ! -e $DIR/run/stopped ]]; do sleep 1; done
  [[ ! -d $DIR/run || -e $DIR/run/stopped ]] || "$HERE/down.sh" "$DIR"
}
if [[ -n $OWNER ]]; then
  export HERE DIR OWNER
  export -f stop_with_owner
  setsid bash -c stop_with_owner < /dev/null > /dev/null 2>&1 &
fi

read -r -a PORTS <<< "$(free_ports $((NODES + 3)))"
HOST=$(hostname -s) CONTROLLER=127.0.0.1
[[ -z $NETNS ]] || CONTROLLER=10.77.0.254

# A private munge with its own key; without --force it does not run as root.
if [[ -n $DBD_OF ]]; then
  MUNGE=$DBD_OF/run/munge.sock
else
  MUNGE=$DIR/run/munge.sock
  [[ -f $DIR/etc/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom > "$DIR/etc/munge.key")
  munged --force --socket="$MUNGE" --key-file="$DIR/etc/munge.key" --pid-file="$DIR/run/munged.pid" \
    --seed-file="$DIR/run/munge.seed" --log-file="$DIR/log/munged.log" --num-threads=2
fi

# slurmdbd reads slurmdbd.conf beside SLURM_CONF; libmariadb finds the server through MYSQL_UNIX_PORT.
DBD_PORT=${PORTS[2]} SOCKET=$DIR/run/mysql.sock
if [[ -n $ACCOUNTING && -z $DBD_OF ]]; then
  mariadb-install-db --no-defaults --user="$USER_NAME" --datadir="$DIR/mysql" --auth-root-authentication-method=normal \
    --skip-test-db > "$DIR/log/mysql-install.log" 2>&1
  mariadbd --no-defaults --user="$USER_NAME" --datadir="$DIR/mysql" --socket="$SOCKET" --skip-networking \
    --pid-file="$DIR/run/mariadbd.pid" --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=2 --log-error="$DIR/log/mariadbd.log" > /dev/null 2>&1 &
  wait_for mariadbd mariadb --no-defaults --socket="$SOCKET" -u root -e 'select 1'
  mariadb --no-defaults --socket="$SOCKET" -u root -e 'create database if not exists slurm_acct_db'
  (umask 077 && cat > "$DIR/etc/slurmdbd.conf" << CONF
AuthType=auth/munge
AuthInfo=socket=$MUNGE
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBD_PORT
SlurmUser=$USER_NAME
DebugLevel=info
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct_db
CommitDelay=1
CONF
  )
  echo "DBD_PORT=$DBD_PORT" > "$DIR/etc/dbd.env"
fi
# shellcheck disable=SC1091 # written above, by the other cluster
[[ -z $DBD_OF ]] || source "$DBD_OF/etc/dbd.env"

# AccountingStoragePass is munge's socket: without it every sacct fails after 2 s.
ACCOUNTING_LINES=$'AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none'
[[ -z $ACCOUNTING ]] || ACCOUNTING_LINES="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD_PORT
AccountingStoragePass=$MUNGE
AccountingStoreFlags=job_comment
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5"

# Pretended GPUs: File= must name device nodes, else jobs get no CUDA_VISIBLE_DEVICES.
ALL="n[1-$NODES]"
[[ $NODES != 1 ]] || ALL=n1
GRES=""
if [[ $(id -u) == 0 ]]; then
  for ((i = 0; i < 8; i++)); do [[ -e $DIR/dev/nvidia$i ]] || mknod "$DIR/dev/nvidia$i" c 1 3; done
  echo "NodeName=$ALL Name=gpu File=$DIR/dev/nvidia[0-7] Flags=nvidia_gpu_env" > "$DIR/etc/gres.conf"
  GRES="Gres=gpu:8"
fi
NODE_LINES="" PARTITION_LINES=""
for ((i = 1; i <= NODES; i++)); do
  host=$HOST address=127.0.0.1
  [[ -z $NETNS ]] || host=n$i address=10.77.0.$i
  NODE_LINES+="NodeName=n$i NodeHostname=$host NodeAddr=$address Port=${PORTS[i + 2]} CPUs=96 RealMemory=768000 $GRES State=UNKNOWN"$'\n'
done
PREEMPT_LINES="" YIELDS="" TAKES="" parameter=""
if [[ -n $PREEMPT ]]; then
  IFS=: read -r mode seconds parameter <<< "$PREEMPT"
  PREEMPT_LINES=$'PreemptType=preempt/partition_prio\n'"PreemptMode=$mode"
  YIELDS="PriorityTier=1 GraceTime=$seconds" TAKES="PriorityTier=2 PreemptMode=OFF"
  [[ -z $BY_QOS ]] || PREEMPT_LINES=$'PreemptType=preempt/qos\nAccountingStorageEnforce=qos\n'"PreemptMode=$mode" YIELDS="" TAKES=""
fi
PARTITION_LINES+="PartitionName=lrz-cpu Nodes=$ALL MaxTime=2-00:00:00 State=UP $YIELDS"$'\n'
for name in lrz-hgx-h100-94x4 lrz-hgx-a100-80x4 lrz-dgx-a100-80x8 mcml-hgx-h100-94x4 mcml-hgx-a100-80x4 mcml-dgx-a100-40x8; do
  PARTITION_LINES+="PartitionName=$name Nodes=$ALL MaxTime=2-00:00:00 State=UP $TAKES"$'\n'
done

printf '%s\n' "$PLUGSTACK" > "$DIR/etc/plugstack.conf"
# cred_expire: a requeued job waits this long (120 s without it; 5 is the least that is accepted).
# config_overrides: nodes have the cores and the memory that stand here.
cat > "$DIR/etc/slurm.conf" << CONF
ClusterName=$CLUSTER
SlurmctldHost=$HOST($CONTROLLER)
SlurmctldPort=${PORTS[0]}
SlurmdPort=${PORTS[1]}
SlurmUser=$USER_NAME
SlurmdUser=$USER_NAME
AuthType=auth/munge
AuthInfo=socket=$MUNGE,cred_expire=5
CredType=cred/munge
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0${parameter:+,$parameter}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
GresTypes=gpu
PlugStackConfig=$DIR/etc/plugstack.conf
KillWait=$KILL_WAIT
MinJobAge=3600
InactiveLimit=0
OverTimeLimit=0
JobRequeue=1
MaxArraySize=10001
PropagateResourceLimits=NONE
$ACCOUNTING_LINES
$PREEMPT_LINES
$NODE_LINES
PartitionName=lrz-v100x2 Nodes=$ALL Default=YES MaxTime=2-00:00:00 State=UP
$PARTITION_LINES
CONF

export SLURM_CONF=$DIR/etc/slurm.conf
if [[ -n $ACCOUNTING ]]; then
  if [[ -z $DBD_OF ]]; then
    MYSQL_UNIX_PORT=$SOCKET slurmdbd
    wait_for slurmdbd sacctmgr -n list cluster
  fi
  # What the other cluster has added already is no error.
  sacctmgr -i add cluster "$CLUSTER" > /dev/null 2>&1 || true
  sacctmgr -i add account hlrp cluster="$CLUSTER" > /dev/null 2>&1 || true
  sacctmgr -i add qos mcml,cpu > /dev/null 2>&1 || true
  sacctmgr -i add user "$USER_NAME" account=hlrp cluster="$CLUSTER" > /dev/null 2>&1 || true
  sacctmgr -i modify user "$USER_NAME" set qos=normal,mcml,cpu > /dev/null 2>&1 || true
  if [[ -n $BY_QOS ]]; then
    sacctmgr -i modify qos cpu set preemptmode="$mode" gracetime="$seconds" > /dev/null
    sacctmgr -i modify qos mcml set preempt=cpu > /dev/null
  fi
fi
# -f: down.sh knows its own by the path.
slurmctld -c -f "$SLURM_CONF"
for ((i = 1; i <= NODES; i++)); do
  if [[ -z $NETNS ]]; then
    slurmd -f "$SLURM_CONF" -N "n$i"
  else # `ip netns exec` mounts a /sys of its own; slurmd wants to see a cgroup tree there, though it uses none
    ip netns exec "n$i" unshare --uts sh -c "hostname n$i && mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir /sys/fs/cgroup/systemd &&
      mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd && exec slurmd -f '$SLURM_CONF' -N n$i"
  fi
done
wait_for "idle nodes" all_idle
echo "export SLURM_CONF=$SLURM_CONF"
