#!/usr/bin/env bash
# A Slurm cluster of one node, to try the sbatch files of this folder without a cluster.
#
#   deploy/slurm/single-node.sh        install Slurm, configure it, start it, wait until the node is idle
#   deploy/slurm/single-node.sh stop   cancel all jobs and end the daemons; configuration and logs stay
#
# For a machine that you can throw away (a container, a virtual machine) with Debian's packages, as root; systemd is
# not needed. Not for a machine of a real cluster: it refuses where a slurm.conf lies that it did not write.
# The node has this machine's processors and memory, and no GPUs.
set -euo pipefail

readonly CONFIG=/etc/slurm/slurm.conf
readonly CGROUP_CONFIG=/etc/slurm/cgroup.conf
readonly MARK="# Written by single-node.sh, which may replace it."
readonly RUN=/run/slurm-single-node
readonly STATE=/var/lib/slurm-single-node
readonly LOGS=/var/log/slurm
readonly WAIT_S=60

fail() {
    echo "single-node.sh: $*" >&2
    exit 1
}

# FILE: whether it is there and was not written by this script.
foreign() {
    [[ -e "$1" && "$(head -n 1 "$1")" != "$MARK" ]]
}

# PID_FILE: whether the process it names lives.
alive() {
    [[ -s "$1" ]] && kill -0 "$(<"$1")" 2>/dev/null
}

# COMMAND...: wait until it succeeds.
wait_until() {
    local deadline=$((SECONDS + WAIT_S))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.5
    done
}

install_packages() {
    local program missing=0
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || missing=1
    done
    ((missing)) || return 0
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client
}

configure() {
    local node processors memory version
    node="$(hostname -s)"
    processors="$(nproc)"
    memory="$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo)" # MiB
    mkdir -p /etc/slurm "$RUN" "$STATE/slurmctld" "$STATE/slurmd" "$LOGS"
    chown slurm: "$STATE/slurmctld" "$LOGS"

    cat >"$CONFIG" <<END
$MARK
ClusterName=single
SlurmctldHost=$node(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
# A requeued job waits until its first start's credential has expired, 120 s by default: long for a trial.
AuthInfo=cred_expire=15

# Nothing that needs cgroups: a container can seldom make any.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none

SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
# A container may see more hardware than it was given: believe the line below.
SlurmdParameters=config_overrides
# A node that was down comes back by itself.
ReturnToService=2
# Slurm's defaults, for the record: from SIGTERM to SIGKILL, and that jobs may be requeued.
KillWait=30
JobRequeue=1

StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/slurmd
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd.pid
SlurmctldLogFile=$LOGS/slurmctld.log
SlurmdLogFile=$LOGS/slurmd.log

NodeName=$node NodeAddr=127.0.0.1 CPUs=$processors RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END

    # Newer versions look for cgroups even where no plugin wants them; older ones do not know this value.
    version="$(slurmd -V | awk '{print $2}')"
    if [[ "$(printf '%s\n' 23.11 "$version" | sort -V | head -n 1)" == 23.11 ]]; then
        printf '%s\nCgroupPlugin=disabled\n' "$MARK" >"$CGROUP_CONFIG"
    fi
}

munge_answers() {
    munge -n | unmunge
}

start_munge() {
    if munge_answers >/dev/null 2>&1; then
        return # systemd or somebody else runs it
    fi
    if [[ ! -s /etc/munge/munge.key ]]; then
        (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
        chown munge: /etc/munge/munge.key
    fi
    install -d -o munge -g munge -m 0755 /run/munge # where there is systemd, it makes this folder
    setpriv --reuid=munge --regid=munge --clear-groups munged
    wait_until munge_answers || fail "munged does not answer; see /var/log/munge/munged.log"
    cp /run/munge/munged.pid "$RUN/munged.pid"
}

node_is_idle() {
    [[ "$(sinfo --noheader --format=%T --nodes="$(hostname -s)")" == idle ]]
}

start() {
    install_packages
    if alive "$RUN/slurmctld.pid" && alive "$RUN/slurmd.pid"; then
        echo "runs already"
    else
        configure
        start_munge
        alive "$RUN/slurmctld.pid" || slurmctld
        alive "$RUN/slurmd.pid" || slurmd
        wait_until node_is_idle || fail "the node is not idle after $WAIT_S s; the daemons' logs are in $LOGS"
    fi
    sinfo
}

# NAME: end the daemon that wrote NAME.pid, if it lives.
end() {
    local pid_file="$RUN/$1.pid" pid
    if alive "$pid_file"; then
        pid="$(<"$pid_file")"
        kill "$pid"
        gone() { ! kill -0 "$pid"; }
        wait_until gone || fail "$1 (process $pid) does not end; its log is in $LOGS"
    fi
    rm -f "$pid_file"
}

no_jobs() {
    [[ -z "$(squeue --noheader)" ]]
}

stop() {
    # Jobs first: their processes outlive slurmd.
    if alive "$RUN/slurmctld.pid"; then
        local job
        for job in $(squeue --noheader --format=%A | sort -u); do
            scancel "$job" || true # it may have ended in the meantime
        done
        wait_until no_jobs || fail "jobs do not end; squeue shows them"
    fi
    end slurmd
    end slurmctld
    end munged # where this script started it
    echo "stopped"
}

[[ "$(id -u)" == 0 ]] || fail "must be run as root"
foreign "$CONFIG" && fail "$CONFIG is not from this script: this machine belongs to a cluster, or remove that file"
case "${1-start}" in
    start) start ;;
    stop) stop ;;
    *) fail "unknown argument '$1'; give none, start or stop" ;;
esac
