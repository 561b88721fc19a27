"""Collects the state of a cluster at one instant into a recovery point."""
