# What both servers' scripts need; sourced by them, not run.
# shellcheck shell=bash

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# This machine lacks what a server needs: exit code 69 (EX_UNAVAILABLE of sysexits.h), at which tests are skipped.
unavailable() {
  echo "$(basename "$0"): $*" >&2
  exit 69
}

# The ports below 32768 are those that Linux never gives to outgoing connections (ip_local_port_range), so that
# nobody takes one between this look and the server's start by accident.
free_port() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM % 12000))
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  fail "found no free port between 20000 and 32000"
}

# within SECONDS COMMAND...: repeats COMMAND until it succeeds; fails when the seconds are over.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# runs FILE WORD: the process whose number is in FILE lives, and WORD is in its command line: after a crash the file
# stays behind, and the number may by then be that of another process.
runs() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [[ -n $pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2"
}

install_packages() {
  ((EUID == 0)) || unavailable "installing $* needs root"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$@"
}

# What `start` and `stop` get: an absolute path.
directory() {
  [[ -n ${1:-} ]] || fail "says no directory; usage: $(basename "$0") install | start DIR | stop DIR | status DIR"
  realpath -m -- "$1"
}

# A server keeps all of its files in one directory that carries this mark; nothing else is ever removed.
readonly MARK=throw-away-server

claim() {
  [[ ! -d $1 || -e $1/$MARK || -z $(ls -A "$1") ]] || fail "$1 holds something else; choose another directory"
  { mkdir -p "$1" && : >"$1/$MARK"; } || fail "cannot write to $1"
}

discard() {
  [[ ! -e $1/$MARK ]] || rm -rf "$1"
}
