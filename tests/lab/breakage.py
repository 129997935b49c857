"""What `dpu-lab break` and `dpu-lab mend` do: one function for each thing that can go wrong."""

from dataclasses import dataclass

from tests.lab import operator_run
from tests.lab.errors import LabError
from tests.lab.lab import DPUS, POOL, Lab

TENANT_SPACE, TENANT_SECRET = "tenant-1", "tenant-kubeconfig"


@dataclass(frozen=True)
class Options:
    """What a way of breaking may need to know."""

    milliseconds: int = 500
    seconds: float = 20
    node: str = DPUS[0]
    message: str = "broken by dpu-lab"


def break_api(lab: Lab, cluster: str, how: str, options: Options) -> str:
    """Cut, freeze, slow or restart an API."""
    target = lab.infra if cluster == "infra" else lab.tenant
    if how == "restart":
        target.restart_api()
        return f"The {cluster} API server has restarted on its old data and is ready."
    target.network().set(how, options.milliseconds)
    return {
        "cut": f"Connections to the {cluster} API are closed, and new ones are refused.",
        "freeze": f"Connections to the {cluster} API are accepted and kept, and nothing comes through.",
        "slow": f"Every chunk to and from the {cluster} API takes {options.milliseconds} ms longer.",
    }[how] + " `dpu-lab kubectl` goes past it and still works."


def break_credential(lab: Lab, how: str, options: Options) -> str:
    """Revoke the operator's tenant account, or hand it a certificate that ends soon."""
    if how == "revoke":
        lab.credentials.revoke()
        return "The tenant's ServiceAccount is deleted; its tokens are refused within 10 s."
    hand_out(lab, lab.credentials.certificate_kubeconfig(seconds=options.seconds))
    return f"The operator's kubeconfig now holds a client certificate that ends in {options.seconds:g} s."


def break_ca(lab: Lab) -> str:
    """Serve the tenant API with another authority's certificate."""
    lab.credentials.swap_ca()
    return "The tenant API now serves a certificate from an authority that no kubeconfig trusts."


def break_pool(lab: Lab, how: str, options: Options) -> str:
    """Let the machine-config-operator's stand-in misbehave."""
    match how:
        case "stall":
            lab.mco.stall(POOL)
            return f"The next update of the pool {POOL} starts on a node and never ends."
        case "degrade":
            lab.mco.degrade(options.node, options.message)
            return f"The node {options.node} says that it is Degraded: {options.message}."
        case "render-fail":
            lab.mco.render_fail(POOL, options.message)
            return f"The pool {POOL} can't be rendered: {options.message}."
        case _:
            lab.mco.pause(POOL)
            return f"The pool {POOL} is paused."


def hand_out(lab: Lab, kubeconfig: str) -> None:
    """Put a tenant kubeconfig where the operator looks for it: its file, and the Secret if there is one."""
    file = lab.tenant.folder / "operator.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(kubeconfig)
    if lab.infra.admin.find("v1/Secret", TENANT_SECRET, TENANT_SPACE) is not None:
        operator_run.kubeconfig_secret(lab.infra.admin, TENANT_SPACE, kubeconfig, TENANT_SECRET)


def mend(lab: Lab, what: str) -> str:
    """Undo one kind of breakage, or all of it."""

    def infra_api() -> None:
        lab.infra.network().set("pass")

    def tenant_api() -> None:
        lab.tenant.network().set("pass")

    def credential() -> None:
        hand_out(lab, lab.credentials.restore())

    def authority() -> None:
        if lab.tenant.serving != "server":
            lab.credentials.swap_ca_back()

    def pool() -> None:
        lab.mco.resume()
        lab.mco.pause(POOL, paused=False)

    steps = {"infra-api": infra_api, "pool": pool}
    if len(lab.clusters) > 1:
        steps |= {"tenant-api": tenant_api, "ca": authority, "credential": credential}
    if what != "all" and what not in steps:
        raise LabError(f"There is no {what} to mend in this lab.", f"Choose one of: {', '.join(steps)}, all.")
    for step in steps.values() if what == "all" else [steps[what]]:
        step()
    return "Everything is whole again." if what == "all" else f"{what} is whole again."
