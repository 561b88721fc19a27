"""Hooks: commands that run in pods around the cut of volume snapshots, and after a restore."""
