#!/usr/bin/env bash
# A real Slurm cluster on one machine, for tests: loopback only, no systemd, all it writes in one folder.
#
#   slurm-up.sh start DIR    then `. DIR/env.sh`, and sinfo, sbatch, squeue and snakemake --profile slurm talk to it
#   slurm-up.sh stop DIR     ends its jobs and daemons
#
# Run as root, with the Debian packages slurmctld, slurmd, slurm-client and munge. It has two nodes in the partition
# `cpu` and two in `gpu`, with two GPUs each that are only pretended, and more cores than this machine. Ports are
# free ones and the munge socket lies in DIR, so several clusters stand beside each other. DIR has a short path: a
# socket's has at most 107 characters.
set -euo pipefail
export PATH=$PATH:/usr/sbin

NODES="c1 c2 g1 g2"
CPUS=8     # of each node
MEMORY=8000  # MiB of each node

die() { echo "slurm-up: $*" >&2; exit 1; }

wait_for() { # seconds what command...
  local left=$(($1 * 10)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $((left--)) -gt 0 ] || { tail -n 15 "$DIR"/log/* >&2; die "waited in vain for $what"; }
    sleep 0.1
  done
}

# The first of a row of free ports, below those that the kernel gives to clients.
free_ports() { # how many
  local base port
  while true; do
    base=$((10000 + RANDOM % 20000))
    for port in $(seq $base $((base + $1 - 1))); do
      ! (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || continue 2
    done
    echo $base && return
  done
}

configure() {
  local host port node gpus
  host=$(hostname -s)
  getent hosts "$host" >/dev/null || die "the host name $host does not resolve; add '127.0.0.1 $host' to /etc/hosts"
  install -d "$DIR" "$DIR"/{bin,etc,log,run,state,spool}
  install -d -m 700 "$DIR/munge"
  (umask 077 && head -c 128 /dev/urandom >"$DIR/munge/key")
  port=$(free_ports 5)
  cat >"$DIR/etc/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$DIR/run/munge.socket
# listen where the host name leads, not on every address
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
# no cgroups and no binding: plain processes
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
# cores, memory and GPUs are counted; there may be more of them than this machine has
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=10000,batch_sched_delay=0
# no accounting: squeue is asked for finished jobs, so it shows them this long
AccountingStorageType=accounting_storage/none
MinJobAge=7200
ReturnToService=2
InactiveLimit=0
KillWait=3
# memory is looked at every second, and a job that has more than it asked for is killed
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobs.txt
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
PartitionName=cpu Nodes=c[1-2] Default=YES MaxTime=60 DefaultTime=10 DefMemPerCPU=200
PartitionName=gpu Nodes=g[1-2] MaxTime=60 DefaultTime=10 DefMemPerCPU=200
CONF
  for node in $NODES; do
    gpus=
    if [[ $node = g* ]]; then
      gpus=" Gres=gpu:2"
      printf "NodeName=$node Name=gpu File=%s\n" /dev/null /dev/zero >>"$DIR/etc/gres.conf"
    fi
    port=$((port + 1))
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=$CPUS RealMemory=$MEMORY$gpus"
    install -d "$DIR/spool/$node"
  done >>"$DIR/etc/slurm.conf"
  printf 'CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n' >"$DIR/etc/cgroup.conf"
  # Snakemake's jobstep plugin takes SLURM_CONF out of the environment before it calls srun, and on a real cluster
  # the file lies where srun looks by itself; here an srun that knows it goes first on the PATH.
  printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$DIR/etc/slurm.conf" "$(command -v srun)" >"$DIR/bin/srun"
  chmod +x "$DIR/bin/srun"
  printf 'export SLURM_CONF=%s\nexport PATH=%s:$PATH\n' "$DIR/etc/slurm.conf" "$DIR/bin" >"$DIR/env.sh"
}

all_idle() { [ "$(sinfo -h -N -o %t | grep -c idle)" = "$(wc -w <<<"$NODES")" ]; }

start() {
  [ "$(id -u)" = 0 ] || die "run as root: the daemons start jobs as other users"
  for program in munged slurmctld slurmd sinfo; do
    command -v $program >/dev/null || die "no $program; apt-get install slurmctld slurmd slurm-client munge"
  done
  [ ! -e "$DIR/etc" ] || die "$DIR has a cluster already; stop it and remove the folder"
  configure
  munged --force --key-file="$DIR/munge/key" --seed-file="$DIR/munge/seed" --num-threads=4 \
    --socket="$DIR/run/munge.socket" --pid-file="$DIR/run/munged.pid" --log-file="$DIR/log/munged.log" 2>/dev/null
  wait_for 5 munged munge -S "$DIR/run/munge.socket" -n
  export SLURM_CONF=$DIR/etc/slurm.conf
  slurmctld
  wait_for 10 slurmctld scontrol ping
  local node
  for node in $NODES; do slurmd -N "$node"; done
  wait_for 15 "idle nodes" all_idle
}

# Print the processes of a daemon that DIR has files of; an old number may belong to another program by now.
pids() { # slurmd|slurmctld|munged
  local file pid
  for file in "$DIR"/run/"$1"*.pid; do
    pid=$(cat "$file" 2>/dev/null) || continue
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$1" ] && echo "$pid"
  done
  return 0
}

# Print the processes of jobs. Slurm knows those of a tree here, so one that lost its parent outlives its job; a real
# site has cgroups.
of_jobs() {
  local file
  for file in /proc/[0-9]*/environ; do
    { tr '\0' '\n' <"$file" | grep -cE "^(SLURM_CONF=$DIR/etc/slurm.conf|SLURM_JOB_ID=.*)$"; } 2>/dev/null |
      grep -qx 2 && basename "$(dirname "$file")"
  done
  return 0
}

stop() {
  [ -d "$DIR/run" ] || return 0
  export SLURM_CONF=$DIR/etc/slurm.conf
  local daemon pid left=50
  timeout 5 scancel -Q -u root || true
  while [ -n "$(timeout 5 squeue -h -t R,CG,PD 2>/dev/null)" ] && [ $((left--)) -gt 0 ]; do sleep 0.1; done
  for daemon in slurmd slurmctld munged; do
    for pid in $(pids $daemon); do kill "$pid" 2>/dev/null || true; done
    left=100
    while [ -n "$(pids $daemon)" ] && [ $((left--)) -gt 0 ]; do sleep 0.1; done
    for pid in $(pids $daemon); do kill -KILL "$pid" 2>/dev/null || true; done
  done
  for pid in $(of_jobs); do kill -KILL "$pid" 2>/dev/null || true; done
}

[ $# = 2 ] || die "usage: $0 start|stop DIR"
DIR=$(realpath -m "$2")
case $1 in
  start) start ;;
  stop) stop ;;
  *) die "usage: $0 start|stop DIR" ;;
esac
