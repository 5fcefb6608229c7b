# Functions of both server scripts, which source this file.
# shellcheck shell=bash

fail() {
  echo "$(basename "$0"): $*" >&2
  exit 1
}

# Exit because this machine lacks something that a server needs: tests are skipped at exit code 69 (EX_UNAVAILABLE of
# sysexits.h).
unavailable() {
  echo "$(basename "$0"): $*" >&2
  exit 69
}

# Print a free port below 32768. Linux does not use these ports for outgoing connections (ip_local_port_range), so no
# connection takes the port by accident before the server starts.
free_port() {
  local port
  for _ in $(seq 50); do
    port=$((20000 + RANDOM % 12000))
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  fail "found no free port between 20000 and 32000"
}

# within SECONDS COMMAND...: repeat COMMAND until it succeeds; fail after SECONDS.
within() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# runs FILE WORD: succeed if the process whose id is in FILE is alive and has WORD in its command line. FILE survives a
# crash, and by then its id may belong to another process.
runs() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [[ -n $pid ]] && tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2"
}

install_packages() {
  ((EUID == 0)) || unavailable "installing $* needs root"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "$@"
}

# Print the absolute path of the directory argument of start, stop and status.
directory() {
  [[ -n ${1:-} ]] || fail "a directory is missing; usage: $(basename "$0") install | start DIR | stop DIR | status DIR"
  realpath -m -- "$1"
}

# A server keeps all of its files in one directory with this marker file; nothing else is ever removed.
readonly MARK=throw-away-server

claim() {
  [[ ! -d $1 || -e $1/$MARK || -z $(ls -A "$1") ]] || fail "$1 contains other files; choose another directory"
  { mkdir -p "$1" && : >"$1/$MARK"; } || fail "cannot write to $1"
}

discard() {
  [[ ! -e $1/$MARK ]] || rm -rf "$1"
}
