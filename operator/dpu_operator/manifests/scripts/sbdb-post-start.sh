#!/bin/bash
# Beside the start of the southbound database: a probe interval that a busy ovn-controller keeps.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"

await_tenant_node
retry 60 ovn-sbctl -t 5 --inactivity-probe=180000 set-connection "punix:${RUN_OVN}/ovnsb_db.sock"
