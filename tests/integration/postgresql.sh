#!/usr/bin/env bash
# A throw-away PostgreSQL for tests, on the loopback alone, from Debian's package `postgresql`.
#
#   tests/integration/postgresql.sh install        # as root, once
#   tests/integration/postgresql.sh start DIR      # prints the URL for SQLAlchemy; again: the same server, same URL
#   tests/integration/postgresql.sh status DIR     # exit code 0 if it runs
#   tests/integration/postgresql.sh stop DIR       # and removes DIR/postgresql with all that is stored in it
#
# After a crash, `start` recovers the same database on the same port.
#
# What one stumbles over:
# - Debian's package makes a cluster of its own (`main`, port 5432) and may start it; this script leaves it alone.
# - The server refuses to run as root, so root hands over to the package's user `postgres`, who must be able to enter
#   DIR: not so below /root, nor in pytest's own temporary directories (mode 0700).
# - A socket's path has at most 107 letters; there is none, TCP alone.
# - On the loopback every user of the machine can connect, and a superuser of the database runs any command as
#   `postgres`: hence a password, drawn for each cluster and part of the URL.
# - Debian keeps `initdb` and `pg_ctl` out of PATH, in a directory for each version.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/server.sh"

# Where initdb, pg_ctl and the others are; fails if nowhere.
programs() {
  local newest
  newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
  [[ -x $newest ]] || newest=$(command -v initdb) || return 1
  dirname "$(realpath "$newest")"
}

# Runs a command as the user to whom the cluster belongs.
as_owner() {
  if ((EUID == 0)); then
    (cd / && setpriv --reuid=postgres --regid=postgres --init-groups -- "$@")
  else
    (cd / && "$@")
  fi
}

# Under another name until it is whole, so that one that was interrupted is not taken for a cluster.
initialise() {
  local password
  claim "$home"
  rm -rf "$home/new"
  if ((EUID == 0)); then
    chown postgres: "$home"
    as_owner test -w "$home" || fail "the user postgres cannot enter $home; choose a directory below /tmp"
  fi
  chmod 700 "$home"
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  (umask 077 && echo "$password" >"$home/password" && free_port >"$home/port")
  ((EUID != 0)) || chown postgres: "$home/password" "$home/port"
  as_owner "$bin/initdb" --pgdata="$home/new" --username=sweeps --pwfile="$home/password" --auth=scram-sha-256 \
    --encoding=UTF8 --locale=C.UTF-8 >"$home/initdb.log" 2>&1 || fail "initdb failed: $(cat "$home/initdb.log")"
  mv "$home/new" "$home/data"
}

running() {
  as_owner "$bin/pg_ctl" --pgdata="$home/data" status >/dev/null 2>&1
}

# Another port only for a cluster that never ran: who knows the URL of one that did must find it again.
launch() {
  local options
  options="-c listen_addresses=127.0.0.1 -c port=$(cat "$home/port") -c unix_socket_directories=''"
  as_owner "$bin/pg_ctl" --pgdata="$home/data" --log="$home/log" --timeout=30 -o "$options" start >/dev/null 2>&1 && return
  [[ -e $home/url ]] || free_port >"$home/port"
  return 1
}

make_database() {
  local port password
  port=$(cat "$home/port") password=$(cat "$home/password")
  export PGPASSWORD=$password PGHOST=127.0.0.1 PGPORT=$port PGUSER=sweeps
  [[ $("$bin/psql" -XAtd postgres -c "select count(*) from pg_database where datname = 'sweeps'") == 1 ]] ||
    "$bin/createdb" sweeps
  (umask 077 && echo "postgresql+psycopg://sweeps:$password@127.0.0.1:$port/sweeps" >"$home/url")
}

start() {
  [[ -d $home/data ]] || initialise
  # Tried for a while: what a killed server leaves behind (children that have not noticed, and the memory they share
  # with it) keeps the next one from starting for a moment; and a port may have been taken since it was found free.
  running || within 30 launch || fail "PostgreSQL did not start: $(tail -n 20 "$home/log")"
  [[ -e $home/url ]] || make_database
  cat "$home/url"
}

stop() {
  if [[ -d $home/data ]] && running; then
    as_owner "$bin/pg_ctl" --pgdata="$home/data" --mode=fast --timeout=20 stop >/dev/null 2>&1 ||
      as_owner "$bin/pg_ctl" --pgdata="$home/data" --mode=immediate --timeout=20 stop >/dev/null
  fi
  discard "$home"
}

case ${1:-} in
install) programs >/dev/null || install_packages postgresql ;;
start | stop | status)
  home=$(directory "${2:-}")/postgresql
  bin=$(programs) || unavailable "PostgreSQL is not installed; as root: $0 install"
  case $1 in
  start) start ;;
  stop) stop ;;
  status) running ;;
  esac
  ;;
*) fail "usage: $0 install | start DIR | stop DIR | status DIR" ;;
esac
