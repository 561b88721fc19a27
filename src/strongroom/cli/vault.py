"""The commands `strongroom vault …`: backup vaults, as they are made, listed and looked at, and made anew."""

from typing import Annotated, Any

from cyclopts import App, Parameter

from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit
from strongroom.cli.protection import VaultOptions, instances, vaults
from strongroom.cli.server import DEFAULT_SERVER, ResourceGroup, ServerOptions, group_location
from strongroom.client.backups import VAULTS, BackupVault
from strongroom.errors import ExitCode

app = App(name="vault", help="Backup vaults.")
# Its text stands here and not at the command: the list of commands would import the control plane.
app.command(
    "strongroom.cli.vault_rebuild:rebuild",
    name="rebuild",
    help="""Make vaults, policies, backup instances and recovery points anew from what a container holds.

Everything gets the ARM id that it had. Backup instances come back stopped; clusters, extensions, trusted access and
role assignments are made again by you. What stands in the home already is left as it is: the command can be repeated,
and given one container after the other. A home is made where there is none; the server may be running. Exit code 3
when something could not be made as it was.
""",
)


@app.command
def create(
    name: str,
    /,
    *,
    resource_group: ResourceGroup,
    location: Annotated[str, Parameter(show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Create a backup vault with an identity of its own, or leave one of that name as it is but for that identity.

    Parameters
    ----------
    name
        What the vault is called.
    resource_group
        Of the vault. It has to exist.
    location
        Unsaid: that of the resource group. Clusters and storage have to be of the same one.
    """
    with server.session() as session:
        path = f"{session.group(resource_group)}/providers/{VAULTS}/{name}"
        where = location or group_location(session, resource_group)
        before = session.find(path)
        old: dict[str, Any] = before["properties"] if before else {}
        body = {
            "location": before["location"] if before and not location else where,
            "identity": {"type": "SystemAssigned"},
            "tags": before.get("tags") or {} if before else {},
            "properties": {
                "storageSettings": [{"datastoreType": "OperationalStore", "type": "LocallyRedundant"}],
                **{key: old[key] for key in ("storageSettings", "securitySettings", "featureSettings") if key in old},
            },
        }
        vault = BackupVault.of(session.put(path, body))
    emit(output, vault.document, Facts(_values(vault), ids=[vault.id]))


@app.command(name="list")
def list_(
    *,
    resource_group: Annotated[str, Parameter(alias="-g", metavar="RG", show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """List the backup vaults.

    Parameters
    ----------
    resource_group
        Only those of this group. Unsaid: of the whole subscription.
    """
    with server.session() as session:
        found = vaults(session, resource_group)
    rows = [(each.name, each.group, each.location, each.state, each.soft_delete) for each in found]
    columns = ("name", "resource group", "location", "state", "soft delete")
    emit(output, [each.document for each in found], Table(columns, rows, [each.name for each in found]))


@app.command
def show(
    name: Annotated[str, Parameter(show_default=False)] = "",
    /,
    *,
    resource_group: Annotated[str, Parameter(alias="-g", metavar="RG", show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show a backup vault and its backup instances. Exit code 3 unless it was made as it was asked for.

    Parameters
    ----------
    name
        The vault, or its ARM id. Unsaid: the only one of the subscription.
    resource_group
        Of the vault. Needed where vaults of several groups have that name.
    """
    with server.session() as session:
        found = VaultOptions(vault_name=name, resource_group=resource_group).find(session)
        protected = instances(session, found)
    rows = [(each.name, each.cluster.rpartition("/")[2], each.state) for each in protected]
    tables = [Table(("backup instance", "cluster", "state"), rows)] if rows else []
    emit(output, found.document, Facts(_values(found), ids=[found.id], tables=tables))
    return ExitCode.WHOLE if found.state == "Succeeded" else ExitCode.INCOMPLETE


def _values(vault: BackupVault) -> dict[str, object]:
    return {
        "vault": vault.name,
        "resource group": vault.group,
        "location": vault.location,
        "state": vault.state,
        "soft delete": vault.soft_delete,
        "identity": vault.principal or "none",
        "id": vault.id,
    }
