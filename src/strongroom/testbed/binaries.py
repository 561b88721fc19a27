"""Finds the test cluster's programs, and builds those that are missing from pinned Go modules.

The modules lie in `go/`, a folder each; what is built from one goes into the cache, under the hash of all its files:
a changed version or source is another folder, so an old program is never taken for a new one. A program appears there
by rename when it is complete, so a build that was cut off goes on where it stopped.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from strongroom.testbed import debian
from strongroom.testbed.errors import BuildFailed
from strongroom.testbed.toolchain import go_command

Report = Callable[[str], None]
"""Takes a line about progress."""

KUBERNETES_VERSION = "v1.37.2"

_SOURCES = Path(__file__).parent / "go"
_REPORT_SECONDS = 10.0  # a build says that it lives this often
_ERROR_LINES = 25  # of a failed build; the first error of Go stands near the end


@dataclass(frozen=True, slots=True)
class Program:
    """A command of a Go module; *package* is what `go build` is told."""

    name: str
    package: str


@dataclass(frozen=True, slots=True)
class Files:
    """A folder of data files that a required module brings along, copied into the cache as *name*."""

    name: str
    module: str
    folder: str
    pattern: str


@dataclass(frozen=True, slots=True)
class GoModule:
    """A folder of `go/` (or an absolute one) with its pinned go.mod and go.sum, and what is made from it."""

    folder: str
    programs: tuple[Program, ...]
    files: tuple[Files, ...] = ()
    variables: Mapping[str, str] | None = None
    """String variables set at link time."""
    tags: tuple[str, ...] = ()
    """Build tags."""
    c_library: str | None = None
    """A Debian package with the headers and the static library of C code that is linked in; None for pure Go."""


_VERSION_PACKAGE = "k8s.io/component-base/version"
_KUBERNETES_VARIABLES = {
    # A build outside the project's own scripts calls itself v0.0.0-master, which clients refuse to speak to.
    f"{_VERSION_PACKAGE}.gitVersion": KUBERNETES_VERSION,
    f"{_VERSION_PACKAGE}.gitMajor": KUBERNETES_VERSION[1:].split(".")[0],
    f"{_VERSION_PACKAGE}.gitMinor": KUBERNETES_VERSION.split(".")[1],
    f"{_VERSION_PACKAGE}.gitTreeState": "clean",
    f"{_VERSION_PACKAGE}.gitCommit": KUBERNETES_VERSION,
    f"{_VERSION_PACKAGE}.buildDate": "1970-01-01T00:00:00Z",  # fixed: the same source gives the same bytes
}
_SNAPSHOTTER = "github.com/kubernetes-csi/external-snapshotter"

CRDS = "crds"
STAGES = "stages"
CSI_SANITY = "csi-sanity"
HELM = "helm"

MODULES = (
    GoModule(
        "kubernetes",
        tuple(
            Program(name, f"k8s.io/kubernetes/cmd/{name}")
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        ),
        variables=_KUBERNETES_VARIABLES,
    ),
    GoModule("etcd", (Program("etcd", "go.etcd.io/etcd/server/v3"),)),
    GoModule(
        "kwok",
        (Program("kwok", "sigs.k8s.io/kwok/cmd/kwok"),),
        (Files(STAGES, "sigs.k8s.io/kwok", "kustomize/stage", "**/*.yaml"),),
    ),
    GoModule("folderdriver", (Program("folderdriver", "."),)),
    GoModule(
        "snapshotter",
        tuple(Program(name, f"{_SNAPSHOTTER}/v8/cmd/{name}") for name in ("snapshot-controller", "csi-snapshotter")),
        (Files(CRDS, f"{_SNAPSHOTTER}/client/v8", "config/crd", "*snapshot*.yaml"),),
    ),
)

NFTABLES = "nftables"
BUSYBOX = "busybox"
_CNI_PLUGINS = "github.com/containernetworking/plugins/plugins"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"

NODE_MODULES = (
    GoModule(
        "kubelet",
        tuple(Program(name, f"k8s.io/kubernetes/cmd/{name}") for name in ("kubelet", "kube-proxy")),
        variables=_KUBERNETES_VARIABLES,
    ),
    GoModule(
        "containerd",
        tuple(Program(name, f"{_CONTAINERD}/{name}") for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        tags=("no_btrfs", "no_devmapper", "no_zfs"),  # snapshotters that a test cluster has no use for
    ),
    GoModule(
        "cniplugins",
        (
            Program("bridge", f"{_CNI_PLUGINS}/main/bridge"),
            Program("loopback", f"{_CNI_PLUGINS}/main/loopback"),
            Program("host-local", f"{_CNI_PLUGINS}/ipam/host-local"),
        ),
    ),
    GoModule(
        "runc",
        (Program("runc", "github.com/opencontainers/runc"),),
        tags=("netgo", "osusergo", "seccomp"),
        c_library="libseccomp-dev",
    ),
    GoModule("pause", (Program("pause", "."),)),
)
"""What a real node is made of, besides `MODULES`; built when the level `node` is asked for."""

_NFTABLES_PACKAGES = ("nftables", "libnftables1", "libnftnl11", "libmnl0", "libjansson4", "libxtables12", "libedit2")

TEST_MODULES = (
    GoModule("folderdriver", (Program(CSI_SANITY, "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"),)),
    GoModule(HELM, (Program(HELM, "helm.sh/helm/v4/cmd/helm"),)),
)
"""What only Strongroom's own tests need; built when they ask for it."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where each program and each folder of files lies, by name."""

    paths: Mapping[str, Path]

    def __getitem__(self, name: str) -> str:
        return str(self.paths[name])


