"""The commands `strongroom cluster …`: connect a cluster to a control plane, and see which are."""

import asyncio
import base64
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from strongroom.cli.output import DEFAULT_OUTPUT, Facts, Output, Table, emit, note
from strongroom.cli.server import DEFAULT_SERVER, ResourceGroup, ServerOptions, group_location
from strongroom.client.resources import CLUSTERS, Cluster
from strongroom.client.session import Session
from strongroom.dataplane.kube.flatten import flatten
from strongroom.errors import ExitCode

app = App(name="cluster", help="The clusters that a control plane may back up.")


@app.command
def connect(
    name: str,
    /,
    *,
    resource_group: ResourceGroup,
    kubeconfig: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    context: str | None = None,
    location: Annotated[str, Parameter(show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Connect a cluster, or connect it anew. Its files are read and its exec plugin is run here, not by the server.

    The credential is used once, to make accounts with few rights in the cluster, and not kept. It needs the rights of a
    cluster-admin.

    Parameters
    ----------
    name
        What the cluster is called as a managed cluster.
    resource_group
        Of the managed cluster. It has to exist.
    kubeconfig
        Unsaid: KUBECONFIG, else ~/.kube/config.
    context
        A context of the kubeconfig. Unsaid: its current one.
    location
        Unsaid: that of the resource group.
    """
    raw = asyncio.run(flatten(kubeconfig, context))
    with server.session() as session:
        path = _id(session, resource_group, name)
        where = location or group_location(session, resource_group)
        before = session.find(path)
        body: dict[str, Any] = {
            "location": before["location"] if before and not location else where,
            "identity": {"type": "SystemAssigned"},
            "tags": before.get("tags") or {} if before else {},
            "properties": {"strongroomConnection": {"kubeconfig": base64.b64encode(raw).decode()}},
        }
        note(output, f"connecting {name}")
        cluster = Cluster.of(session.put(path, body))
    emit(output, cluster.document, _facts(cluster))


@app.command(name="list")
def list_(
    *,
    resource_group: Annotated[str, Parameter(alias="-g", metavar="RG", show_default=False)] = "",
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """List the connected clusters.

    Parameters
    ----------
    resource_group
        Only those of this group. Unsaid: of the whole subscription.
    """
    with server.session() as session:
        scope = session.group(resource_group) if resource_group else session.root
        found = [Cluster.of(document) for document in session.items(f"{scope}/providers/{CLUSTERS}")]
    rows = [(c.name, c.group, c.location, c.state, c.version) for c in found]
    columns = ("name", "resource group", "location", "state", "version")
    emit(output, [c.document for c in found], Table(columns, rows, [c.name for c in found]))


@app.command
def show(
    name: str,
    /,
    *,
    resource_group: ResourceGroup,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Show a connected cluster. Exit code 3 while it is being connected, or when that failed.

    Parameters
    ----------
    name
        The managed cluster.
    resource_group
        Of the managed cluster.
    """
    with server.session() as session:
        cluster = Cluster.of(session.get(_id(session, resource_group, name)))
    emit(output, cluster.document, _facts(cluster))
    return ExitCode.WHOLE if cluster.state == "Succeeded" else ExitCode.INCOMPLETE


@app.command
def disconnect(
    name: str,
    /,
    *,
    resource_group: ResourceGroup,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Disconnect a cluster, which takes Strongroom out of it. Its recovery points stay where they are.

    Parameters
    ----------
    name
        The managed cluster. One that is not there is no error.
    resource_group
        Of the managed cluster.
    """
    with server.session() as session:
        path = _id(session, resource_group, name)
        session.delete(path)
    emit(output, {"id": path, "disconnected": True}, f"{name}: disconnected")


def _id(session: Session, group: str, name: str) -> str:
    return f"{session.group(group)}/providers/{CLUSTERS}/{name}"


def _facts(cluster: Cluster) -> Facts:
    values = {
        "cluster": cluster.name,
        "resource group": cluster.group,
        "location": cluster.location,
        "state": cluster.state,
        "version": cluster.version,
        "id": cluster.id,
    }
    return Facts(values, ids=[cluster.id])
