"""Carries connections between the machine's loopback and a capsule, as long as the capsule lives.

A socket stays in the network in which it was made. So the program makes the listening ones in one network and then
moves to the other, where it connects. With the capsule it ends, and removes what the kernel keeps of one.
"""

import argparse
import asyncio
import ctypes
import os
import socket
import sys
from pathlib import Path

from strongroom.testbed import processes
from strongroom.testbed.capsule import Capsule
from strongroom.testbed.components import NODE_ADDRESS
from strongroom.testbed.layout import Layout

_CLONE_NEWNET = 0x40000000  # sched.h
_BACKLOG = 128
_CHUNK_BYTES = 64 * 1024


def to_capsule(layout: Layout, ports: list[int]) -> list[str]:
    """Return the command line of a forwarder of the machine's loopback *ports* to the same ones of the capsule's."""
    return [sys.executable, "-m", "strongroom.testbed.forwarding", str(layout.root), "in", *map(str, ports)]


def from_capsule(layout: Layout, port: int) -> list[str]:
    """Return the command line of a forwarder of *port* of the node's address to the machine's loopback."""
    return [sys.executable, "-m", "strongroom.testbed.forwarding", str(layout.root), "out", str(port)]


def listening(init: processes.Process, port: int) -> bool:
    """Tell whether somebody listens on *port* in the network of the process *init*."""
    state_listen = "0A"  # proc_pid_net(5), tcp_states.h
    for line in Path(f"/proc/{init.pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_ = line.split()
        if state == state_listen and int(local.rpartition(":")[2], 16) == port:
            return True
    return False


def main() -> None:
    """Forward until the capsule ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("direction", choices=("in", "out"))
    parser.add_argument("ports", type=int, nargs="+")
    arguments = parser.parse_args()
    capsule = Capsule(Layout(arguments.root))
    init = capsule.init()
    if init is None:
        sys.exit("the capsule does not run")
    ended = os.pidfd_open(init.pid)
    here, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/proc/{init.pid}/ns/net", os.O_RDONLY)
    inward = arguments.direction == "in"
    if not inward:
        _move(there)
    listeners = [(_listener("127.0.0.1" if inward else NODE_ADDRESS, port), port) for port in arguments.ports]
    if inward:
        capsule.forwarded.touch()
    _move(there if inward else here)
    asyncio.run(_forward(listeners, ended))
    if inward:
        capsule.clear()


def _move(network: int) -> None:
    """Go on in another network. Before the first thread: each has its own."""
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns is there from Python 3.12 on
    if libc.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _listener(address: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


async def _forward(listeners: list[tuple[socket.socket, int]], ended: int) -> None:
    """Serve until the process of the handle *ended* has ended."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(ended, over.set)
    # The servers are kept in hand: what nobody refers to stops listening.
    servers = [await asyncio.start_server(_Forward(port), sock=listener) for listener, port in listeners]
    await over.wait()
    for server in servers:
        server.close()


class _Forward:
    """Connects whoever comes to a port of loopback."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()  # nobody listens there: this side learns it as the end of its connection
            return
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        except OSError:
            pass  # one side broke off: so does the other
        finally:
            writer.close()
            far_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()  # the other direction may go on


if __name__ == "__main__":
    main()
