"""The operations of Microsoft.Storage: accounts and containers, served from the home or attached from elsewhere."""

from strongroom.controlplane.arm.storage.accounts import OPERATIONS as _ACCOUNTS
from strongroom.controlplane.arm.storage.containers import OPERATIONS as _CONTAINERS

OPERATIONS = (*_ACCOUNTS, *_CONTAINERS)

__all__ = ["OPERATIONS"]
