"""The images that the installer tells us to use."""

from collections.abc import Mapping

_PREFIX = "RELATED_IMAGE_"


def related_images(environ: Mapping[str, str]) -> dict[str, str]:
    """RELATED_IMAGE_* of the environment: `RELATED_IMAGE_AGENT=X` gives `{"agent": X}`."""
    return {k[len(_PREFIX) :].lower(): v for k, v in environ.items() if k.startswith(_PREFIX) and v}
