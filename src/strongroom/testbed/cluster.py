"""Brings a test cluster up and down, and does to it what tests of a backup need done.

A cluster is a folder: programs, ports and options stand in its files, so any process may open it, ask for its status
or end it. Nothing of it survives `down`, whatever happened to whoever called `up`.
"""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Self

from strongroom.testbed import (
    capsule,
    certificates,
    cluster_folder,
    compaction,
    components,
    images,
    node_components,
    objects,
    processes,
)
from strongroom.testbed.access import TIMEOUT_SECONDS, Connection
from strongroom.testbed.binaries import CRDS, Binaries, Report, locate, locate_node
from strongroom.testbed.capsule import Capsule
from strongroom.testbed.errors import (
    ComponentFailed,
    NodeUnsupported,
    NoTestbed,
    ServerRefused,
    ServerUnreachable,
)
from strongroom.testbed.forwarding import from_capsule, listening
from strongroom.testbed.identities import make_identities
from strongroom.testbed.layout import Layout, State, free_ports, taken
from strongroom.testbed.options import Level, TestbedOptions
from strongroom.testbed.readiness import answers, condition, ready_checks

_READY_SECONDS = 90.0  # for each step; a loaded two-core machine needs up to a third of it
_POLL_SECONDS = 0.02
_LOG_TAIL_LINES = 20
_PORT_ATTEMPTS = 3  # another program may take a port between our choice and our use of it


@dataclass(frozen=True, slots=True)
class ComponentStatus:
    """A program of the cluster; *pid* is None while it does not run."""

    name: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class TestbedStatus:
    """What `Testbed.status` found. *ready*: every program runs and the API server says that it is ready."""

    __test__: ClassVar[bool] = False

    ready: bool
    server: str
    version: str
    components: tuple[ComponentStatus, ...]


