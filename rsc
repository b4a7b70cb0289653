#!/bin/sh
# ./rsc COMMAND ...   sets itself up once (Python environment in .venv), then runs the command.
# ./rsc test [...]    the same with the test tools: ruff, mypy, pytest.
#
# What you may set:
#   RSC_PYTHON  the interpreter to use (3.11 or newer); default: the first found on PATH
#   RSC_TORCH   skip   no torch: data, review, keys, audit and planning still work
#               cpu    the CPU build        cuda   the build of the package index (several GB on Linux)
#               or any requirement, for example "torch==2.12.1"
#   RSC_VENV    where the environment lies; default: .venv beside this script
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=${RSC_VENV:-$here/.venv}
oldest_torch=2.11

say() { printf '%s\n' "rsc: $*" >&2; }
fail() { say "$1"; say "hint: $2"; exit "${3:-2}"; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for name in ${RSC_PYTHON:-python3 python3.13 python3.12 python3.11}; do
        path=$(command -v "$name" 2>/dev/null) || continue
        is_new_enough "$path" && { printf '%s' "$path"; return; }
    done
    fail "no Python 3.11 or newer found (looked for ${RSC_PYTHON:-python3, python3.13, python3.12, python3.11})" \
        "install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python), or set RSC_PYTHON"
}

# The version of a torch that this interpreter can import and that is new enough, else nothing.
importable_torch() {
    "$1" - "$oldest_torch" 2>/dev/null <<'PYTHON' || true
import sys
from importlib.metadata import version
have = version("torch")
number = lambda text: tuple(int(part) for part in text.split("+")[0].split(".")[:2])
if number(have) >= number(sys.argv[1]):
    print(have)
PYTHON
}

# Newest "+cpu" version that the user's own pip configuration offers, else nothing. Asking for a version
# that cannot exist makes pip list those that do.
offered_cpu_torch() {
    { "$venv/bin/pip" install --dry-run --no-deps "torch==0+cpu" 2>&1 || true; } |
        tr -d '(),' | tr ' ' '\n' | grep -E '^[0-9]+\.[0-9]+\.[0-9]+\+cpu$' | sort -t. -k1,1n -k2,2n -k3,3n |
        awk -F. -v oldest="$oldest_torch" '{ split(oldest, o, "."); if ($1 > o[1] || $2 >= o[2]) newest = $0 }
            END { print newest }'
}

pip_torch() {
    "$venv/bin/pip" install -q "$@" || fail "torch was not installed: pip install $*" \
        "set RSC_TORCH to a requirement or wheel that pip can reach here, or to skip for everything but training" 4
}

install_torch() {
    chosen=${RSC_TORCH:-}
    if [ -z "$chosen" ]; then
        if [ "$(uname -s)" = Darwin ] || { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
            chosen=cuda
        else
            chosen=cpu
        fi
    fi
    case $chosen in
    cuda) say "torch: the index's own build (a GPU or macOS is here; for the small one: rm -r .venv, RSC_TORCH=cpu)"
        pip_torch "torch>=$oldest_torch" ;;
    cpu) offered=$(offered_cpu_torch)
        if [ -n "$offered" ]; then
            say "torch: $offered, about 200 MB, offered by your pip configuration"
            pip_torch "torch==$offered"
        else
            say "torch: CPU build from PyTorch's index, about 200 MB"
            pip_torch "torch>=$oldest_torch" --index-url https://download.pytorch.org/whl/cpu
        fi ;;
    *) say "torch: $chosen (from RSC_TORCH)"
        pip_torch "$chosen" ;;
    esac
}

install_project() {
    constraints=$venv/torch-constraint.txt # whatever comes later may not replace the torch chosen above
    "$venv/bin/pip" list --format=freeze 2>/dev/null | grep -E '^torch==' >"$constraints" || true
    if [ "${RSC_TORCH:-}" = skip ]; then
        say "torch: none (RSC_TORCH=skip)"
        sed -n '/^dependencies = \[/,/^\]/s/^ *"\([^"]*\)".*/\1/p' "$here/pyproject.toml" | grep -v '^torch' >"$venv/light.txt"
        "$venv/bin/pip" install -q -r "$venv/light.txt"
        "$venv/bin/pip" install -q --no-deps -e "$here"
    else
        "$venv/bin/pip" install -q -c "$constraints" -e "$here$1"
    fi
}

set_up() {
    python=$(find_python)
    say "setting up $venv with $("$python" --version): about two minutes, once"
    found=
    [ -n "${RSC_TORCH:-}" ] || found=$(importable_torch "$python")
    "$python" -m venv ${found:+--system-site-packages} "$venv" ||
        fail "$python cannot make a virtual environment" "Debian, Ubuntu: apt install python3-venv; or set RSC_PYTHON"
    if [ -n "$found" ]; then say "torch: $found, the one $python already has"
    elif [ "${RSC_TORCH:-}" != skip ]; then install_torch; fi
    install_project "$1"
    printf '%s' "$stamp" >"$venv/rsc-stamp$1"
    printf '%s' "$stamp" >"$venv/rsc-stamp"
}

extras=
[ "${1:-}" != test ] || extras='[test]'
stamp="$here $(cksum <"$here/pyproject.toml")"
if [ "$(cat "$venv/rsc-stamp$extras" 2>/dev/null)" != "$stamp" ]; then
    trap 'say "set-up failed; the lines above say why"; say "hint: the same command goes on where it stopped"; exit 4' EXIT
    set_up "$extras"
    trap - EXIT
fi

if [ "${1:-}" = test ]; then
    shift
    exec "$venv/bin/python" "$here/tests/run.py" "$@"
fi
exec "$venv/bin/python" -m rsc "$@"
