#!/bin/bash
# Prints ovn-controller's log of access control lists, and keeps its files within the tenant's limits.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
LOG_DIR=${LOG_DIR:-/var/log/ovn}
LOG=${LOG_DIR}/acl-audit-log.log

reopen() {
  local pid
  pid=$(<"${RUN_OVN}/ovn-controller.pid") || return 0
  ovn-appctl -t "${RUN_OVN}/ovn-controller.${pid}.ctl" vlog/reopen || true
}

say "Waiting for ovn-controller."
until [[ -s "${RUN_OVN}/ovn-controller.pid" ]]; do sleep 2; done
tail -F "${LOG}" 2>/dev/null &

while :; do
  if [[ ! -f "${LOG}" ]]; then
    reopen
  elif (($(stat -c %s "${LOG}") > ACL_LOG_MAX_MB * 1000000)); then
    mv "${LOG}" "${LOG_DIR}/acl-audit-log.$(date +%Y-%m-%dT%H-%M-%S).log"
    reopen
  fi
  # The names hold the time, so their order is by age; the current one sorts last.
  files=("${LOG_DIR}"/acl-audit-log.*.log)
  surplus=$((${#files[@]} + 1 - ACL_LOG_MAX_FILES))
  for ((i = 0; i < surplus && i < ${#files[@]}; i++)); do rm -f "${files[i]}"; done
  sleep 30
done
