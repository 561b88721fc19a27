"""The repository: sealed, signed, append-only recovery points in an object store (docs/format/repository.md)."""
