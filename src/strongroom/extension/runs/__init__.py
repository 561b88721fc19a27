"""Carries documents out: backups, restores and deletions, each idempotent by its name, wherever documents come from."""
