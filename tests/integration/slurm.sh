#!/usr/bin/env bash
# Run a SLURM cluster of one node with two processors for tests, on this machine, from Debian's packages; needs root.
#
#   tests/integration/slurm.sh install             # once
#   eval "$(tests/integration/slurm.sh start DIR)" # sets SLURM_CONF, by which sbatch, squeue and submitit find it
#   tests/integration/slurm.sh status DIR          # exit code 0 if a job could start
#   tests/integration/slurm.sh stop DIR            # ends jobs and daemons, and removes DIR/slurm
#
# Partitions: `main`, and `urgent`, whose jobs preempt those in `main`; preempted jobs return to the queue.
# All files are in DIR/slurm: configuration, munge's key, sockets, logs and state. After a crash, `start` restores the
# same cluster with its queue.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/server.sh"

# Pitfalls:
# - munge: the packages start a munged daemon with a key in /etc. This script's munged has its own socket, which
#   clients find through AuthInfo. The socket's path is limited to 107 characters, so DIR must be short. Below a
#   directory that other users may write to, such as /tmp, munged needs --force.
# - cred_expire also determines how long a requeued job waits before it may start; the default is 120 seconds.
# - SLURM cannot write cgroups in containers and many virtual machines: hence proctrack/linuxproc, task/none and no
#   accounting. cgroup.conf is not needed then.
# - Without accounting `sacct` fails: submitit's `job.state` stays UNKNOWN, and its `job.wait()` never returns for a
#   job without a result. `scontrol show job` works until MinJobAge seconds after a job's end.
# - ReturnToService=2: a lost node (slurmd killed) returns by itself.
# - The controller saves its state every few seconds. If it is killed just after it started a job, the restarted
#   controller does not know that job and starts it again, so that for a moment the job runs twice.
# - config_overrides: SLURM accepts the configured processors and memory, whatever the machine has.
# - KillWait: seconds from SIGTERM to SIGKILL, within which a worker must have saved; the default is 30.
# - preempt_send_user_signal: a preempted job gets the signal of `sbatch --signal`, which submitit sets to USR2, at the
#   start of GraceTime, and no SIGTERM. In 22.05 it belongs to SlurmctldParameters; an unknown key is a fatal error.
# - Errors of MPI plugins in slurmd.log (no PMIx) can be ignored.
configuration() {
  local node memory
  node=$(hostname -s)
  memory=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
  cat <<CONF
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket,cred_expire=5
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=5,sched_min_interval=100000,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=10
MinJobAge=3600
SlurmdTimeout=10
SlurmctldTimeout=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 RealMemory=$memory State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=60 PriorityTier=1 GraceTime=10
PartitionName=urgent Nodes=ALL MaxTime=60 PriorityTier=2 PreemptMode=OFF
CONF
}

installed() {
  local program
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || return 1
  done
}

export_line() {
  printf 'export SLURM_CONF=%q\n' "$home/slurm.conf"
}

launch_munged() {
  runs "$home/munged.pid" "$home" && return
  [[ -s $home/munge.key ]] || (umask 077 && head -c 128 /dev/urandom >"$home/munge.key")
  rm -f "$home/munge.socket" "$home/munge.socket.lock" "$home/munged.pid"
  munged --force --key-file="$home/munge.key" --socket="$home/munge.socket" --pid-file="$home/munged.pid" \
    --log-file="$home/munged.log" --seed-file="$home/munged.seed"
}

launch_slurm() {
  runs "$home/slurmctld.pid" "$home" || slurmctld -f "$home/slurm.conf"
  runs "$home/slurmd.pid" "$home" || slurmd -f "$home/slurm.conf"
}

ready() {
  [[ -s $home/slurm.conf ]] && timeout 5 sinfo --noheader --format=%T 2>/dev/null | grep -qxE 'idle|mixed|allocated'
}

launch() {
  [[ -s $home/slurm.conf ]] || configuration >"$home/slurm.conf"
  { launch_munged && launch_slurm; } >"$home/launch.log" 2>&1 && within 20 ready && : >"$home/started" && return
  # Another process may have taken a port since it was found free. A cluster that was ready keeps its ports, because
  # clients know them.
  [[ -e $home/started ]] || { end_all && rm -f "$home/slurm.conf"; }
  return 1
}

start() {
  ((EUID == 0)) || unavailable "slurmd starts jobs as the users who submit them, which needs root"
  installed || unavailable "SLURM is not installed; as root: $0 install"
  claim "$home"
  mkdir -p "$home/state" "$home/spool"
  within 45 launch || fail "SLURM did not start: $(tail -n 5 "$home"/*.log)"
  export_line
}

# Print the ids of the processes of jobs and of the slurmstepd above each. They outlive slurmd, and have this cluster's
# SLURM_CONF in their environment.
of_jobs() {
  local environment process
  grep -lazFx "SLURM_CONF=$home/slurm.conf" /proc/[0-9]*/environ 2>/dev/null | while read -r environment; do
    process=${environment%/environ}
    if grep -qaz '^SLURM_JOB_ID=' "$environment" 2>/dev/null || grep -qx slurmstepd "$process/comm" 2>/dev/null; then
      echo "${process#/proc/}"
    fi
  done
}

none_of_jobs() {
  [[ -z $(of_jobs) ]]
}

end_daemon() {
  runs "$home/$1.pid" "$home" || return 0
  local pid
  pid=$(cat "$home/$1.pid")
  kill "$pid" 2>/dev/null || return 0
  within 10 ended "$pid" || kill -KILL "$pid" 2>/dev/null || true
}

ended() {
  ! kill -0 "$1"
}

end_jobs() {
  local pids
  mapfile -t pids < <(of_jobs)
  ((${#pids[@]})) || return 0
  kill "${pids[@]}" 2>/dev/null || true
  within 5 none_of_jobs && return
  mapfile -t pids < <(of_jobs)
  kill -KILL "${pids[@]}" 2>/dev/null || true
}

# End the controller first, because it would start the next job. munged is killed at once: it stops slowly and stores
# nothing.
end_all() {
  end_daemon slurmctld
  end_daemon slurmd
  end_jobs
  ! runs "$home/munged.pid" "$home" || kill -KILL "$(cat "$home/munged.pid")"
}

stop() {
  [[ -e $home/$MARK ]] || return 0
  end_all
  discard "$home"
}

case ${1:-} in
install) installed || install_packages slurm-wlm munge ;;
start | stop | status)
  home=$(directory "${2:-}")/slurm
  export SLURM_CONF=$home/slurm.conf
  case $1 in
  start) start ;;
  stop) stop ;;
  status) ready ;;
  esac
  ;;
*) fail "usage: $0 install | start DIR | stop DIR | status DIR" ;;
esac
