#!/usr/bin/env bash
# Resolves the requirements anew, with hashes and for every platform.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$(requirements/uv.sh)
compile() { # OUTPUT INPUT...
	local output=$1
	shift
	"$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
		--no-emit-find-links --no-header --custom-compile-command "make lock" --output-file "requirements/$output" "$@"
}
# The members themselves are installed from this checkout, never from an index.
members=(--no-emit-package dpu-shared --no-emit-package dpu-operator --no-emit-package dpu-agent)
compile operator.txt "${members[@]}" operator/pyproject.toml
compile agent.txt "${members[@]}" agent/pyproject.toml
compile dev.txt "${members[@]}" --group pyproject.toml:dev operator/pyproject.toml agent/pyproject.toml
echo "uv==$("$uv" --version | cut -d' ' -f2)" | compile uv.txt -