def cache_folder() -> Path:
    """Return the folder of everything that is made once: `STRONGROOM_CACHE`, else one in the user's cache."""
    if given := os.environ.get("STRONGROOM_CACHE"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "strongroom"


def locate(report: Report, modules: Iterable[GoModule] = MODULES) -> Binaries:
    """Return all that *modules* make, building what is neither in a folder that the user named nor in the cache.

    Folders named: `STRONGROOM_TESTBED_BIN`, then `KUBEBUILDER_ASSETS`. Raises `BuildFailed`.
    """
    named = [Path(value) for key in ("STRONGROOM_TESTBED_BIN", "KUBEBUILDER_ASSETS") if (value := os.environ.get(key))]
    paths: dict[str, Path] = {}
    missing: list[tuple[GoModule, Program | Files, Path]] = []
    for module in modules:
        built = cache_folder() / "bin" / f"{Path(module.folder).name}-{_content_hash(module)}"
        parts: tuple[Program | Files, ...] = (*module.programs, *module.files)
        for part in parts:
            candidates = [folder / part.name for folder in (*named, built)]
            found = next((path for path in candidates if path.exists()), None)
            paths[part.name] = found or built / part.name
            if found is None:
                missing.append((module, part, built))
    for position, (module, part, built) in enumerate(missing, start=1):
        _make(module, part, built, f"{position}/{len(missing)} {part.name}", report)
    return Binaries(paths)


def locate_test_program(name: str, report: Report) -> str:
    """Return where a program of `TEST_MODULES` lies, building it alone if it is missing. Raises `BuildFailed`."""
    modules = [module for module in TEST_MODULES if name in {program.name for program in module.programs}]
    return locate(report, modules)[name]


def locate_node(report: Report) -> Binaries:
    """Return what a cluster with a real node is made of, building what is missing; `nftables` is a folder of packages.

    Raises `BuildFailed`.
    """
    made = locate(report, (*MODULES, *NODE_MODULES))
    nftables = debian.unpacked(_NFTABLES_PACKAGES, cache_folder(), report)
    busybox = debian.unpacked(("busybox-static",), cache_folder(), report) / "bin" / "busybox"
    return Binaries({**made.paths, NFTABLES: nftables, BUSYBOX: busybox})


def _content_hash(module: GoModule) -> str:
    settings = f"{platform.machine()} {sorted((module.variables or {}).items())}"
    if module.tags or module.c_library:
        settings += f" {module.tags} {module.c_library}"
    digest = hashlib.sha256(settings.encode())
    folder = _SOURCES / module.folder
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder)} {content}\n".encode())
    return digest.hexdigest()[:16]


