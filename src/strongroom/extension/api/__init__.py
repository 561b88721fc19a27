"""The documents between control plane and extension: their only contract."""
