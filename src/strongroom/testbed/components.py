"""Writes down how each program of the test cluster is started. Pure: paths, ports and options in, command lines out."""

from dataclasses import dataclass

from strongroom.testbed.binaries import STAGES, Binaries
from strongroom.testbed.layout import CSI_SOCKET, Layout
from strongroom.testbed.options import Level, TestbedOptions

ETCD = "etcd"
ETCD_OVERRIDES = "etcd-overrides"
APISERVER = "kube-apiserver"
CONTROLLER_MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
KWOK = "kwok"
DRIVER = "folderdriver"
SNAPSHOTTER = "csi-snapshotter"
SNAPSHOT_CONTROLLER = "snapshot-controller"

CAPSULE = "capsule"
FORWARDER = "forwarder"
CONTAINERD = "containerd"
KUBELET = "kubelet"
KUBE_PROXY = "kube-proxy"

STORES = (ETCD, ETCD_OVERRIDES)
VOLUME_COMPONENTS = (DRIVER, SNAPSHOTTER, SNAPSHOT_CONTROLLER)

DRIVER_NAME = "folder.csi.strongroom.test"
NODE_NAME = "node-0"
NODE_ADDRESS = "10.99.0.1"
"""Of a real node; pods find there what `Testbed.expose` names."""

KUBELET_ROOT = "/var/lib/kubelet"
"""As seen in the capsule."""

SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ADDRESS = "10.96.0.1"  # the first of the range: the Service `kubernetes`
_POD_RANGE = "10.128.0.1/12"  # KWOK's default of 254 addresses is fewer than the pods of a benchmark

_ETCD_QUOTA_BYTES = 8 * 1024**3  # benchmarks hold 5,000 Secrets of 1 MB several times over; the default is 2 GiB
# Nodes become and stay ready; pods run at once, those of a Job complete, deleted ones end.
_STAGES = (
    "node/fast/node-initialize",
    "node/heartbeat-with-lease/node-heartbeat-with-lease",
    "pod/fast/pod-ready",
    "pod/fast/pod-complete",
    "pod/fast/pod-delete",
)
_HEARTBEAT_SECONDS = 40  # of KWOK's node leases, as a kubelet has it

# Nobody shares the API server with the controllers, and tests wait for them. Client defaults are 20 and 5 a second.
FAST_CLIENT = ("--kube-api-qps=500", "--kube-api-burst=1000")


@dataclass(frozen=True, slots=True)
class Setting:
    """What the command lines depend on."""

    layout: Layout
    ports: dict[str, int]
    options: TestbedOptions
    binaries: Binaries

    @property
    def csi_socket(self) -> str:
        """Where the CSI driver listens."""
        return f"{KUBELET_ROOT}/plugins/{DRIVER_NAME}/csi.sock" if self.options.level is Level.NODE else CSI_SOCKET


def component_names(options: TestbedOptions) -> tuple[str, ...]:
    """Return the programs of a cluster, in the order in which they start."""
    real = options.level is Level.NODE
    names = [CAPSULE, FORWARDER, CONTAINERD] if real else []
    names += [ETCD, *([ETCD_OVERRIDES] if options.etcd_servers_overrides else []), APISERVER]
    names += [CONTROLLER_MANAGER, SCHEDULER, *([KUBELET, KUBE_PROXY] if real else [KWOK])]
    return (*names, *(VOLUME_COMPONENTS if options.volumes else ()))


def command(name: str, setting: Setting) -> list[str]:
    """Return the command line of the program *name*. It runs in the cluster's folder."""
    builders = {
        ETCD: lambda: _etcd(setting, ETCD, "etcd"),
        ETCD_OVERRIDES: lambda: _etcd(setting, ETCD_OVERRIDES, "overrides"),
        APISERVER: lambda: _apiserver(setting),
        CONTROLLER_MANAGER: lambda: _controller_manager(setting),
        SCHEDULER: lambda: _scheduler(setting),
        KWOK: lambda: _kwok(setting),
        DRIVER: lambda: _driver(setting),
        SNAPSHOTTER: lambda: _snapshotter(setting),
        SNAPSHOT_CONTROLLER: lambda: _snapshot_controller(setting),
    }
    return builders[name]()


def _etcd(setting: Setting, name: str, port: str) -> list[str]:
    pki, ports = setting.layout.pki, setting.ports
    clients, peers = (f"https://127.0.0.1:{ports[key]}" for key in (port, f"{port}-peer"))
    return [
        setting.binaries[ETCD],
        f"--name={name}",
        f"--data-dir={setting.layout.etcd / name}",
        f"--listen-client-urls={clients}",
        f"--advertise-client-urls={clients}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster={name}={peers}",
        f"--cert-file={pki}/etcd.crt",
        f"--key-file={pki}/etcd.key",
        f"--trusted-ca-file={pki}/etcd-ca.crt",
        "--client-cert-auth",
        f"--peer-cert-file={pki}/etcd.crt",
        f"--peer-key-file={pki}/etcd.key",
        f"--peer-trusted-ca-file={pki}/etcd-ca.crt",
        "--peer-client-cert-auth",
        f"--quota-backend-bytes={_ETCD_QUOTA_BYTES}",
        "--unsafe-no-fsync",  # a test cluster need not outlive a power cut, and a disk's fsync would set its pace
        "--log-level=warn",
    ]


