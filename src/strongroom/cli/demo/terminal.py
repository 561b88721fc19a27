"""Runs `strongroom` as a user would, and shows on the screen what is run and what comes back."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class DemoFailed(Exception):
    """A step did not do what it should; the message is for the screen."""


class Terminal:
    """The demo's screen and its shell. Commands see *environment* beside the process's own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self._program = Path(sys.executable).parent / "strongroom"
        self._step = 0
        self._began = time.monotonic()

    def step(self, title: str) -> None:
        """Begin a step."""
        self._step += 1
        self._write(f"\n== {self._step}. {title} (at {time.monotonic() - self._began:.0f} s)\n")

    def say(self, text: str) -> None:
        """Tell what happens beside the commands."""
        self._write(f"   {text}\n")

    def strongroom(self, *arguments: str, expect: int = 0, lines: int | None = None) -> str:
        """Run a command, show it with its output (at most *lines* lines of it), return its standard output.

        Raises `DemoFailed` when it exits with another code than *expect*.
        """
        self._write(f"$ strongroom {shlex.join(arguments)}\n")
        done = self._run(arguments)
        shown = (done.stdout + ("" if done.returncode == 0 else done.stderr)).splitlines()
        for line in shown[:lines]:
            self._write(f"  {line}\n")
        if lines is not None and len(shown) > lines:
            self._write(f"  … {len(shown) - lines} more lines\n")
        if done.returncode != expect:
            said = done.stderr.strip()
            raise DemoFailed(
                f"`strongroom {shlex.join(arguments)}` exited with {done.returncode}, not {expect}: {said}"
            )
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """Run a command with `--output json`, off the screen, and return its document. Raises `DemoFailed`."""
        done = self._run([*arguments, "--output", "json"])
        if done.returncode != 0:
            raise DemoFailed(
                f"`strongroom {shlex.join(arguments)}` exited with {done.returncode}: {done.stderr.strip()}"
            )
        return json.loads(done.stdout)

    def _run(self, arguments: list[str] | tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


# Everything that the demo waits for happens within seconds on two busy cores; a minute says that it never will.
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.2


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when *condition* holds. Raises `DemoFailed`, naming *what*, after `PATIENCE_SECONDS`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}")
        time.sleep(LOOK_SECONDS)
