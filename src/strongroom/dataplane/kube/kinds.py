"""A kind that an API server serves, and the paths under which its objects stand."""

from dataclasses import dataclass, field
from urllib.parse import quote

# RBAC names (`system:node`) and others stand in a path segment as they are: RFC 3986 pchar without "%" and "/".
_PATH_SAFE = ":@!$&'()*+,;="


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """One served kind in one version of its group.

    *group* is empty for the core group. Two kinds are equal, hash and sort by group, version, kind, plural and
    scope; what else the server says of them (*verbs*, *short_names*, …) does not count. *subresources* are the
    names alone (`status`, `scale`).
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: frozenset[str] = field(compare=False)
    short_names: tuple[str, ...] = field(default=(), compare=False)
    singular: str = field(default="", compare=False)
    categories: tuple[str, ...] = field(default=(), compare=False)
    subresources: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """The kind with its group, without a version: `Secret`, `Deployment.apps`."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def resource(self) -> str:
        """The plural with its group, as RBAC and kubectl name it: `secrets`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the path of all objects, of those in *namespace*, or of the one called *name*.

        Segments are percent-encoded. Raises `ValueError` for a namespace of a cluster-scoped kind, for one object of
        a namespaced kind without its namespace, and for a subresource without a name: each would address something
        else than was meant.
        """
        if namespace is not None and not self.namespaced:
            raise ValueError(f"{self.name} is cluster-scoped: no namespace {namespace!r}")
        if name is not None and self.namespaced and namespace is None:
            raise ValueError(f"{self.name} is namespaced: {name!r} needs a namespace")
        if subresource is not None and name is None:
            raise ValueError(f"subresource {subresource!r} of {self.name} needs a name")
        for given in (namespace, name):
            if given in ("", ".", ".."):  # the last two would climb to another path; Kubernetes forbids them as names
                raise ValueError(f"{given!r} is no name for a {self.name} or its namespace")
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe=_PATH_SAFE)]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=_PATH_SAFE))
        if subresource is not None:
            parts.append(quote(subresource, safe=_PATH_SAFE + "/"))
        return "/".join(parts)
