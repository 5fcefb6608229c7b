#!/bin/sh
# The environment of the Makefile.
#   tools/environment.sh --newest            print the newest supported Python that is found
#   tools/environment.sh DIRECTORY [PYTHON]  make DIRECTORY, or keep it if it works
#
# Without PYTHON, a directory that works is kept whatever its version, and a new one gets the newest Python. With
# PYTHON, a directory of another version is made anew. DIRECTORY/made is younger than what was installed only then.
set -eu
SUPPORTED='3.13 3.12 3.11'

# Print the version of an interpreter, such as 3.12, if it runs and has the modules that we need. Builds without the
# global lock are left out, because most packages have no wheels for them.
version() {
    "$1" -c 'import ctypes, ensurepip, sqlite3, ssl, sys, sysconfig, venv
sys.exit(1) if sysconfig.get_config_var("Py_GIL_DISABLED") else print("%d.%d" % sys.version_info[:2])' 2>/dev/null || :
}

is_supported() {
    case " $SUPPORTED " in *" $1 "*) [ -n "$1" ] ;; *) false ;; esac
}

# Each candidate is run, because a command on the search path may be one of pyenv's, which fail for a version that is
# not active; pyenv's own directories come last.
newest() {
    for wanted in $SUPPORTED; do
        for candidate in "python$wanted" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$wanted".*/bin/python; do
            if [ "$(version "$candidate")" = "$wanted" ]; then
                command -v "$candidate"
                return
            fi
        done
    done
    echo "no Python 3.11, 3.12 or 3.13 with venv and sqlite3 is found; name one: make PYTHON=/path/to/python" >&2
    return 1
}

if [ "$1" = --newest ]; then
    newest
    exit
fi
directory=$1 python=${2:-} current=
if [ -e "$directory/bin/python" ]; then
    current=$(version "$directory/bin/python")
fi
if [ -n "$python" ]; then
    wanted=$(version "$python")
    if ! is_supported "$wanted"; then
        echo "$python is not a Python 3.11, 3.12 or 3.13 that runs here; choose one: make PYTHON=python3.12" >&2
        exit 1
    fi
elif is_supported "$current"; then
    wanted=$current
else
    python=$(newest)
    wanted=$(version "$python")
fi
if [ "$current" = "$wanted" ]; then
    [ -e "$directory/made" ] || touch -r "$directory/pyvenv.cfg" "$directory/made" # older than what was installed
    exit
fi
if [ -e "$directory/pyvenv.cfg" ]; then
    echo "$directory was made with ${current:+Python }${current:-a Python that no longer runs}: making it anew with Python $wanted"
else
    echo "setting up $directory with Python $wanted (once)"
fi
"$python" -m venv --clear "$directory"
touch "$directory/made"
