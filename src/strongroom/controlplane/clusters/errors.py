"""What can go wrong between the control plane and a cluster, grouped by what its user should do next.

Nobody above this component knows the Kubernetes API: its errors become these in `translated`, with their cause chained.
"""

import contextlib
from collections.abc import Iterator, Sequence

from strongroom.dataplane.kube.errors import (
    KubeAddressRefused,
    KubeconfigInvalid,
    KubeError,
    KubeForbidden,
    KubeServerError,
    KubeTooManyRequests,
    KubeUnauthorized,
    KubeUnreachable,
)
from strongroom.errors import ExitCode, StrongroomError


class ClusterError(StrongroomError):
    """Something in or on the way to a cluster failed, and none of the reasons below."""


class KubeconfigRefused(ClusterError):
    """The kubeconfig holds something that the server does not take from a user.

    *field* is the path of it (`users[admin].user.exec`), *found* what stands there, never a secret; *accepted* what
    may stand there, as a sentence without its stop.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, field: str, found: str, accepted: str) -> None:
        at = f"{field} of the kubeconfig" if field else "the kubeconfig"
        super().__init__(f"{at} is not accepted: {found}", hint=accepted)
        self.field = field
        self.found = found
        self.accepted = accepted


class ClusterUnreachable(ClusterError):
    """The API server gave no answer, or was too busy or broken for one; the same call may succeed later."""

    exit_code = ExitCode.UNREACHABLE


class ClusterUnauthorized(ClusterError):
    """The API server does not know the credential (401): it is wrong, has run out or was revoked."""

    exit_code = ExitCode.UNREACHABLE


class ClusterForbidden(ClusterError):
    """The credential is good and may not do what is needed. *missing* lists it as `verb resource [in namespace]`."""

    exit_code = ExitCode.UNREACHABLE

    def __init__(self, message: str, *, missing: Sequence[str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.missing = tuple(missing)


class ClusterOwned(ClusterError):
    """The namespace, a CRD or a role under a name of ours belongs to somebody else; nothing of it was touched."""

    def __init__(self, message: str, *, owned: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.owned = owned


class ConnectorUnfit(ClusterError):
    """The connector's token does not come, does not work, or may do more than ask for tokens."""


class ExtensionNotInstalled(ClusterError):
    """The cluster has no extension of ours."""


class ExtensionUnhealthy(ClusterError):
    """The extension gives no sign of life, or is killed by what it is at."""

    code = "UserErrorKubernetesBackupExtensionUnhealthy"  # Azure's, as `ErrorCode` has it


class TrustedAccessRefused(ClusterError):
    """The cluster does not let the vault in: its account or its rights are not there any more."""

    code = "UserErrorTrustedAccessGatewayReturnedForbidden"  # Azure's for a vault without trusted access


class DocumentTaken(ClusterError):
    """A custom resource of this name is there, and says something else."""


class DocumentGone(ClusterError):
    """A custom resource was deleted, and not by us."""


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn a `KubeError` of the block into a `ClusterError` that says *what* was being done ("install the …")."""
    try:
        yield
    except KubeUnauthorized as error:
        message = f"could not {what}: the API server does not accept the credential"
        raise ClusterUnauthorized(
            message, hint="It may have run out or been revoked: connect the cluster again"
        ) from error
    except KubeForbidden as error:
        missing = f"{error.verb} {error.resource or error.path}"
        message = f"could not {what}: {_said(error)}"
        raise ClusterForbidden(
            message, missing=[missing], hint="Connect the cluster again as a cluster administrator"
        ) from error
    except (KubeUnreachable, KubeTooManyRequests, KubeServerError) as error:
        raise ClusterUnreachable(f"could not {what}: {_said(error)}", hint=error.hint) from error
    except KubeAddressRefused as error:
        raise KubeconfigRefused("cluster.server", error.message, "An address that the server may connect to") from error
    except KubeconfigInvalid as error:
        raise KubeconfigRefused(error.field, error.message, "A certificate, key or address that can be used") from error
    except KubeError as error:
        raise ClusterError(f"could not {what}: {_said(error)}", hint=error.hint) from error


def _said(error: KubeError) -> str:
    """Return what may be told of an answer: the words of a Kubernetes API server, and of no other server.

    A user chooses the address. The page that some other server behind it answers with is not for him to read.
    """
    if error.status is None or error.reason:
        return error.detail or error.message
    return f"HTTP {error.status} came without a Kubernetes Status: is it a Kubernetes API server?"
