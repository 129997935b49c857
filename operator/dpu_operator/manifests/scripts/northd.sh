#!/bin/bash
# ovn-northd: compiles this zone's northbound database into its southbound one.
set -euo pipefail
USES=(OVN_LOG_LEVEL)
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
load_variables

say "Starting ovn-northd."
supervise ovn-northd \
  --no-chdir \
  -vconsole:"${OVN_LOG_LEVEL}" \
  -vfile:off \
  '-vPATTERN:console:%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m' \
  --pidfile="${RUN_OVN}/ovn-northd.pid" \
  --n-threads=1
