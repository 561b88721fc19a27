"""Outside memory of a repository: the newest manifests that this machine has seen.

A bucket that was rolled back as a whole is consistent in itself; only a memory outside of it shows the loss (design:
section 6). It lies at ${XDG_STATE_HOME:-~/.local/state}/strongroom/<repository id>.json.
"""

import os
from pathlib import Path

import msgspec


class Newest(msgspec.Struct, frozen=True):
    """A writer's newest manifest: its number and the SHA-256 (hex) of its stored bytes."""

    sequence: int
    sha256: str


class Seen(msgspec.Struct, rename="camel"):
    """What was seen: repository.json's SHA-256 (hex), and each writer's newest manifest by writer id."""

    config: str = ""
    newest: dict[str, Newest] = {}

    def note(self, writer: str, sequence: int, sha256: str) -> None:
        """Remember a manifest if it is newer than the one remembered."""
        known = self.newest.get(writer)
        if known is None or sequence > known.sequence:
            self.newest[writer] = Newest(sequence, sha256)


def seen_path(repository_id: str) -> Path:
    """Return where the memory of a repository lies."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "strongroom" / f"{repository_id}.json"


def load_seen(repository_id: str) -> Seen | None:
    """Return the memory of a repository, None if this machine has none (or an unreadable one)."""
    try:
        return msgspec.json.decode(seen_path(repository_id).read_bytes(), type=Seen)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def save_seen(repository_id: str, seen: Seen) -> None:
    """Store the memory, whole or not at all."""
    path = seen_path(repository_id)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(msgspec.json.encode(seen))
    temporary.replace(path)
