"""Assembles the command line: mounts the command groups, runs one command, turns its end into an exit code.

Groups are named by import string and loaded when their command is used: `strongroom --help` imports no Parquet,
no database and no HTTP client. Exit codes: `strongroom.errors.ExitCode`.
"""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from cyclopts import App, CycloptsError

from strongroom import __version__
from strongroom.cli.output import print_error, wanted_format
from strongroom.errors import ExitCode, StrongroomError
from strongroom.process import leave

# What a shell reports for a process that these signals ended: 128 + the signal's number.
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
PIPE_CLOSED = 128 + signal.SIGPIPE

DEBUG_VARIABLE = "STRONGROOM_DEBUG"


# Here and not at the command: the list of commands would import it.
_RECOVERY_KIT = """Hand over what opens the backups when server and cluster are lost.

Writes FILE (0600), which must be new, and takes the recovery secret out of the home. Prints no secret. Exit code 3 if
--new could not reach a container; it follows when it is next used.
"""

_DOCTOR = """Look whether backups can be made: of a control plane and all that it protects, or of a bare kubeconfig.

Exit code 0 if all is well, 3 with warnings, 1 if something is broken.
"""

_terminated = False


def build() -> App:
    """Return the command line with every group mounted, none of them imported yet."""
    app = App(
        name="strongroom",
        help="Backup and restore for Kubernetes: objects at one instant, volumes by CSI snapshots.",
        help_epilogue="Exit codes: 0 whole, 1 failed, 2 usage, 3 incomplete, 4 damaged, 5 unreachable or denied.",
        version=__version__,
        result_action="return_value",
        print_error=False,
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
        help_format="plaintext",
    )
    app.command("strongroom.cli.repository:app", name="repository", help="Make, inspect, check and prune a repository.")
    app.command("strongroom.cli.point:app", name="point", help="Take recovery points, and look into them.")
    app.command("strongroom.cli.query:query", name="query", help="Ask a repository in SQL.")
    app.command("strongroom.cli.restore:app", name="restore", help="Plan a restore, and carry it out.")
    app.command("strongroom.cli.serve:app", name="serve", help="The control plane: Azure's API, jobs, schedules.")
    app.command("strongroom.cli.cluster:app", name="cluster", help="Connect clusters to a control plane.")
    app.command("strongroom.cli.storage:app", name="storage", help="Attach storage to a control plane.")
    app.command("strongroom.cli.vault:app", name="vault", help="Backup vaults.")
    app.command("strongroom.cli.policy:app", name="policy", help="When backups are made, how long they are kept.")
    app.command("strongroom.cli.instance:app", name="instance", help="Protect clusters, back them up, restore them.")
    app.command("strongroom.cli.job:app", name="job", help="Backups and restores of a control plane.")
    app.command("strongroom.cli.recovery:recovery_kit", name="recovery-kit", help=_RECOVERY_KIT)
    app.command("strongroom.cli.doctor:doctor", name="doctor", help=_DOCTOR)
    app.command("strongroom.cli.testbed:app", name="testbed", help="A real Kubernetes control plane on loopback.")
    return app


def run(tokens: Sequence[str]) -> int:
    """Run the command that *tokens* spell and return its exit code; errors are printed to stderr, never raised."""
    chosen = wanted_format(tokens)
    try:
        result = build()(list(tokens))
        sys.stdout.flush()
        return int(result) if isinstance(result, int) else ExitCode.WHOLE
    except CycloptsError as error:
        command = " ".join(["strongroom", *(error.command_chain or ())])
        print_error(str(error), hint=f"See `{command} --help`.", kind="UsageError", code=ExitCode.USAGE, format_=chosen)
        return ExitCode.USAGE
    except StrongroomError as error:
        _debug()
        print_error(error.message, hint=error.hint, kind=type(error).__name__, code=error.exit_code, format_=chosen)
        return error.exit_code
    except KeyboardInterrupt:
        return TERMINATED if _terminated else INTERRUPTED
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nothing to tell it. What is still buffered must not raise anew.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        _debug()
        print_error(str(error), hint="", kind=type(error).__name__, code=ExitCode.FAILED, format_=chosen)
        return ExitCode.FAILED
    except Exception as error:
        _debug()
        hint = f"This is a defect of Strongroom: please report it with the output of {DEBUG_VARIABLE}=1."
        message = f"internal error: {type(error).__name__}: {error}"
        print_error(message, hint=hint, kind="InternalError", code=ExitCode.FAILED, format_=chosen)
        return ExitCode.FAILED


def _debug() -> None:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        traceback.print_exc()


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    """End as Ctrl-C does: asyncio's handler of SIGINT cancels the command, which cleans up behind itself."""
    global _terminated  # noqa: PLW0603 (a signal handler has nowhere else to tell)
    _terminated = True
    signal.raise_signal(signal.SIGINT)


def main() -> NoReturn:
    """Entry point of the `strongroom` command."""
    signal.signal(signal.SIGTERM, _terminate)
    debug = os.environ.get(DEBUG_VARIABLE) == "1"
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.ERROR,
        format="%(levelname)s %(name)s %(message)s",
    )
    leave(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
