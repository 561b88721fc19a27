"""The Lease that the active extension renews, by which others see that it lives."""

from typing import Final

LEASE_NAME: Final = "strongroom-extension"
LEASE_SECONDS: Final = 120.0  # an API server may be away for a minute in the middle of a backup, which goes on then
VERSION_ANNOTATION: Final = "strongroom.dev/version"
