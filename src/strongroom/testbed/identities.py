"""Decides who is who in a test cluster: its authorities, its servers, and the users that its programs are."""

from strongroom.testbed import certificates
from strongroom.testbed.components import NODE_ADDRESS, NODE_NAME, SERVICE_ADDRESS
from strongroom.testbed.layout import Layout


def make_identities(layout: Layout, server: str) -> None:
    """Write every certificate, key and kubeconfig of a new cluster whose API server is at the URL *server*."""
    pki = layout.pki
    authority = certificates.make_authority("strongroom-testbed")
    etcd_authority = certificates.make_authority("strongroom-testbed-etcd")
    proxy_authority = certificates.make_authority("strongroom-testbed-front-proxy")
    authority.write(pki, "ca")
    etcd_authority.write(pki, "etcd-ca")
    proxy_authority.write(pki, "front-proxy-ca")
    own = ("127.0.0.1",)
    certificates.make_server(authority, "kube-apiserver", (*own, SERVICE_ADDRESS, NODE_ADDRESS)).write(pki, "apiserver")
    certificates.make_server(authority, "strongroom-testbed-component", own).write(pki, "component")
    certificates.make_server(etcd_authority, "etcd", own).write(pki, "etcd")
    certificates.make_client(etcd_authority, "kube-apiserver").write(pki, "etcd-client")
    certificates.make_client(proxy_authority, "front-proxy").write(pki, "front-proxy")
    certificates.make_client(authority, "strongroom-testbed-apiserver", ("system:masters",)).write(
        pki, "kubelet-client"
    )
    private, public = certificates.make_signing_key()
    certificates.write_private(pki / "service-account.key", private)
    certificates.write_private(pki / "service-account.pub", public)
    admins = ("system:masters",)
    admin = certificates.make_client(authority, "strongroom-testbed-admin", admins)
    admin.write(pki, "admin")
    certificates.write_private(layout.kubeconfig, certificates.kubeconfig(server, authority.certificate, admin))
    for name, user, groups in (
        ("controller-manager", "system:kube-controller-manager", ()),
        ("scheduler", "system:kube-scheduler", ()),
        ("kwok", "strongroom-testbed-kwok", admins),
        ("storage", "strongroom-testbed-storage", admins),
        # Of a real node. The node authorizer and RBAC know these by their names.
        ("kubelet", f"system:node:{NODE_NAME}", ("system:nodes",)),
        ("kube-proxy", "system:kube-proxy", ()),
    ):
        client = certificates.make_client(authority, user, groups)
        document = certificates.kubeconfig(server, authority.certificate, client)
        certificates.write_private(pki / f"{name}.kubeconfig", document)
