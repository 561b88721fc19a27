"""Instants as the text that is stored and sent: UTC with seven decimals, so that text order is time order."""

from datetime import UTC, datetime


def stamp(instant: datetime) -> str:
    """Return *instant* (aware) as `2026-11-23T16:20:00.1234560Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def moment(text: str) -> datetime:
    """Return the instant of a `stamp`. Raises ValueError for other text."""
    return datetime.strptime(text[:26] + "+0000", "%Y-%m-%dT%H:%M:%S.%f%z")


def now() -> datetime:
    """Return the present instant: the one place where the control plane's edge reads the clock."""
    return datetime.now(UTC)
