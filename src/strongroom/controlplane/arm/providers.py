"""Resource providers and whether a subscription is registered to use them."""

from strongroom.controlplane.arm.errors import ArmError
from strongroom.controlplane.state.database import Tx


def require_registered(tx: Tx, subscription: str, namespace: str) -> None:
    """Check the registration. Raises 409 `MissingSubscriptionRegistration`: azure-core then registers and repeats."""
    provider = tx.resources.get(f"/subscriptions/{subscription}/providers/{namespace}")
    if provider is None or provider.doc.get("registrationState") != "Registered":
        raise ArmError(
            409,
            "MissingSubscriptionRegistration",
            f"The subscription is not registered to use namespace '{namespace}'. See "
            "https://aka.ms/rps-not-found for how to register subscriptions.",
            target=namespace,
            actions=(f"az provider register --namespace {namespace}",),
        )
