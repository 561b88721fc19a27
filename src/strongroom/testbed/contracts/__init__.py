"""Contract suites: what every driver of a port must do, as pytest classes to subclass."""

from strongroom.testbed.contracts.objectstore import ObjectStoreContract

__all__ = ["ObjectStoreContract"]
