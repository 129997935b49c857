#!/bin/bash
# ovn-controller: turns what the southbound database says of this node into OpenFlow.
set -euo pipefail
USES=(OVN_LOG_LEVEL)
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
load_variables

tls=()
if [[ "${OVN_TOPOLOGY}" != interconnect ]]; then
  tls=(-p /ovn-cert/tls.key -c /ovn-cert/tls.crt -C /ovn-ca/ca-bundle.crt)
fi
say "Starting ovn-controller."
supervise ovn-controller unix:/var/run/openvswitch/db.sock \
  -vfile:off \
  --no-chdir \
  --pidfile="${RUN_OVN}/ovn-controller.pid" \
  --syslog-method="${ACL_LOG_DESTINATION}" \
  --log-file=/var/log/ovn/acl-audit-log.log \
  -vFACILITY:"${ACL_LOG_FACILITY}" \
  "${tls[@]}" \
  -vconsole:"${OVN_LOG_LEVEL}" \
  -vconsole:acl_log:off \
  '-vPATTERN:console:%D{%Y-%m-%dT%H:%M:%S.###Z}|%05N|%c%T|%p|%m' \
  -vsyslog:acl_log:info \
  -vfile:acl_log:info
