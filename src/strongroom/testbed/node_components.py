"""Writes down how the programs of a real node are started and configured.

And how to tell that they do their work.
"""

import http
import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strongroom.testbed import components
from strongroom.testbed.access import PROBE_SECONDS
from strongroom.testbed.binaries import NFTABLES, Binaries
from strongroom.testbed.capsule import Capsule
from strongroom.testbed.components import Setting
from strongroom.testbed.debian import library_folders
from strongroom.testbed.forwarding import to_capsule
from strongroom.testbed.images import PAUSE
from strongroom.testbed.layout import Layout

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"

# What runs in the capsule listens on the same ports as it would outside: one kubeconfig serves on both sides.
_FORWARDED = ("apiserver", "etcd", "scheduler", "kubelet-health", "proxy-health")

_POD_RANGE = "10.88.0.0/16"
# Found on the path: by containerd its shim and runc, by the shim runc, by kube-proxy nft. CNI looks in this folder.
_ON_PATH = ("containerd-shim-runc-v2", "runc", "bridge", "loopback", "host-local")


def command(name: str, setting: Setting) -> list[str]:
    """Return the command line of the program *name* of a cluster of either level."""
    node = setting.layout.node
    match name:
        case components.CAPSULE:
            return Capsule(setting.layout).command()
        case components.FORWARDER:
            return to_capsule(setting.layout, forwarded_ports(setting))
        case components.CONTAINERD:
            return [setting.binaries[name], f"--config={node}/containerd.toml"]
        case components.KUBELET:
            return [
                setting.binaries[name],
                f"--config={node}/kubelet.json",
                f"--kubeconfig={setting.layout.pki}/kubelet.kubeconfig",
                f"--hostname-override={components.NODE_NAME}",
                f"--node-ip={components.NODE_ADDRESS}",
            ]
        case components.KUBE_PROXY:
            return [setting.binaries[name], f"--config={node}/kube-proxy.json"]
        case _:
            return components.command(name, setting)


def containerd_answers(layout: Layout) -> bool:
    """Tell whether containerd takes connections; it listens when all of its parts are there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(Capsule(layout).outside(CONTAINERD_SOCKET))
        except OSError:
            return False
    return True


def load_image(setting: Setting, archive: Path, environment: Mapping[str, str]) -> None:
    """Give containerd the images of *archive*. Raises `ComponentFailed`."""
    line = [setting.binaries["ctr"], "--namespace=k8s.io", "images", "import", str(archive)]
    Capsule(setting.layout).run(line, environment)


def healthy(port: int) -> bool:
    """Tell whether a program says on *port* of loopback that it is healthy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def forwarded_ports(setting: Setting) -> list[int]:
    """Return the ports of the capsule's loopback that the machine's leads to."""
    names = [*_FORWARDED, *(["overrides"] if setting.options.etcd_servers_overrides else [])]
    return [setting.ports[name] for name in names]


def write_files(setting: Setting) -> None:
    """Write the node's configuration, and the folder of programs that its own find on their path."""
    layout = setting.layout
    layout.make_node()
    (layout.node / "containerd.toml").write_text(_containerd(layout))
    (layout.node_network / "10-pods.conflist").write_text(json.dumps(_NETWORK, indent=2))
    (layout.node / "kubelet.json").write_text(json.dumps(_kubelet(setting), indent=2))
    (layout.node / "kube-proxy.json").write_text(json.dumps(_kube_proxy(setting), indent=2))
    for folder in ("plugins_registry", f"plugins/{components.DRIVER_NAME}"):
        (layout.node_state / "kubelet" / folder).mkdir(parents=True, exist_ok=True)
    for name in _ON_PATH:
        link = layout.node_programs / name
        link.unlink(missing_ok=True)
        link.symlink_to(setting.binaries[name])
    nft = layout.node_programs / "nft"
    nft.write_text(_nft(setting.binaries))
    nft.chmod(0o755)


def _nft(binaries: Binaries) -> str:
    root = Path(binaries[NFTABLES])
    libraries = os.pathsep.join(str(folder) for folder in library_folders(root))
    # The libraries are for nft alone: in the environment of kube-proxy they would reach whatever it starts.
    return f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{root}/usr/sbin/nft" "$@"\n'


def _containerd(layout: Layout) -> str:
    def quoted(value: object) -> str:
        return json.dumps(str(value))  # a TOML basic string

    # restrict_oom_score_adj: without the capability SYS_RESOURCE (in most containers) no sandbox would start.
    return f"""version = 3
disabled_plugins = ["io.containerd.nri.v1.nri"]
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {quoted(PAUSE)}
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = [{quoted(layout.node_programs)}]
    conf_dir = {quoted(layout.node_network)}
"""


# Pods reach each other, the node and Services. There is no way out, so no masquerading either.
_NETWORK = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": False,
            "hairpinMode": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": _POD_RANGE}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}


def _kubelet(setting: Setting) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,  # by default 1.37 refuses machines with cgroup v1
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{Capsule(setting.layout).group}",
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "readOnlyPort": 0,
        "healthzPort": setting.ports["kubelet-health"],
        "failSwapOn": False,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{setting.layout.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "clusterDomain": "cluster.local",
        "clusterDNS": [components.NODE_ADDRESS],  # nobody answers there, which is known at once
        "resolvConf": "",
        "volumePluginDir": f"{components.KUBELET_ROOT}/volumeplugins",  # the default lies in /usr
        # A machine with a nearly full disk runs tests too; nothing is collected or evicted for it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }


def _kube_proxy(setting: Setting) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": f"{setting.layout.pki}/kube-proxy.kubeconfig"},
        "clusterCIDR": _POD_RANGE,
        "hostnameOverride": components.NODE_NAME,
        "healthzBindAddress": f"127.0.0.1:{setting.ports['proxy-health']}",
        "nodePortAddresses": ["primary"],
        # Zero leaves them as they are: some of these are the machine's, not the capsule's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
