"""What can go wrong with a test cluster, grouped by what its user does next."""

from strongroom.errors import ExitCode, StrongroomError, UsageError


class TestbedError(StrongroomError):
    """The root of the test cluster's errors."""

    __test__ = False  # pytest takes every imported Test* for a test class


class NoTestbed(TestbedError, UsageError):
    """The folder named holds no test cluster."""


class TestbedExists(TestbedError, UsageError):
    """The folder named is in use: by a test cluster, or by files that are none of ours."""


class NodeUnsupported(TestbedError, UsageError):
    """No real node can run here; the message says what is missing."""


class BuildFailed(TestbedError):
    """A program of the test cluster could not be built; the message ends with what the compiler said last."""


class ComponentFailed(TestbedError):
    """A program of the test cluster ended or did not become ready; the message ends with the tail of its log."""


class ServerRefused(TestbedError):
    """The test cluster's API server or etcd answered a request of ours with an error."""

    def __init__(self, request: str, status: int, answer: str) -> None:
        super().__init__(f"{request} was answered with {status}: {answer}")
        self.status = status


class ServerUnreachable(TestbedError):
    """The test cluster's API server or etcd did not answer."""

    exit_code = ExitCode.UNREACHABLE
