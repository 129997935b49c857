#!/bin/bash
# The southbound database of the tenant node's zone.
set -euo pipefail
USES=(TENANT_K8S_NODE OVN_LOG_LEVEL)
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
OVN_CTL=${OVN_CTL:-/usr/share/ovn/scripts/ovn-ctl}

await_tenant_node
own_database ovnsb_db.db
# With hostPID a stale number may be another process's, and ovn-ctl would take that for the database.
rm -f "${RUN_OVN}/ovnsb_db.pid"
say "Starting the southbound database."
supervise "${OVN_CTL}" \
  --no-monitor \
  --db-sb-sock="${RUN_OVN}/ovnsb_db.sock" \
  --ovn-sb-log="-vconsole:${OVN_LOG_LEVEL} -vfile:off -vPATTERN:console:%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m" \
  run_sb_ovsdb
