#!/bin/bash
# Sourced by the start scripts: the variables of this DPU, restarts when they change, waiting in words.
#
# A script that sources this sets USES to the names of the variables that its program depends on, and may set
# WATCHED_FILES. Where things are can be changed by the environment.
ENV_DIR=${ENV_DIR:-/env}
RUN_OVN=${RUN_OVN:-/var/run/ovn}
ETC_OVN=${ETC_OVN:-/etc/ovn}
POLL_SECONDS=${POLL_SECONDS:-5}
STOP_SECONDS=${STOP_SECONDS:-20}
WAITING=${WAITING:-/tmp/waiting-for-tenant-node}
USES=(${USES[@]+"${USES[@]}"})
WATCHED_FILES=(${WATCHED_FILES[@]+"${WATCHED_FILES[@]}"})
: "${K8S_NODE:?must be the node name of this DPU}"

say() {
  printf '%s %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"
}

# Read this DPU's variables, if it has any. The operator has written and quoted them.
load_variables() {
  if [[ -r "${ENV_DIR}/${K8S_NODE}" ]]; then
    set -o allexport
    # shellcheck disable=SC1090 # a file of the pod
    source "${ENV_DIR}/${K8S_NODE}"
    set +o allexport
  fi
}

# What must stay as it is while the program runs: its variables' lines, and the watched files.
inputs() {
  local line name
  if [[ -r "${ENV_DIR}/${K8S_NODE}" ]]; then
    while IFS= read -r line; do
      for name in "${USES[@]}"; do
        if [[ "${line}" == "${name}="* ]]; then printf '%s\n' "${line}"; fi
      done
    done <"${ENV_DIR}/${K8S_NODE}"
  fi
  if ((${#WATCHED_FILES[@]})); then
    cksum "${WATCHED_FILES[@]}" 2>/dev/null || true
  fi
}

# Wait until the operator has said which tenant node's host this DPU sits in.
await_tenant_node() {
  local turns=0
  load_variables
  until [[ -n "${TENANT_K8S_NODE:-}" ]]; do
    # The kubelet takes up to a minute to bring a change here; say it now and then every five minutes.
    if ((turns++ % 60 == 0)); then
      say "DPU ${K8S_NODE} waits: it has no tenant node. See the condition NodesMapped of the OVNKubeConfig."
    fi
    touch "${WAITING}"
    sleep "${POLL_SECONDS}"
    load_variables
  done
}

# Run a program until it ends, the pod ends, or one of its inputs changes; then the kubelet starts it anew with the new
# ones. That way a change of one DPU's variables restarts that DPU's containers and no others.
supervise() {
  local before program watcher status
  before=$(inputs)
  "$@" &
  program=$!
  # shellcheck disable=SC2064 # the process id is known now
  trap "kill -TERM ${program} 2>/dev/null" TERM INT
  (
    trap - TERM INT
    while sleep "${POLL_SECONDS}"; do
      if [[ "$(inputs)" != "${before}" ]]; then
        say "What $1 was started with has changed: it ends, to be started anew."
        kill -TERM "${program}" 2>/dev/null
        sleep "${STOP_SECONDS}"
        kill -KILL "${program}" 2>/dev/null
        break
      fi
    done
  ) &
  watcher=$!
  # A trapped signal interrupts wait, so ask until the program is really gone.
  while :; do
    status=0
    wait "${program}" || status=$?
    kill -0 "${program}" 2>/dev/null || break
  done
  kill "${watcher}" 2>/dev/null || true
  exit "${status}"
}

# An interconnect database holds the zone of one tenant node. What is left of another node's, or of another tenant's,
# must not be merged into it.
own_database() {
  local file="${ETC_OVN}/$1" owner="${DPU_OWNER} ${TENANT_K8S_NODE}"
  if [[ -e "${file}.owner" && "$(<"${file}.owner")" != "${owner}" ]]; then
    say "$1 belonged to $(<"${file}.owner"): starting with an empty one for ${owner}."
    rm -f "${file}"
  fi
  printf '%s\n' "${owner}" >"${file}.owner"
}

# Try a command every two seconds, so often.
retry() {
  local tries=$1
  shift
  until "$@"; do
    ((tries--)) || return 1
    sleep 2
  done
}

# GET a path of a port of this machine. Sets HTTP_STATUS (empty where nothing answers) and HTTP_BODY.
http_get() {
  local reply
  # shellcheck disable=SC2016 # expanded by the inner shell, which has a time limit
  reply=$(timeout 5 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf "GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n" "$2" >&3
    cat <&3
  ' bash "$1" "$2" 2>/dev/null) || true
  reply=${reply//$'\r'/}
  read -r _ HTTP_STATUS _ <<<"${reply%%$'\n'*}" || true
  HTTP_BODY=""
  if [[ "${reply}" == *$'\n\n'* ]]; then HTTP_BODY=${reply#*$'\n\n'}; fi
  export HTTP_STATUS HTTP_BODY
}
