#!/bin/bash
# The probes: each asks the program itself how it is.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
K8S_NODE=${K8S_NODE:-probe}
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
HEALTHZ_PORT=${HEALTHZ_PORT:-10256}

ask() {
  ovn-appctl --timeout=4 -t "$@"
}

case "$1" in
ovn-controller)
  pid=$(<"${RUN_OVN}/ovn-controller.pid")
  state=$(ask "${RUN_OVN}/ovn-controller.${pid}.ctl" connection-status)
  [[ "${state}" == connected ]]
  ;;
northd)
  pid=$(<"${RUN_OVN}/ovn-northd.pid")
  state=$(ask "${RUN_OVN}/ovn-northd.${pid}.ctl" status)
  [[ "${state}" == *active* ]]
  ;;
nbdb | sbdb)
  state=$(ask "${RUN_OVN}/ovn${1%db}_db.ctl" ovsdb-server/sync-status)
  [[ "${state}" == *"state: active"* ]]
  ;;
ovnkube-alive)
  # Without a tenant node it waits, which is not a reason to be killed.
  [[ -e "${WAITING}" ]] && exit 0
  http_get "${HEALTHZ_PORT}" /healthz
  [[ "${HTTP_STATUS}" == 200 ]]
  ;;
ovnkube-ready)
  http_get "${HEALTHZ_PORT}" /healthz
  [[ "${HTTP_STATUS}" == 200 ]]
  ;;
*)
  say "There is no probe $1." >&2
  exit 2
  ;;
esac