class Testbed:
    """A running control plane with volumes, in a folder. Made by `Testbed.up` or `Testbed.open`.

    Not for two threads at once. Methods raise `TestbedError`s.
    """

    __test__: ClassVar[bool] = False

    def __init__(self, layout: Layout, state: State) -> None:
        self._layout = layout
        self._state = state

    # --- its life

    @classmethod
    def up(cls, folder: Path, options: TestbedOptions | None = None, report: Report = lambda _: None) -> Self:
        """Start a cluster in *folder* (absent or empty) and return when all of it is ready.

        Programs that are missing are built first, which takes minutes and is told through *report*. If a part fails,
        nothing is left, and `ComponentFailed` carries the tail of its log. Raises `TestbedExists`, `BuildFailed`, and
        `NodeUnsupported` where the options ask for a real node and none can run.
        """
        options = options or TestbedOptions()
        real = options.level is Level.NODE
        if real and (reason := capsule.unsupported()):
            raise NodeUnsupported(reason, hint="The level `control-plane` runs everywhere.")
        layout = Layout(folder.absolute())
        cluster_folder.claim(layout)
        with cluster_folder.locked(layout):
            try:
                binaries = locate_node(report) if real else locate(report)
                for attempt in range(_PORT_ATTEMPTS):
                    ports = free_ports()
                    state = State(options, ports, {name: str(path) for name, path in binaries.paths.items()})
                    testbed = cls(layout, state)
                    try:
                        testbed._make_files()
                        testbed._start_all(report)
                    except ComponentFailed:
                        testbed._end(testbed.component_names, kill=True)
                        if attempt + 1 == _PORT_ATTEMPTS or not taken(ports.values()):
                            raise
                        report("a port was taken by another program: trying others")
                        cluster_folder.clear(layout)
                    else:
                        return testbed
            except BaseException:
                cluster_folder.end_all(layout)
                shutil.rmtree(layout.root)
                raise
        raise AssertionError("the last attempt returned or raised")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Return the cluster that was brought up in *folder*, running or not. Raises `NoTestbed`."""
        layout = Layout(folder.absolute())
        try:
            return cls(layout, State.read(layout))
        except FileNotFoundError as error:
            message = f"{folder} holds no test cluster"
            raise NoTestbed(message, hint="Start one with `strongroom testbed up --dir`.") from error

    def down(self) -> None:
        """End every program and remove the folder."""
        type(self).remove(self._layout.root)

    @classmethod
    def remove(cls, folder: Path) -> bool:
        """End and remove what `up` made in *folder*, also where it was killed half-way; False if there is nothing.

        Raises `NoTestbed` for a folder that is none of ours, before anything is touched.
        """
        layout = Layout(folder.absolute())
        if not layout.root.exists():
            lost = processes.with_environment(cluster_folder.FOLDER_VARIABLE, str(layout.root))
            processes.end(lost, kill=True)
            Capsule(layout).clear()
            return bool(lost)
        if not layout.lock.exists():
            raise NoTestbed(f"{folder} holds no test cluster", hint="It was left as it is.")
        with cluster_folder.locked(layout):
            cluster_folder.end_all(layout)
            # The lock goes last: a removal that is cut off can be repeated.
            for path in layout.root.iterdir():
                if path != layout.lock:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.rmtree(layout.root)
        return True

    def status(self) -> TestbedStatus:
        """Return which programs run and whether the API server is ready."""
        found = []
        for name in self.component_names:
            process = processes.recorded(self._layout.record(name))
            found.append(ComponentStatus(name, process.pid if process and processes.running(process) else None))
        ready = all(component.pid is not None for component in found)
        ready = ready and answers(self._api(), "/readyz")
        return TestbedStatus(ready, self.server, self.version, tuple(found))

    # --- what it is

    @property
    def folder(self) -> Path:
        """Where the cluster lives."""
        return self._layout.root

    @property
    def options(self) -> TestbedOptions:
        """What `up` was asked for."""
        return self._state.options

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig of an administrator, with certificates inline."""
        return self._layout.kubeconfig

    @property
    def server(self) -> str:
        """URL of the API server."""
        return f"https://127.0.0.1:{self._state.ports['apiserver']}"

    @property
    def version(self) -> str:
        """Version of the API server, as `v1.37.2`."""
        return self._state.version

    @property
    def ca_file(self) -> Path:
        """Certificate of the authority that signed the API server's (PEM)."""
        return self._layout.pki / "ca.crt"

    @property
    def volumes(self) -> Path:
        """Folder in which the CSI driver keeps volumes and snapshots."""
        return self._layout.volumes

    @property
    def audit_log(self) -> Path:
        """Audit events, one JSON object a line; only with the option `audit`."""
        return self._layout.audit_log

    @property
    def component_names(self) -> tuple[str, ...]:
        """The programs of this cluster, in the order in which they start."""
        return components.component_names(self._state.options)

    def log(self, component: str) -> Path:
        """Return the log file of a program."""
        return self._layout.log(component)

    def pid(self, component: str) -> int | None:
        """Return the process number of a program, None while it does not run."""
        process = processes.recorded(self._layout.record(component))
        return process.pid if process and processes.running(process) else None

    def volume_path(self, volume_handle: str) -> Path:
        """Return the folder with the files of a volume (`spec.csi.volumeHandle` of its PV)."""
        return self._layout.volumes / "volumes" / volume_handle

    def snapshot_path(self, snapshot_handle: str) -> Path:
        """Return the folder with the files of a snapshot (`status.snapshotHandle` of its content)."""
        return self._layout.volumes / "snapshots" / snapshot_handle

    # --- what tests do with it

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl as administrator, or with *kubeconfig*, and return what it printed.

        Raises `ComponentFailed` with its error output if it ends with another code than 0.
        """
        command = [self._state.binaries["kubectl"], f"--kubeconfig={kubeconfig or self.kubeconfig}"]
        done = subprocess.run(
            [*command, f"--cache-dir={self._layout.home}/kubectl", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=self._environment(),
            check=False,
        )
        if done.returncode:
            raise ComponentFailed(f"kubectl {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def make_client_cert(self, user: str, groups: Sequence[str] = ()) -> Path:
        """Return a kubeconfig that makes its holder *user* in *groups*; what they may do, RBAC says."""
        authority = certificates.KeyPair.read(self._layout.pki, "ca")
        client = certificates.make_client(authority, user, groups)
        path = self._layout.users / f"{base64.urlsafe_b64encode(user.encode()).decode()}.kubeconfig"
        certificates.write_private(path, certificates.kubeconfig(self.server, authority.certificate, client))
        return path

    def load_image(self, archive: Path) -> None:
        """Give the real node the images of *archive* (see `images`); pods must not ask to pull them always."""
        node_components.load_image(self._setting(), archive.absolute(), self._environment())

    def expose(self, port: int) -> str:
        """Let pods and programs of the real node reach *port* of this machine's loopback; return host and port there.

        It stays until the cluster ends. Asking again is no error.
        """
        name, own = f"expose-{port}", self._capsule
        own.entrance()  # before a forwarder is started that would end at once
        if self.pid(name) is None:
            self._launch(name, from_capsule(self._layout, port))

        def served() -> bool:
            init = own.init()
            return init is not None and listening(init, port)

        self._await(served, f"port {port} in the capsule", name)
        return f"{components.NODE_ADDRESS}:{port}"

    def inside(self, *command: str) -> str:
        """Run a program in the real node's capsule and return what it printed. Raises `ComponentFailed`."""
        return self._capsule.run(command, self._environment())

    def stop(self, component: str, *, kill: bool = False) -> None:
        """End one program, by SIGTERM or with *kill* by SIGKILL; `start` brings it back with its data."""
        self._end([component], kill=kill)

    def start(self, component: str) -> None:
        """Start a program that was stopped, and return when the cluster is ready again as far as it runs."""
        self._spawn(component)
        self._await_ready(component)

    def revision(self) -> int:
        """Return etcd's revision now."""
        with self._store() as store:
            return compaction.revision(store)

    def compact(self, *, wait: bool = True) -> int:
        """Compact etcd to its revision now and return that: every older one is gone, as after the compaction interval.

        The API server goes on serving older revisions from its memory until it notices, up to 15 s later; with *wait*
        this returns when it has, for every kind. With the option
        `apiserver_flags=("--feature-gates=ListFromCacheSnapshot=false",)` it keeps none, and there is nothing to wait
        for. With `etcd_servers_overrides` the second etcd is left alone.
        """
        with self._store() as store:
            revision = compaction.compact(store)
        if wait:
            with self._api() as api:
                forgotten = compaction.Forgotten(api, revision - 1)
                self._await(forgotten, f"the end of revision {revision - 1}", components.APISERVER)
        return revision

    def save_etcd(self, folder: Path) -> None:
        """Copy etcd's data, as it is now, into the new *folder*. The cluster runs on.

        The program is held still meanwhile: what is on disk is what a crash would leave, and etcd starts from that.
        """
        folder.mkdir(mode=0o700, parents=True)
        for name in self._stores():
            process = processes.recorded(self._layout.record(name))
            if process is None or not processes.running(process):
                shutil.copytree(self._layout.etcd / name, folder / name)
                continue
            processes.pause(process)
            try:
                shutil.copytree(self._layout.etcd / name, folder / name)
            finally:
                processes.resume(process)

    def restore_etcd(self, folder: Path) -> None:
        """Put etcd back to what `save_etcd` copied into *folder*, and return when the cluster is ready.

        Every program is started anew, as after the loss of a machine: none of them keeps an object or a revision that
        etcd no longer knows. Volumes and snapshots stay as they are.
        """
        stores = self._stores()
        if absent := [name for name in stores if not (folder / name).is_dir()]:
            raise NoTestbed(f"{folder} holds no data of {', '.join(absent)}", hint="Save with `save_etcd` first.")
        self._end(self.component_names, kill=True)
        for name in stores:
            shutil.rmtree(self._layout.etcd / name)
            shutil.copytree(folder / name, self._layout.etcd / name)
        self._start_all(lambda _: None)

    # --- inside

    def _stores(self) -> list[str]:
        return [name for name in components.STORES if name in self.component_names]

    def _api(self, port: str = "apiserver", *, seconds: float = TIMEOUT_SECONDS) -> Connection:
        return self._connection(port, "ca", "admin", seconds)

    def _store(self, port: str = "etcd", *, seconds: float = TIMEOUT_SECONDS) -> Connection:
        return self._connection(port, "etcd-ca", "etcd-client", seconds)

    def _connection(self, port: str, authority: str, user: str, seconds: float) -> Connection:
        pki, number = self._layout.pki, self._state.ports[port]
        files = {"authority": f"{authority}.crt", "certificate": f"{user}.crt", "key": f"{user}.key"}
        return Connection(number, **{name: pki / file for name, file in files.items()}, seconds=seconds)

    def _environment(self) -> dict[str, str]:
        # A proxy, a kubeconfig or a KWOK configuration of the user must not reach the cluster's programs.
        layout = self._layout
        own = {"HOME": str(layout.home), "TMPDIR": str(layout.run), cluster_folder.FOLDER_VARIABLE: str(layout.root)}
        path = os.environ.get("PATH", os.defpath)
        return {"PATH": f"{layout.node_programs}{os.pathsep}{path}" if self._real else path, **own}

    def _make_files(self) -> None:
        layout = self._layout
        layout.make()
        make_identities(layout, self.server)
        certificates.write_private(layout.root / "audit-policy.json", json.dumps(objects.AUDIT_POLICY).encode())
        if self._real:
            node_components.write_files(self._setting())
        self._state.write(layout)

    @property
    def _real(self) -> bool:
        return self.options.level is Level.NODE

    @property
    def _capsule(self) -> Capsule:
        return Capsule(self._layout)

    def _start_capsule(self, report: Report) -> None:
        """Start what the other programs run in, and containerd."""
        for name in (components.CAPSULE, components.FORWARDER):
            self._spawn(name)
            self._await_ready(name)
        self._spawn(components.CONTAINERD)
        report("the capsule is ready")

    def _load_images(self, report: Report) -> None:
        """Give containerd the images that every node must have."""
        archives = images.node_images(self._setting().binaries)
        self._await_ready(components.CONTAINERD)
        for archive in archives:
            self.load_image(archive)
        report("containerd is ready")

    def _start_all(self, report: Report) -> None:
        """Start every program and return when all are ready. Raises `ComponentFailed`."""
        names = self.component_names
        if self._real:
            self._start_capsule(report)
        for name in self._stores():
            self._spawn(name)
        for name in self._stores():
            self._await_ready(name)
        report("etcd is ready")
        self._spawn(components.APISERVER)
        if self._real:  # while the API server starts
            self._load_images(report)
        self._await_ready(components.APISERVER)
        report("the API server is ready")
        later = list(names[names.index(components.APISERVER) + 1 :])
        for name in later:
            if name not in components.VOLUME_COMPONENTS:
                self._spawn(name)
        with self._api() as api:
            self._state = replace(self._state, version=str(api.get("/version")["gitVersion"]))
            self._state.write(self._layout)
            for path, document in objects.cluster_objects(self.options.level):
                api.ensure(path, document)
            if self.options.volumes:
                self._make_volume_objects(api)
                for name in components.VOLUME_COMPONENTS:
                    self._spawn(name)
        for name in later:
            self._await_ready(name)
        report("controllers, scheduler and node are ready")

    def _make_volume_objects(self, api: Connection) -> None:
        for file in sorted(Path(self._state.binaries[CRDS]).glob("*.yaml")):
            api.ensure_raw(objects.CRD_PATH, file.read_bytes(), "application/yaml")

        def established() -> bool:
            crds = api.get(objects.CRD_PATH)["items"]
            return all(condition(crd, "Established") for crd in crds if crd["spec"]["group"] in objects.SNAPSHOT_GROUPS)

        self._await(established, "the snapshot CRDs", components.APISERVER)
        for path, document in objects.volume_objects(self.options.level):
            self._await(partial(_ensured, api, path, document), path, components.APISERVER)

    def _setting(self) -> components.Setting:
        binaries = Binaries({name: Path(path) for name, path in self._state.binaries.items()})
        return components.Setting(self._layout, dict(self._state.ports), self._state.options, binaries)

    def _spawn(self, name: str) -> None:
        line = node_components.command(name, self._setting())
        if name == components.CAPSULE:
            self._capsule.prepare()
        if name == components.FORWARDER:
            self._capsule.forwarded.unlink(missing_ok=True)  # said by the one before
        if self._real and name not in (components.CAPSULE, components.FORWARDER):
            belong, see = self._capsule.entrance()
            self._launch(name, [*see, *line], prefix=belong)
        else:
            self._launch(name, line)

    def _launch(self, name: str, line: Sequence[str], *, prefix: Sequence[str] = ()) -> None:
        record = self._layout.record(name)
        record.unlink(missing_ok=True)
        processes.start(
            record,
            line,
            folder=self._layout.root,
            log=self._layout.log(name),
            environment=self._environment(),
            prefix=prefix,
        )
        deadline = time.monotonic() + _READY_SECONDS
        while processes.recorded(record) is None:
            if time.monotonic() > deadline:
                raise ComponentFailed(f"{name} did not start")
            time.sleep(0.001)

    def _end(self, names: Collection[str], *, kill: bool) -> None:
        if components.CAPSULE in names:
            names = [*names, capsule.INIT]
        found = [processes.recorded(self._layout.record(name)) for name in names]
        processes.end([process for process in found if process is not None], kill=kill)
        for name in names:
            self._layout.record(name).unlink(missing_ok=True)
        if components.CAPSULE in names:
            self._capsule.clear()

    def _await_ready(self, name: str) -> None:
        """Return when *name* does its work. Raises `ComponentFailed`."""
        check = ready_checks(self._setting(), self._api, self._store).get(name)
        self._await(check or (lambda: self.pid(name) is not None), name, name)

    def _await(self, condition: Callable[[], bool], what: str, component: str) -> None:
        """Return when *condition* holds. Raises `ComponentFailed` when *component* ends or time is up."""
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                if condition():
                    break
                reason = "not ready"
            except (ServerRefused, ServerUnreachable) as error:
                reason = error.message
            if self.pid(component) is None:
                self._fail(component, f"{component} ended")
            if time.monotonic() > deadline:
                self._fail(component, f"{what}: {reason} after {_READY_SECONDS:.0f} s")
            time.sleep(_POLL_SECONDS)
        if self.pid(component) is None:
            self._fail(component, f"{component} ended")

    def _fail(self, component: str, reason: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            lines = self._layout.log(component).read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
            reason = "\n".join([f"{reason}; the end of its log:", *lines])
        raise ComponentFailed(reason)


def _ensured(api: Connection, path: str, document: objects.Object) -> bool:
    """Create an object; False while the server does not serve its kind yet."""
    try:
        api.ensure(path, document)
    except ServerRefused as error:
        if error.status != 404:
            raise
        return False
    return True
