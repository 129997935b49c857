#!/bin/bash
# Init container: waits until dpu-agent on this DPU says that the host configuration is in place, and repeats its
# sentence until then.
set -euo pipefail
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
AGENT_PORT=${AGENT_PORT:-9917}

said=""
turns=0
while http_get "${AGENT_PORT}" /readyz && [[ "${HTTP_STATUS}" != 200 ]]; do
  why=${HTTP_BODY:-"dpu-agent does not answer on 127.0.0.1:${AGENT_PORT}. On the DPU, see systemctl status dpu-agent."}
  if [[ "${why}" != "${said}" ]] || ((turns % 60 == 0)); then
    say "DPU ${K8S_NODE} waits for dpu-agent: ${why}"
    said=${why}
  fi
  ((++turns))
  sleep "${POLL_SECONDS}"
done
say "dpu-agent is ready."
