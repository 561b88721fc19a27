"""Carries one hook's command out and says in bounded words how it went; it never raises for a command that failed."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from strongroom.dataplane.hooks.select import Task
from strongroom.dataplane.kube.api import KubeApi
from strongroom.dataplane.kube.errors import (
    KubeBadRequest,
    KubeError,
    KubeExecFailed,
    KubeExecTimeout,
    KubeForbidden,
    KubeNotFound,
)

COMMANDS_AT_ONCE: Final = 8  # half of our connections: the snapshots need the others meanwhile
OUTPUT_CHARACTERS: Final = 600  # of a command's output in a message; a status keeps 1,000 of the whole message


class End(Enum):
    """How it went. `NOT_RUN`: it was not carried out, or nobody knows, and another attempt may succeed."""

    DONE = "done"
    FAILED = "failed"
    GONE = "gone"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one command; *reason* is "" where it succeeded, *hint* what a user can do."""

    task: Task
    end: End
    reason: str = ""
    hint: str = ""
    forbidden: bool = False

    @property
    def message(self) -> str:
        """The reason with the command that it is about, in one sentence."""
        where = f"{self.task.pod.key}, container {self.task.container or self.task.command.container}"
        return f"hook {self.task.hook} in pod {where}: {self.reason}"


async def carry_out(api: KubeApi, task: Task, timeout_s: float) -> Outcome:
    """Run the command of *task* for at most *timeout_s* seconds. Raises nothing but what cancels it."""
    pod = task.pod
    if not task.container:
        names = ", ".join(pod.containers)
        return Outcome(task, End.FAILED, f"the pod has no container {task.command.container!r}; it has {names}")
    try:
        result = await api.exec(pod.namespace, pod.name, task.container, task.command.command, timeout=timeout_s)
    except KubeForbidden as error:
        hint = f"Add {pod.namespace} to the extension's configuration setting configuration.hookNamespaces"
        return Outcome(task, End.NOT_RUN, error.message, hint, forbidden=True)
    except (KubeNotFound, KubeBadRequest) as error:
        return Outcome(task, End.GONE, error.message)
    except (KubeExecFailed, KubeExecTimeout) as error:
        return Outcome(task, End.FAILED, error.message, error.hint)
    except KubeError as error:
        return Outcome(task, End.NOT_RUN, error.message, error.hint)
    if result.exit_code == 0:
        return Outcome(task, End.DONE)
    said = (result.stderr or result.stdout).decode("utf-8", "replace").strip()
    said = f": {said[-OUTPUT_CHARACTERS:]}" if said else ", and said nothing"
    return Outcome(task, End.FAILED, f"the command ended with exit code {result.exit_code}{said}")
