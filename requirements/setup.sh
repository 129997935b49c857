#!/usr/bin/env bash
# Makes .venv from the lock, and installs the few Debian packages that pip can't bring.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }

# A sign of life: apt, the downloads and the compilation are silent for longer than a person is patient.
set -m # so that it can be ended with its sleep
(while sleep 8 && kill -0 $$ 2>/dev/null; do say "… goes on, ${SECONDS} s"; done) &
alive=$!
set +m
trap 'kill -- -$alive 2>/dev/null || true' EXIT

missing=()
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v systemd-analyze >/dev/null || missing+=(systemd)
if ((${#missing[@]})); then
	sudo=()
	((EUID == 0)) || sudo=(sudo)
	if ! command -v apt-get >/dev/null; then
		say "error: ${missing[*]} missing, and there is no apt-get. Install them with this system's package manager."
		exit 1
	fi
	say "installing ${missing[*]} …"
	"${sudo[@]}" apt-get update -qq >/dev/null
	DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
	say "error: python3 is $(python3 -V 2>&1 | cut -d' ' -f2), and 3.11 or newer is needed. Put a newer python3 first in PATH."
	exit 1
fi
uv=$(requirements/uv.sh)
say "making .venv …"
[[ -x .venv/bin/python ]] || "$uv" venv --quiet --no-python-downloads --python "$(command -v python3)" .venv
export VIRTUAL_ENV=$PWD/.venv
# Compiled now, once: every command and each of the programs that tests start is quicker for it.
"$uv" pip sync --quiet --require-hashes --compile-bytecode requirements/dev.txt
"$uv" pip install --quiet --no-deps --no-build-isolation --editable shared --editable operator --editable agent
ln -sfn "$PWD/tests/lab/dpu-lab" .venv/bin/dpu-lab
touch .venv/.ready
