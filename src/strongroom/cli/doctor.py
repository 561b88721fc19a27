"""`strongroom doctor`: looks at everything that a backup depends on, and names what is broken with what mends it."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from strongroom.cli.findings import Finding, show
from strongroom.cli.options import ClusterOptions, duration_seconds
from strongroom.cli.output import DEFAULT_OUTPUT, Output
from strongroom.cli.progress import progress
from strongroom.cli.protection import DEFAULT_VAULT, VaultOptions
from strongroom.cli.server import DEFAULT_SERVER, ServerOptions
from strongroom.errors import ExitCode, UsageError

_URL_HELP = "A repository to look at beside the cluster. Something small is written and deleted: is the store safe?"
_KUBECONFIG_HELP = "Look at this cluster, without any service."


def doctor(
    *,
    kubeconfig: Annotated[Path | None, Parameter(metavar="FILE", help=_KUBECONFIG_HELP)] = None,
    context: Annotated[str | None, Parameter(show_default=False)] = None,
    repository: Annotated[str, Parameter(metavar="URL", show_default=False, help=_URL_HELP)] = "",
    key_file: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    max_age: Annotated[str, Parameter(metavar="DURATION")] = "1d",
    instance: Annotated[str, Parameter(metavar="NAME", show_default=False)] = "",
    vault: VaultOptions = DEFAULT_VAULT,
    server: ServerOptions = DEFAULT_SERVER,
    output: Output = DEFAULT_OUTPUT,
) -> ExitCode:
    """Look whether backups can be made: of a control plane and all that it protects, or of a bare kubeconfig.

    Exit code 0 if all is well, 3 with warnings, 1 if something is broken.

    Parameters
    ----------
    context
        A context of the kubeconfig. Unsaid: its current one.
    key_file
        The repository's key file. Unsaid: as for `repository check`.
    max_age
        How old the newest recovery point of the repository may be (5s, 30m, 12h, 7d).
    instance
        Only this backup instance of the vault. Unsaid: all.
    """
    now = datetime.now(UTC)
    if kubeconfig is not None or context is not None or repository:
        if instance or vault != DEFAULT_VAULT or server != DEFAULT_SERVER:
            raise UsageError(
                "either a service or a kubeconfig is looked at",
                hint="Leave out --kubeconfig, --context and --repository, or all that names the service",
            )
        from strongroom.cli.doctor_cluster import check_cluster  # needs the data plane, which the service does not

        options = ClusterOptions(kubeconfig=kubeconfig, context=context)
        age = duration_seconds("--max-age", max_age)
        return show(output, asyncio.run(check_cluster(options, repository, key_file, age, now)))
    from strongroom.cli.doctor_service import check_service
    from strongroom.client.readyfile import ReadyFile

    ready = ReadyFile.read(server.ready_file)
    findings: list[Finding] = []
    with server.session() as session, progress(output) as bar:
        for finding in check_service(ready, session, vault, instance, now):
            findings.append(finding)
            bar.report("asking the service", len(findings), unit="checks")
    return show(output, findings)
