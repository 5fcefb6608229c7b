#!/usr/bin/env bash
# Run a temporary PostgreSQL server for tests, on the loopback interface only, from Debian's package `postgresql`.
#
#   tests/integration/postgresql.sh install        # as root, once
#   tests/integration/postgresql.sh start DIR      # prints the SQLAlchemy URL; repeated: the same server and URL
#   tests/integration/postgresql.sh status DIR     # exit code 0 if the server is running
#   tests/integration/postgresql.sh stop DIR       # stops the server and removes DIR/postgresql with all its data
#
# After a crash, `start` recovers the same database on the same port.
#
# Pitfalls:
# - Debian's package creates a cluster of its own (`main`, port 5432) and may start it; this script ignores it.
# - The server refuses to run as root, so root switches to the package's user `postgres`, which must be able to enter
#   DIR. It cannot enter directories below /root or pytest's own temporary directories (mode 0700).
# - A socket path is limited to 107 characters, so the server uses TCP and no socket.
# - Every user of the machine can connect to the loopback interface, and a superuser of the database can run any
#   command as `postgres`. Each cluster therefore has a random password, which is part of the URL.
# - Debian installs `initdb` and `pg_ctl` outside of PATH, in a directory for each version.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
source "$(dirname "${BASH_SOURCE[0]}")/server.sh"

# Print the directory of initdb, pg_ctl and the other programs; fail if they are not installed.
programs() {
  local newest
  newest=$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)
  [[ -x $newest ]] || newest=$(command -v initdb) || return 1
  dirname "$(realpath "$newest")"
}

# Run a command as the user who owns the cluster.
as_owner() {
  if ((EUID == 0)); then
    (cd / && setpriv --reuid=postgres --regid=postgres --init-groups -- "$@")
  else
    (cd / && "$@")
  fi
}

# Create the cluster under a temporary name, so that an interrupted initialisation is not mistaken for a cluster.
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

# Choose another port only for a cluster that has never run; clients know the URL of one that has.
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
  # Retried for a while: the child processes and shared memory of a killed server prevent a new start for a moment, and
  # another process may have taken the port since it was found free.
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
