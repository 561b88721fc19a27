"""Makes the Helm chart's templates and the plain manifests of `deploy/` from the objects that the code knows.

`python -m strongroom.controlplane.clusters.packaging deploy` writes them. A template is the object itself with the
values that a user may choose replaced by Helm's expressions. So chart, manifests and what a control plane installs
cannot drift apart; `tests/integration/test_chart.py` compares them as rendered.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from strongroom.controlplane.clusters import manifests, workload
from strongroom.controlplane.clusters.manifests import NAMESPACE, Object
from strongroom.controlplane.clusters.workload import Workload
from strongroom.extension.api import definitions

CHART: Final = "chart/strongroom-extension"
MANIFESTS: Final = "manifests/strongroom-extension.yaml"
LOCATIONS: Final = ("main",)
"""Of which storage locations the extension may read the Secrets if the user says nothing."""

_MADE: Final = "Made by `python -m strongroom.controlplane.clusters.packaging deploy`."
_MARK: Final = re.compile(r"""(['"]?)@@(.+?)@@\1""")


def documents(
    chosen: Workload,
    *,
    locations: tuple[str, ...] = LOCATIONS,
    hook_namespaces: tuple[str, ...] = (),
    restore: bool = False,
    account_annotations: Mapping[str, str] | None = None,
    network_policy: bool = True,
) -> list[Object]:
    """Return all objects of an installation besides its namespace and the definitions, as the chart renders them."""
    account, *own = manifests.extension(locations, listed=False)
    account["metadata"]["annotations"] = dict(account_annotations or {})
    return [
        account,
        *own,
        *manifests.cluster_roles(),
        *manifests.extension_cluster_bindings(),
        *([manifests.restore_binding()] if restore else []),
        *(manifests.hooks_binding(place) for place in hook_namespaces),
        workload.deployment(chosen),
        workload.service(),
        *([workload.network_policy(chosen)] if network_policy else []),
    ]


def files() -> dict[str, str]:
    """Return the content of each generated file by its path below `deploy/`."""
    plain = [manifests.namespace(), *documents(Workload())]
    return {
        MANIFESTS: f"# {_MADE}\n{_yaml(plain)}",
        f"{CHART}/templates/access.yaml": _head() + _access(),
        f"{CHART}/templates/workload.yaml": _head() + _workload(),
        **{f"{CHART}/crds/{name}": content for name, content in definitions.files().items()},
    }


def _access() -> str:
    account, role, binding = manifests.extension((), listed=False)
    account["metadata"]["annotations"] = _value("serviceAccount.annotations")
    parts = [_yaml([account]), _yaml([role]) + _LOCATIONS_RULE]
    parts += [_yaml([each]) for each in (binding, *manifests.cluster_roles(), *manifests.extension_cluster_bindings())]
    parts.append(f"{{{{- if .Values.restore.enabled }}}}\n{_yaml([manifests.restore_binding()])}{{{{- end }}}}\n")
    hooks = _yaml([manifests.hooks_binding("@@.@@")])
    parts.append(f"{{{{- range .Values.hooks.namespaces }}}}\n{hooks}{{{{- end }}}}\n")
    return "".join(parts)


# Without a name the rule would count for every Secret.
_LOCATIONS_RULE: Final = """\
{{- with .Values.storageLocations }}
- apiGroups:
  - ''
  resources:
  - secrets
  verbs:
  - get
  resourceNames:
{{- range . }}
  - {{ printf "storage-%s" . | toJson }}
{{- end }}
{{- end }}
"""


def _workload() -> str:
    made = workload.deployment(Workload())
    template = made["spec"]["template"]
    own_labels = json.dumps(template["metadata"]["labels"])
    template["metadata"]["labels"] = f"@@merge (fromJson `{own_labels}`) .Values.podLabels | toJson@@"
    template["metadata"]["annotations"] = _value("podAnnotations")
    pod = template["spec"]
    (container,) = pod["containers"]
    own_variables = json.dumps(container["env"])
    container["env"] = f"@@concat (fromJsonArray `{own_variables}`) .Values.extraEnv | toJson@@"
    for key in ("image", "imagePullPolicy", "resources"):
        container[key] = _value(key)
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity"):
        pod[key] = _value(key)
    policy = workload.network_policy(Workload())
    policy["spec"]["egress"] = _value("networkPolicy.egress")
    wanted = f"{{{{- if .Values.networkPolicy.enabled }}}}\n{_yaml([policy])}{{{{- end }}}}\n"
    return _yaml([made]) + _yaml([workload.service()]) + wanted


def _head() -> str:
    refused = f'{{{{- fail "the extension works in the namespace {NAMESPACE} alone: install with -n {NAMESPACE}" }}}}'
    return f'{{{{- /* {_MADE} */ -}}}}\n{{{{- if ne .Release.Namespace "{NAMESPACE}" }}}}{refused}{{{{ end }}}}\n'


def _value(path: str) -> str:
    """Return a mark in the place of what Helm is to put there. JSON is YAML, and quotes what has to be quoted."""
    return f"@@.Values.{path} | toJson@@"


def _yaml(parts: Iterable[Object]) -> str:
    """Return the objects as YAML documents, with marks as Helm's expressions."""
    text = "".join(f"---\n{_dump(part)}" for part in parts)
    return _MARK.sub(lambda mark: f"{{{{ {mark[2]} }}}}", text)


def _dump(document: Any) -> str:
    # Never wrapped: a mark has to stay on its line.
    text: str = yaml.dump(document, Dumper=definitions.PlainDumper, sort_keys=False, width=10**6)
    return text


if __name__ == "__main__":
    for name, content in files().items():
        path = Path(sys.argv[1]) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
