"""A request finds the operation that its path names, and no other."""

import pytest

from strongroom.controlplane.arm.routing import Found, Router
from strongroom.controlplane.arm.table import OPERATIONS

ROUTER = Router(OPERATIONS)
VAULTS = "/subscriptions/s/resourceGroups/g/providers/Microsoft.DataProtection/backupVaults"


def found(method: str, path: str) -> str:
    match = ROUTER.find(method, path)
    assert isinstance(match, Found), (method, path, match)
    return match.operation.name


def test_blanks_around_a_name_are_dropped_and_a_slash_at_the_end_is_nothing() -> None:
    assert found("GET", f"{VAULTS}/ v ") == "BackupVaults_Get"
    assert found("GET", f"{VAULTS}/v/") == "BackupVaults_Get"
    match = ROUTER.find("GET", f"{VAULTS.upper()}/ My Vault ")
    assert isinstance(match, Found)
    assert match.path["vault"] == "My Vault"


@pytest.mark.parametrize("blank", [" ", "   ", "\u0085", "\u00a0", "\u3000"])
def test_a_name_of_blanks_does_not_mean_what_is_above_it(blank: str) -> None:
    assert ROUTER.find("DELETE", f"{VAULTS}/v/{blank}") is None
    assert ROUTER.find("GET", f"{VAULTS}/{blank}") is None
    assert ROUTER.find("GET", f"/providers/Microsoft.Authorization/roleDefinitions/{blank}") is None
    assert ROUTER.find("DELETE", f"/subscriptions/s/resourceGroups/g/{blank}/") is None


def test_a_path_with_an_operation_of_another_method_tells_which() -> None:
    assert ROUTER.find("DELETE", VAULTS) == {"GET"}