def _make(module: GoModule, part: Program | Files, built: Path, title: str, report: Report) -> None:
    built.mkdir(parents=True, exist_ok=True)
    with _locked(built.with_suffix(".lock"), lambda: report(f"{title}: waiting for another build")):
        if (built / part.name).exists():
            return
        unfinished = built / f".{part.name}.part"
        match part:
            case Program():
                _build(module, part, unfinished, title, report)
            case Files():
                _copy_files(module, part, unfinished, report)
        unfinished.rename(built / part.name)


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock *path*, which the system lets go when its holder dies; calls *waiting* if another holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _go_environment(c_library: Path | None = None) -> dict[str, str]:
    # The modules are complete in themselves: no workspace above them, no other toolchain, and no C but what is named.
    environment = {
        **os.environ,
        "CGO_ENABLED": "0" if c_library is None else "1",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
    }
    if c_library is not None:
        libraries = [str(folder) for folder in debian.library_folders(c_library)]
        environment["PKG_CONFIG_PATH"] = os.pathsep.join(f"{folder}/pkgconfig" for folder in libraries)
        environment["CGO_CFLAGS"] = f"-I{c_library}/usr/include"
        environment["CGO_LDFLAGS"] = " ".join(f"-L{folder}" for folder in libraries)
    return environment


def _build(module: GoModule, program: Program, target: Path, title: str, report: Report) -> None:
    report(f"{title}: building")
    started = last = time.monotonic()
    variables = "".join(f" -X {name}={value}" for name, value in (module.variables or {}).items())
    c_library = None
    if module.c_library is not None:
        c_library = debian.unpacked((module.c_library,), cache_folder(), report)
        variables += " -extldflags -static"  # it runs on nodes, which have no such library
    command = [
        go_command(cache_folder(), report),
        "build",
        "-v",
        "-trimpath",
        "-tags",
        ",".join(module.tags),
        "-ldflags",
        f"-s -w{variables}",
        "-o",
        str(target),
    ]
    with subprocess.Popen(
        [*command, program.package],
        cwd=_SOURCES / module.folder,
        env=_go_environment(c_library),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        tail: deque[str] = deque(maxlen=_ERROR_LINES)
        compiled = 0
        try:
            for line in process.stdout or ():
                tail.append(line)
                compiled += not line.startswith("go: ")  # -v names each package; downloads are "go: downloading …"
                if time.monotonic() - last > _REPORT_SECONDS:
                    last = time.monotonic()
                    report(f"{title}: {compiled} packages compiled, {last - started:.0f} s")
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        message = f"go build {program.package} ended with {process.returncode}:\n{''.join(tail).rstrip()}"
        raise BuildFailed(
            message, hint="Check that the Go module proxy is reachable (GOPROXY); what is built so far is kept."
        )
    report(f"{title}: built in {time.monotonic() - started:.0f} s")


def _copy_files(module: GoModule, files: Files, target: Path, report: Report) -> None:
    go = go_command(cache_folder(), report)
    for arguments in (["mod", "download", files.module], ["list", "-m", "-f", "{{.Dir}}", files.module]):
        done = subprocess.run(
            [go, *arguments],
            cwd=_SOURCES / module.folder,
            env=_go_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BuildFailed(f"go {' '.join(arguments)}: {done.stderr.strip()}", hint="Check GOPROXY.")
    source = Path(done.stdout.strip()) / files.folder
    shutil.rmtree(target, ignore_errors=True)
    for path in source.glob(files.pattern):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())  # not the mode: the module cache is read-only
    if not target.is_dir():
        raise BuildFailed(f"{files.module} has no {files.folder}/{files.pattern}", hint="Its pinned version is wrong.")
