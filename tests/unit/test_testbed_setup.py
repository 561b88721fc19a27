"""What a test cluster is made of follows from its options."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from strongroom.testbed import certificates, components, node_components
from strongroom.testbed.binaries import MODULES, NODE_MODULES, Binaries
from strongroom.testbed.capsule import Capsule
from strongroom.testbed.components import Setting
from strongroom.testbed.layout import PORT_NAMES, Layout, State, free_ports, taken
from strongroom.testbed.options import Level, TestbedOptions


def setting(options: TestbedOptions) -> Setting:
    names = [part.name for module in (*MODULES, *NODE_MODULES) for part in (*module.programs, *module.files)]
    ports = {name: 20_000 + number for number, name in enumerate(PORT_NAMES)}
    binaries = Binaries({name: Path("bin", name) for name in names})
    return Setting(Layout(Path("cluster")), ports, options, binaries)


@pytest.mark.parametrize("volumes", [True, False])
def test_every_component_has_a_command_line(volumes: bool) -> None:
    options = TestbedOptions(volumes=volumes, etcd_servers_overrides=("/configmaps",))
    names = components.component_names(options)
    lines = [components.command(name, setting(options)) for name in names]
    assert all(line[0].startswith("bin") for line in lines)
    assert (components.DRIVER in names) is volumes


def test_the_api_server_serves_no_anonymous_request_and_asks_rbac() -> None:
    line = components.command(components.APISERVER, setting(TestbedOptions()))
    assert "--anonymous-auth=false" in line
    assert "--authorization-mode=Node,RBAC" in line


def test_options_reach_the_api_server_and_a_test_has_the_last_word() -> None:
    options = TestbedOptions(
        audit=True,
        etcd_servers_overrides=("/configmaps", "apps/deployments"),
        etcd_compaction_interval="0",
        min_request_timeout_s=5,
        apiserver_flags=("--anonymous-auth=true",),
    )
    line = components.command(components.APISERVER, setting(options))
    second = f"https://127.0.0.1:{20_000 + PORT_NAMES.index('overrides')}"
    assert f"--etcd-servers-overrides=/configmaps#{second},apps/deployments#{second}" in line
    assert "--etcd-compaction-interval=0" in line
    assert "--min-request-timeout=5" in line
    assert "--audit-log-path=cluster/logs/audit.log" in line
    assert line.index("--anonymous-auth=true") > line.index("--anonymous-auth=false")
    plain = components.command(components.APISERVER, setting(TestbedOptions()))
    assert not any(flag.startswith(("--audit", "--etcd-compaction", "--min-request")) for flag in plain)


def test_a_real_node_takes_the_place_of_the_player_and_starts_before_what_runs_in_it() -> None:
    options = TestbedOptions(level=Level.NODE)
    names = components.component_names(options)
    assert components.KWOK not in names
    assert names[0] == components.CAPSULE
    lines = {name: node_components.command(name, setting(options)) for name in names}
    assert lines[components.KUBELET][0] == "bin/kubelet"
    assert "--advertise-address=10.99.0.1" in lines[components.APISERVER]
    assert not any("endpoint-reconciler" in flag for flag in lines[components.APISERVER])
    socket = "/var/lib/kubelet/plugins/folder.csi.strongroom.test/csi.sock"
    assert f"-socket={socket}" in lines[components.DRIVER]
    assert f"--csi-address={socket}" in lines[components.SNAPSHOTTER]
    forwarded = {str(20_000 + PORT_NAMES.index(name)) for name in ("apiserver", "etcd", "scheduler")}
    assert forwarded <= set(lines[components.FORWARDER])


def test_the_group_of_a_capsule_follows_from_its_folder_alone() -> None:
    one, other = (Capsule(Layout(Path("/somewhere", name))).group for name in ("one", "other"))
    assert one != other
    assert one == Capsule(Layout(Path("/somewhere/one"))).group


def test_the_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    options = TestbedOptions(level=Level.NODE, etcd_servers_overrides=("/configmaps",), apiserver_flags=("--v=4",))
    state = State(options, {"apiserver": 20_001}, {"etcd": "bin/etcd"}, "v1.37.2")
    state.write(Layout(tmp_path))
    assert State.read(Layout(tmp_path)) == state
    assert (tmp_path / "testbed.json").stat().st_mode & 0o077 == 0


def test_free_ports_are_distinct_free_and_out_of_the_way_of_outgoing_connections() -> None:
    ports = list(free_ports().values())
    assert len(set(ports)) == len(PORT_NAMES)
    assert max(ports) < 32_768
    assert taken(ports) == []


def test_a_client_certificate_carries_user_and_groups_and_is_signed_by_its_authority() -> None:
    authority = certificates.make_authority("test")
    client = x509.load_pem_x509_certificate(certificates.make_client(authority, "ada", ["a", "b"]).certificate)
    client.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    assert [name.value for name in client.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["ada"]
    assert {name.value for name in client.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)} == {"a", "b"}
