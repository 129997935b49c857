#!/usr/bin/env bash
# Prints the path of uv: the machine's own where it is new enough, else one that is installed into the cache.
set -euo pipefail
cd "$(dirname "$0")"
wanted=$(sed -nE 's/^uv==([0-9.]+).*/\1/p' uv.txt)
if have=$(uv --version 2>/dev/null | cut -d' ' -f2) && [[ $(printf '%s\n' "$wanted" "$have" | sort -V | head -1) == "$wanted" ]]; then
	command -v uv
	exit
fi
place=${DPU_LAB_CACHE:-$HOME/.cache/dpu-network-operator}/uv-$wanted
if [[ ! -x $place/bin/uv ]]; then
	rm -rf "$place.new"
	python3 -m venv "$place.new" >&2
	"$place.new/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r uv.txt >&2
	# A venv's scripts name its path; uv is a program that does not care.
	rm -rf "$place" && mv "$place.new" "$place"
fi
echo "$place/bin/uv"