def _apiserver(setting: Setting) -> list[str]:
    layout, ports, options = setting.layout, setting.ports, setting.options
    pki = layout.pki
    line = [
        setting.binaries[APISERVER],
        *_apiserver_network(setting),
        f"--secure-port={ports['apiserver']}",
        f"--etcd-servers=https://127.0.0.1:{ports['etcd']}",
        f"--etcd-cafile={pki}/etcd-ca.crt",
        f"--etcd-certfile={pki}/etcd-client.crt",
        f"--etcd-keyfile={pki}/etcd-client.key",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/service-account.pub",
        f"--service-account-signing-key-file={pki}/service-account.key",
        f"--requestheader-client-ca-file={pki}/front-proxy-ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
    ]
    if options.etcd_servers_overrides:
        second = f"https://127.0.0.1:{ports['overrides']}"
        line.append(
            "--etcd-servers-overrides=" + ",".join(f"{name}#{second}" for name in options.etcd_servers_overrides)
        )
    if options.etcd_compaction_interval is not None:
        line.append(f"--etcd-compaction-interval={options.etcd_compaction_interval}")
    if options.min_request_timeout_s is not None:
        line.append(f"--min-request-timeout={options.min_request_timeout_s}")
    if options.audit:
        line += [f"--audit-policy-file={layout.root}/audit-policy.json", f"--audit-log-path={layout.audit_log}"]
        line += ["--audit-log-mode=blocking"]  # a test reads a request's line as soon as it has the answer
    return [*line, *options.apiserver_flags]


def _apiserver_network(setting: Setting) -> list[str]:
    if setting.options.level is not Level.NODE:
        # No Endpoints may have a loopback address; the other reconcilers refuse to start.
        return ["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none"]
    pki = setting.layout.pki
    return [
        f"--advertise-address={NODE_ADDRESS}",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--enable-admission-plugins=NodeRestriction",
    ]


def _serving(setting: Setting, port: str) -> list[str]:
    pki = setting.layout.pki
    return [
        "--bind-address=127.0.0.1",
        f"--secure-port={setting.ports[port]}",
        f"--tls-cert-file={pki}/component.crt",
        f"--tls-private-key-file={pki}/component.key",
    ]


def _controller_manager(setting: Setting) -> list[str]:
    pki = setting.layout.pki
    return [
        setting.binaries[CONTROLLER_MANAGER],
        f"--kubeconfig={pki}/controller-manager.kubeconfig",
        *_serving(setting, "controller-manager"),
        *FAST_CLIENT,
        "--leader-elect=false",
        "--controllers=*",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki}/service-account.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
    ]


def _scheduler(setting: Setting) -> list[str]:
    return [
        setting.binaries[SCHEDULER],
        f"--kubeconfig={setting.layout.pki}/scheduler.kubeconfig",
        *_serving(setting, "scheduler"),
        *FAST_CLIENT,
        "--leader-elect=false",
    ]


def _kwok(setting: Setting) -> list[str]:
    stages = setting.binaries[STAGES]
    return [
        setting.binaries[KWOK],
        f"--kubeconfig={setting.layout.pki}/kwok.kubeconfig",
        "--manage-all-nodes",
        f"--node-lease-duration-seconds={_HEARTBEAT_SECONDS}",
        f"--cidr={_POD_RANGE}",
        "--node-ip=127.0.0.1",
        *(f"--config={stages}/{name}.yaml" for name in _STAGES),
    ]


def _driver(setting: Setting) -> list[str]:
    real = setting.options.level is Level.NODE
    return [
        setting.binaries[DRIVER],
        f"-name={DRIVER_NAME}",
        f"-node={NODE_NAME}",
        f"-data={setting.layout.volumes}",
        f"-socket={setting.csi_socket}",
        f"-kubeconfig={setting.layout.pki}/storage.kubeconfig",
        *([f"-registration={KUBELET_ROOT}/plugins_registry/{DRIVER_NAME}-reg.sock"] if real else []),
    ]


def _snapshotter(setting: Setting) -> list[str]:
    return [
        setting.binaries[SNAPSHOTTER],
        f"--kubeconfig={setting.layout.pki}/storage.kubeconfig",
        f"--csi-address={setting.csi_socket}",
        *FAST_CLIENT,
        "--retry-interval-start=100ms",  # of a snapshot that is not ready yet
        "--retry-interval-max=2s",
    ]


def _snapshot_controller(setting: Setting) -> list[str]:
    return [
        setting.binaries[SNAPSHOT_CONTROLLER],
        f"--kubeconfig={setting.layout.pki}/storage.kubeconfig",
        *FAST_CLIENT,
        "--retry-interval-start=100ms",
        "--retry-interval-max=2s",
    ]
