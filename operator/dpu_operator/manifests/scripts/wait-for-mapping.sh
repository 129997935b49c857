#!/bin/bash
# Init container: waits until this DPU has a tenant node, so that none of the others starts in vain.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"

await_tenant_node
say "DPU ${K8S_NODE} serves the tenant's node ${TENANT_K8S_NODE}."
