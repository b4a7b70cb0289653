#!/bin/sh
# ./rsc COMMAND ...   sets itself up once (a Python environment in .venv), then runs the command.
# ./rsc test [...]    the same with the test tools: ruff, mypy, pytest.
#
# What you may set:
#   RSC_PYTHON  the interpreter to use (3.11 or newer); default: the first one found on PATH
#   RSC_VENV    where the environment lies; default: .venv beside this script
#   RSC_WHEELS  a folder of wheels: everything is installed from it, and no package index is asked
#   RSC_TORCH   skip   no torch: data, review, keys, audit and planning still work
#               cpu    a CPU build, or nothing
#               cuda   the build that pip takes by itself (3 GB on x86-64 Linux)
#               or any requirement or wheel, for example "torch==2.12.1"
#   RSC_TORCH_CPU_INDEX  in place of PyTorch's own index of CPU builds, for example a mirror of it
# Unset, RSC_TORCH means: the torch that the interpreter has; else a CPU build that your pip configuration offers;
# else one from PyTorch's index; else the build that pip takes by itself, which comes first where a GPU is found.
# pip's configuration (indexes, wheel folders, constraints, proxy) holds throughout. src/rsc/setup has the steps.
set -eu

self=$(readlink -f -- "$0" 2>/dev/null || printf '%s' "$0") # a link in ~/bin leads here as well
here=$(CDPATH='' cd -- "$(dirname -- "$self")" && pwd)
venv=${RSC_VENV:-$here/.venv}

fail() { printf 'rsc: %s\n' "$1" "hint: $2" >&2; exit 2; }

is_new_enough() { "$1" -c 'import sys, venv, zlib; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${RSC_PYTHON:-}" ]; then
        is_new_enough "$RSC_PYTHON" || fail "RSC_PYTHON=$RSC_PYTHON is not a working Python 3.11 or newer" \
            "set it to the path of one, or leave it unset to search PATH"
        printf '%s' "$RSC_PYTHON"
        return
    fi
    newest_found=
    for name in python3 python3.13 python3.12 python3.11 python3.14; do
        is_new_enough "$name" || continue
        # Debian's Python comes without ensurepip: any other that can fill an environment by itself goes first
        "$name" -c 'import ensurepip, venv' 2>/dev/null && { printf '%s' "$name"; return; }
        newest_found=${newest_found:-$name}
    done
    [ -n "$newest_found" ] || fail "no Python 3.11 or newer found (looked for python3 and python3.11 to python3.14)" \
        "install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python), or set RSC_PYTHON"
    printf '%s' "$newest_found"
}

extras=
[ "${1:-}" != test ] || extras='[test]'
stamp="$here $(cksum <"$here/pyproject.toml")"
if [ "$(cat "$venv/rsc-stamp$extras" 2>/dev/null)" != "$stamp" ]; then
    python=$(find_python)
    "$python" -c 'import sys; sys.path.insert(0, sys.argv[1]); from rsc.setup.main import main; main(sys.argv[2:])' \
        "$here/src" "$here" "$venv" "$extras" "$stamp"
fi

if [ "${1:-}" = test ]; then
    shift
    exec "$venv/bin/python" "$here/tests/run.py" "$@"
fi
exec "$venv/bin/python" -m rsc "$@"
