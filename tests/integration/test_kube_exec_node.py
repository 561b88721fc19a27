"""Commands run in containers of a real node, and what comes back is how they ended."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from strongroom.dataplane.kube import exec as kube_exec
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    KubeBadRequest,
    KubeExecFailed,
    KubeExecTimeout,
    KubeForbidden,
    KubeNotFound,
    KubeUnreachable,
)
from strongroom.dataplane.kube.exec import OUTPUT_BYTES
from strongroom.testbed.capsule import unsupported
from strongroom.testbed.cluster import Testbed
from strongroom.testbed.options import Level, TestbedOptions

from .extension_stage import eventually
from .node_stage import pod, run

SECONDS = 20.0


@pytest.fixture
async def api(node_testbed: Testbed, node_namespace: str) -> AsyncIterator[KubeApi]:
    run(node_testbed, node_namespace, pod("shell", "sleep", "100000"))
    async with KubeApi.from_kubeconfig(node_testbed.kubeconfig) as connected:
        yield connected


@pytest.mark.parametrize("protocol", kube_exec.PROTOCOLS)
async def test_a_command_gets_its_words_as_they_are_and_its_exit_code_and_streams_come_back(
    api: KubeApi, node_namespace: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube_exec, "PROTOCOLS", (protocol,))
    words = "a & b + c%26=#?;/ü\n$HOME"
    said = await api.exec(node_namespace, "shell", "main", ["printf", "%s", words], timeout=SECONDS)
    assert (said.exit_code, said.stdout.decode(), said.stderr) == (0, words, b"")
    failed = await api.exec(
        node_namespace, "shell", "main", ["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=SECONDS
    )
    assert (failed.exit_code, failed.stdout, failed.stderr, failed.cut) == (3, b"out\n", b"err\n", False)


async def test_of_much_output_the_end_is_kept(api: KubeApi, node_namespace: str) -> None:
    said = await api.exec(node_namespace, "shell", "main", ["seq", "1", "100000"], timeout=SECONDS)
    assert said.cut
    assert len(said.stdout) == OUTPUT_BYTES
    assert said.stdout.endswith(b"\n99999\n100000\n")


async def test_a_command_that_does_not_end_in_time_is_an_error_and_one_that_is_none_too(
    api: KubeApi, node_namespace: str
) -> None:
    with pytest.raises(KubeExecTimeout, match="did not end within 1 s; it said: waiting") as late:
        await api.exec(node_namespace, "shell", "main", ["sh", "-c", "echo waiting; sleep 1000"], timeout=1.0)
    assert late.value.after_retry
    with pytest.raises(KubeExecFailed, match="not found"):
        await api.exec(node_namespace, "shell", "main", ["no-such-program"], timeout=SECONDS)


async def test_what_is_not_there_and_what_is_not_allowed_is_told_in_the_servers_words(
    api: KubeApi, node_testbed: Testbed, node_namespace: str
) -> None:
    with pytest.raises(KubeNotFound, match='"nobody" not found'):
        await api.exec(node_namespace, "nobody", "main", ["true"], timeout=SECONDS)
    with pytest.raises(KubeBadRequest, match="container other is not valid"):
        await api.exec(node_namespace, "shell", "other", ["true"], timeout=SECONDS)
    stranger = node_testbed.make_client_cert("stranger", ())
    async with KubeApi.from_kubeconfig(stranger) as other:
        with pytest.raises(KubeForbidden, match="pods/exec"):
            await other.exec(node_namespace, "shell", "main", ["true"], timeout=SECONDS)


async def test_a_command_whose_end_is_lost_is_not_begun_again(own_testbed: Callable[..., Testbed]) -> None:
    if reason := unsupported():
        pytest.skip(reason)
    cluster = own_testbed(TestbedOptions(level=Level.NODE, volumes=False))
    run(cluster, "default", pod("shell", "sleep", "100000"))
    async with KubeApi.from_kubeconfig(cluster.kubeconfig) as api:
        command = ["sh", "-c", "echo begun >&2; sleep 1000"]
        running = asyncio.create_task(api.exec("default", "shell", "main", command, timeout=SECONDS))

        async def begun() -> bool:
            return api.bytes_read > 0

        await eventually(begun)
        requests = api.requests
        await asyncio.to_thread(cluster.stop, "kube-apiserver", kill=True)
        with pytest.raises(KubeUnreachable) as lost:
            await running
        assert lost.value.after_retry
        assert api.requests == requests
