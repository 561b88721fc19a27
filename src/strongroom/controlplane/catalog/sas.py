"""Signs short-lived, narrow credentials for one Azure container: a service SAS. Pure.

obstore signs for single blobs only. The string to sign is that of version 2020-12-06 and later ("Create a service SAS",
learn.microsoft.com/rest/api/storageservices).
"""

import base64
import binascii
import hmac
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from strongroom.dataplane.objectstore.errors import StoreDenied
from strongroom.dataplane.objectstore.location import AzureLocation

VERSION: Final = "2021-08-06"  # the oldest with this string to sign that Azurite, too, knows
SAS_LIFETIME: Final = timedelta(hours=1)  # design.md, section 8; renewed every 15 minutes while a job runs
CLOCK_SKEW: Final = timedelta(minutes=5)  # a store whose clock is behind ours refuses what begins in its future

READ_CREATE_LIST: Final = "rcl"
"""What an extension may do. Create without write is a create that replaces nothing, whatever the request says."""


def container_sas(
    location: AzureLocation, account_key: str, *, now: datetime, permissions: str = READ_CREATE_LIST
) -> str:
    """Return the query (without '?') that lets its holder do *permissions* in the container of *location* for an hour.

    *account_key* is base64, as Azure shows it; *permissions* are letters in the order `racwdxl`. The whole container is
    meant, also where *location* has a prefix: a SAS for a folder needs a hierarchical namespace. Raises `StoreDenied`
    for a key that is not base64, without repeating it.
    """
    try:
        key = base64.b64decode(account_key, validate=True)
    except (binascii.Error, ValueError):
        raise StoreDenied(
            f"the account key for {location.url} is not base64", hint="Copy it again: it may be cut", store=location.url
        ) from None
    start, end = (_time(now - CLOCK_SKEW), _time(now + SAS_LIFETIME))
    # https only, but for an endpoint that was written with http:// (a test's, or one behind a tunnel).
    plain = location.endpoint is not None and location.endpoint.startswith("http://")
    protocol = "https,http" if plain else "https"
    resource = f"/blob/{location.account}/{location.container}"
    said = [permissions, start, end, resource, "", "", protocol, VERSION, "c", "", "", "", "", "", "", ""]
    signature = base64.b64encode(hmac.digest(key, "\n".join(said).encode(), "sha256")).decode()
    fields = {"sv": VERSION, "spr": protocol, "st": start, "se": end, "sr": "c", "sp": permissions, "sig": signature}
    return urlencode(fields)


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
