"""Bodies of the directory's operations, as az sends them; what is not named here is ignored."""

from typing import Annotated, Required, TypedDict

from strongroom.controlplane.arm.shapes import READ_ONLY


class ApplicationBody(TypedDict, total=False):
    """An application: here the same thing as its service principal."""

    id: Annotated[str, READ_ONLY]
    displayName: Required[str]


class ServicePrincipalBody(TypedDict, total=False):
    """The service principal of an application."""

    id: Annotated[str, READ_ONLY]
    appId: Required[str]


class PasswordWish(TypedDict, total=False):
    """Until when a new secret shall be good."""

    displayName: str
    endDateTime: str


class AddPasswordBody(TypedDict, total=False):
    """A request for a new secret."""

    passwordCredential: PasswordWish


class RemovePasswordBody(TypedDict, total=False):
    """Which secret is no longer good."""

    keyId: Required[str]


class DirectoryObjectBody(TypedDict, total=False):
    """A service principal or an application of the directory."""

    id: Required[str]
    appId: Required[str]
    displayName: str


class PasswordBody(TypedDict, total=False):
    """A secret; its text is in the answer that made it and nowhere else."""

    keyId: Required[str]
    hint: str
    secretText: str
    startDateTime: str
