"""From a Secret to a vetted kubeconfig, and to what may be said about it."""

import base64
import dataclasses

from dpu_operator.kube.vetting import Access, vet
from dpu_operator.world import Credential, Seen, Sight
from dpu_shared.errors import UserError

KEY = "config"
"""The key of the Secret that holds the kubeconfig."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """A credential, and the access it gives where it was accepted."""

    credential: Credential
    access: Access | None = None


def read(secret: Seen, *, name: str) -> Reading:
    """Vet the kubeconfig in a Secret. Nothing of its content is in the result's sentences.

    Args:
        secret: the Secret as seen in the resource's namespace.
        name: its name, for the sentences.

    """
    if secret.sight is Sight.ABSENT:
        return _refused(
            Sight.ABSENT,
            f"Secret {name} does not exist in the namespace of this resource.",
            f"Create it with the tenant's kubeconfig under the key `{KEY}`.",
        )
    if secret.object is None:
        return Reading(Credential(seen=secret.sight))
    encoded = (secret.object.get("data") or {}).get(KEY)
    if not encoded:
        return _refused(
            Sight.PRESENT,
            f"Secret {name} has no key `{KEY}`.",
            f"Put the tenant's kubeconfig under the key `{KEY}`.",
        )
    try:
        access = vet(base64.b64decode(encoded, validate=True))
    except UserError as error:
        return _refused(Sight.PRESENT, f"The kubeconfig in Secret {name} is refused: {error.message}", error.hint)
    except ValueError:
        return _refused(
            Sight.PRESENT, f"Secret {name} holds no base64.", "Create it again with `kubectl create secret`."
        )
    return Reading(
        Credential(seen=Sight.PRESENT, issued=access.issued, expires=access.expires, what=access.what), access
    )


def _refused(sight: Sight, problem: str, hint: str) -> Reading:
    return Reading(Credential(seen=sight, problem=problem, hint=hint))
