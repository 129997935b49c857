#!/bin/bash
# Beside the start of the northbound database: names its zone. Every name is the tenant node's, never the DPU's.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
SOCKET=${RUN_OVN}/ovnnb_db.sock

await_tenant_node
retry 60 ovn-nbctl -t 5 --inactivity-probe=60000 set-connection "punix:${SOCKET}"
# As the cluster-network-operator sets them: northd's own probe, and a pause between its runs that spares the processor.
retry 20 ovn-nbctl -t 5 set nb_global . \
  "name=\"${TENANT_K8S_NODE}\"" \
  "options:name=\"${TENANT_K8S_NODE}\"" \
  options:northd_probe_interval=10000 \
  options:northd-backoff-interval-ms=300 \
  ipsec=false \
  options:ipsec_encapsulation=false
