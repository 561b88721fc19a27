"""Strongroom: self-hosted backup and restore of Kubernetes clusters."""

__version__ = "0.1.0"
