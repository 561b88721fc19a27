"""The commands `strongroom storage …`: attach the storage that recovery points are kept in, and see which there is."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit
from strongroom.cli.server import DEFAULT_SERVER, ResourceGroup, ServerOptions, credentials, group_location
from strongroom.client.resources import ACCOUNTS, StorageAccount

app = App(name="storage", help="The storage accounts of a control plane.")

_URL_HELP = (
    "az://account, s3://bucket/prefix, gs://bucket/prefix or file:///folder of the server's machine; `?endpoint=` for "
    "Azurite, MinIO and sovereign clouds. Containers are made below it."
)
_CREDENTIAL_HELP = (
    "KEY=@FILE, KEY=@- (stdin) or KEY=env:VARIABLE; a secret itself is not taken. Of az:// accountKey or sasToken, of "
    "s3:// accessKeyId and secretAccessKey (and sessionToken), of gs:// serviceAccountKey. Repeatable."
)


@app.command
def attach(
    name: str,
    /,
    *,
    resource_group: ResourceGroup,
    url: Annotated[str, Parameter(help=_URL_HELP)],
    credential: Annotated[tuple[str, ...], Parameter(negative="", show_default=False, help=_CREDENTIAL_HELP)] = (),
    location: Annotated[str, Parameter(show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Attach storage as a storage account, or give it new credentials. The server keeps them encrypted.

    Parameters
    ----------
    name
        What it is called as a storage account: 3 to 24 lower-case letters and digits.
    resource_group
        Of the storage account. It has to exist.
    location
        Unsaid: that of the resource group.
    """
    secrets = credentials(credential)
    with server.session() as session:
        path = f"{session.group(resource_group)}/providers/{ACCOUNTS}/{name}"
        where = location or group_location(session, resource_group)
        before = session.find(path)
        attached: dict[str, Any] = {"url": url, **({"credentials": secrets} if secrets else {})}
        body = {
            "location": before["location"] if before and not location else where,
            # What Azure's clients send; nothing here depends on it.
            "sku": {"name": "Standard_LRS"},
            "kind": "StorageV2",
            "tags": before.get("tags") or {} if before else {},
            "properties": {"strongroomLocation": attached},
        }
        account = StorageAccount.of(session.put(path, body))
    values = {
        "storage account": account.name,
        "resource group": account.group,
        "location": account.location,
        "state": account.state,
        "lies at": account.endpoint,
        "id": account.id,
    }
    emit(output, account.document, Facts(values, ids=[account.id]))


@app.command(name="list")
def list_(
    *,
    resource_group: Annotated[str, Parameter(alias="-g", metavar="RG", show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """List the storage accounts, local ones and attached ones.

    Parameters
    ----------
    resource_group
        Only those of this group. Unsaid: of the whole subscription.
    """
    with server.session() as session:
        scope = session.group(resource_group) if resource_group else session.root
        found = [StorageAccount.of(document) for document in session.items(f"{scope}/providers/{ACCOUNTS}")]
    rows = [(a.name, a.group, a.location, a.state, a.endpoint) for a in found]
    columns = ("name", "resource group", "location", "state", "lies at")
    emit(output, [a.document for a in found], Table(columns, rows, [a.name for a in found]))
