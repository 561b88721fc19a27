"""`/metadata/endpoints`: what `az cloud register` and Azure Stack's PowerShell read to set up a cloud of their own.

Shapes: azure-clients.md, section B.1, and azure-backup-for-aks.md, section 3.9.
"""

from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

NAME: Final = "Strongroom"
FIRST: Final = "2015-01-01"  # Azure Stack's first form
ONE_CLOUD_SINCE: Final = "2022-09-01"  # before that, a list of clouds


def metadata_routes(endpoints: Sequence[str], tenant: str) -> list[BaseRoute]:
    """Return the routes; *endpoints* are the server's URLs without a slash at the end, its own name first.

    A client gets the endpoint that it asked at, if it is one of them: other names may not be known where it is.
    """
    known = {endpoint.lower(): endpoint for endpoint in endpoints}

    async def answer(request: Request) -> Response:
        version = request.query_params.get("api-version", "")
        if not version:
            error = {
                "code": "MissingApiVersionParameter",
                "message": "The api-version query parameter (?api-version=) is required for all requests.",
            }
            return JSONResponse({"error": error}, 400)
        asked = f"https://{request.headers.get('host', '')}".lower()
        return JSONResponse(document(known.get(asked, endpoints[0]), tenant, version))

    return [Route("/metadata/endpoints", answer, methods=["GET"])]


def document(endpoint: str, tenant: str, version: str) -> Any:
    """Return the document of *version*: an object, or a list of one cloud (2019-05-01)."""
    audiences = [endpoint, f"{endpoint}/"]
    if version == FIRST:
        return {
            "galleryEndpoint": endpoint,
            "graphEndpoint": f"{endpoint}/",
            "portalEndpoint": endpoint,
            "authentication": {"loginEndpoint": f"{endpoint}/", "audiences": audiences},
        }
    # A host name of this server's own: nothing is served below it, but clients want one for each suffix.
    suffix = "strongroom.localhost"
    cloud = {
        "name": NAME,
        "portal": endpoint,
        "gallery": endpoint,
        "graph": f"{endpoint}/",
        "graphAudience": f"{endpoint}/",
        "microsoftGraphResourceId": f"{endpoint}/",
        "resourceManager": f"{endpoint}/",
        "media": endpoint,
        "batch": endpoint,
        "sqlManagement": endpoint,
        "vmImageAliasDoc": f"{endpoint}/aliases.json",
        "activeDirectoryDataLake": endpoint,
        "appInsightsResourceId": endpoint,
        "appInsightsTelemetryChannelResourceId": endpoint,
        "logAnalyticsResourceId": endpoint,
        "synapseAnalyticsResourceId": endpoint,
        "attestationResourceId": endpoint,
        "ossrDbmsResourceId": endpoint,
        "authentication": {
            "loginEndpoint": f"{endpoint}/",
            "audiences": audiences,
            "tenant": tenant,
            "identityProvider": "AAD",
        },
        "suffixes": {
            "storage": f"core.{suffix}",
            "keyVaultDns": f"vault.{suffix}",
            "sqlServerHostname": f"database.{suffix}",
            "acrLoginServer": f"azurecr.{suffix}",
            "azureDataLakeStoreFileSystem": f"azuredatalakestore.{suffix}",
            "azureDataLakeAnalyticsCatalogAndJob": f"azuredatalakeanalytics.{suffix}",
        },
    }
    return cloud if version >= ONE_CLOUD_SINCE else [cloud]
