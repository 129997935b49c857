#!/bin/bash
# ovnkube in DPU mode for the tenant's node. The arguments that are the same on every DPU come as this script's own;
# cluster-wide settings are in the mounted ovnkube.conf.
set -euo pipefail
USES=(TENANT_K8S_NODE NODE_IP OVN_KUBE_LOG_LEVEL MGMT_IFNAME GATEWAY_NEXTHOP GATEWAY_VLANID GATEWAY_ROUTER_SUBNET)
KUBECONFIG_FILE=${KUBECONFIG_FILE:-/tenant-kubeconfig/config}
# ovnkube reads the kubeconfig at its start only.
WATCHED_FILES=("${KUBECONFIG_FILE}")
HERE=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=lib.sh
source "${HERE}/lib.sh"
SYS_NET=${SYS_NET:-/sys/class/net}

# Whether this ovnkube knows a flag. Its --help does not list them all, but with --version it reads them and ends.
accepts() {
  ovnkube "--$1" --version >/dev/null 2>&1
}

# Keep geneve out of connection tracking: each packet of a tunnel would be one entry more. Idempotent.
no_conntrack() {
  local tool chain
  if [[ "${NOTRACK_TOOL}" == nft ]]; then
    nft -f - <<END
add table inet ovn_notrack
flush table inet ovn_notrack
add chain inet ovn_notrack prerouting { type filter hook prerouting priority raw; policy accept; }
add chain inet ovn_notrack output { type filter hook output priority raw; policy accept; }
add rule inet ovn_notrack prerouting udp dport ${ENCAP_PORT} notrack
add rule inet ovn_notrack output udp dport ${ENCAP_PORT} notrack
END
    return
  fi
  for tool in iptables ip6tables; do
    for chain in PREROUTING OUTPUT; do
      rule=("${chain}" -p udp --dport "${ENCAP_PORT}" -j NOTRACK)
      "${tool}" -t raw -C "${rule[@]}" 2>/dev/null || "${tool}" -t raw -A "${rule[@]}"
    done
  done
}

# The address that other nodes send tunnels to; it must be this DPU's own. What the administrator set for this DPU wins,
# then what OVS was provisioned with (if this machine still has it), then the kubelet's address of this node.
encap_ip() {
  local provisioned
  if [[ "${NODE_IP}" == "${kubelet_ip}" ]]; then
    provisioned=$(ovs-vsctl --timeout=15 --if-exists get Open_vSwitch . external_ids:ovn-encap-ip | tr -d '"') || true
    if [[ -n "${provisioned}" && -n "$(ip -o addr show to "${provisioned}" 2>/dev/null)" ]]; then
      printf '%s' "${provisioned}"
      return
    fi
  fi
  printf '%s' "${NODE_IP}"
}

kubelet_ip=${NODE_IP}
await_tenant_node
if [[ -e "${WAITING}" ]]; then
  # The startup probe has run out while waiting; only a new container gets its time.
  rm -f "${WAITING}"
  say "The tenant's node is ${TENANT_K8S_NODE} now: starting anew."
  exit 0
fi

no_conntrack
# ovnkube of 4.18 to 4.21 matches a port's requested chassis by this name and, in DPU mode, does not set it itself.
ovs-vsctl --timeout=15 --no-wait set Open_vSwitch . "external_ids:hostname=${TENANT_K8S_NODE}"

# The mode is in ovnkube.conf too. Were that file unreadable, a full ovnkube would take over the DPU's own CNI.
args=(
  --init-node "${TENANT_K8S_NODE}"
  --ovnkube-node-mode dpu
  --config-file=/run/ovnkube-config/ovnkube.conf
  --k8s-kubeconfig="${KUBECONFIG_FILE}"
  --encap-ip "$(encap_ip)"
  --loglevel "${OVN_KUBE_LOG_LEVEL}"
)
case "${OVN_TOPOLOGY}" in
interconnect)
  args+=(--init-ovnkube-controller "${TENANT_K8S_NODE}")
  # Gone from upstream in 2026; without it the older ones would not join the zone.
  if accepts "zone=${TENANT_K8S_NODE}"; then args+=(--zone "${TENANT_K8S_NODE}"); fi
  ;;
single-zone)
  if accepts zone=global; then args+=(--zone global); fi
  ;;
central)
  # Required up to 4.13 and refused later: there the host says it in an annotation.
  args+=(--ovnkube-node-mgmt-port-netdev "${MGMT_IFNAME:-c1pf0vf0}")
  ;;
esac
if [[ -n "${GATEWAY_NEXTHOP:-}" ]]; then args+=(--gateway-nexthop "${GATEWAY_NEXTHOP}"); fi
if [[ -n "${GATEWAY_VLANID:-}" ]]; then args+=(--gateway-vlanid "${GATEWAY_VLANID}"); fi
if [[ -n "${GATEWAY_ROUTER_SUBNET:-}" ]]; then args+=(--gateway-router-subnet "${GATEWAY_ROUTER_SUBNET}"); fi
# ovnkube ends where it is told of a bridge that is not there.
if [[ -d "${SYS_NET}/br-ex1" ]]; then args+=(--exgw-interface br-ex1); fi

say "Starting ovnkube for the tenant's node ${TENANT_K8S_NODE}."
supervise ovnkube "${args[@]}" "$@"
