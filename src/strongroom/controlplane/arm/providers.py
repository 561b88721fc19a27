"""Resource providers and whether a subscription is registered to use them."""

from typing import Final

from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.state.database import Tx

PROVIDERS: Final = "Microsoft.Resources/providers"
REGISTERED: Final = "Registered"
NOT_REGISTERED: Final = "NotRegistered"

# The three that the how-to registers before a backup is configured. All others are registered in every subscription
# from its beginning: on Azure clients register those on their own, which is not theirs to wait for here.
REGISTERED_BY_USERS: Final = (
    "Microsoft.ContainerService",
    "Microsoft.DataProtection",
    "Microsoft.KubernetesConfiguration",
)


def registration_state(tx: Tx, subscription: str, namespace: str) -> str:
    """Return `Registered`, `NotRegistered` or `Unregistered`."""
    stored = tx.resources.get(f"/subscriptions/{subscription}/providers/{namespace}")
    if stored is not None:
        return str(stored.doc.get("registrationState", NOT_REGISTERED))
    asked = namespace.lower() in {one.lower() for one in REGISTERED_BY_USERS}
    return NOT_REGISTERED if asked else REGISTERED


def require_registered(tx: Tx, subscription: str, namespace: str) -> None:
    """Check the registration. Raises 409 `MissingSubscriptionRegistration`: azure-core then registers and repeats."""
    if registration_state(tx, subscription, namespace) != REGISTERED:
        raise ArmError(
            409,
            "MissingSubscriptionRegistration",
            f"The subscription is not registered to use namespace '{namespace}'. See "
            "https://aka.ms/rps-not-found for how to register subscriptions.",
            target=namespace,
            actions=(f"az provider register --namespace {namespace}",),
        )
