"""ARM ids, names and durations as Azure writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.arm.formats import ArmId, check_name, check_region
from strongroom.protection.errors import Refused

GROUP = "/subscriptions/S/resourceGroups/aksrg"
CLUSTER = f"{GROUP}/providers/Microsoft.ContainerService/managedClusters/PSTestAKSCluster"


def test_the_how_tos_cluster_id_loses_its_blanks_and_gets_azures_casing() -> None:
    written = (
        "/subscriptions/S/resourcegroups/aksrg /providers/Microsoft.ContainerService/managedclusters/ PSTestAKSCluster "
    )
    found = ArmId.parse(written)
    assert str(found) == CLUSTER
    assert (found.subscription, found.resource_group, found.name) == ("S", "aksrg", "PSTestAKSCluster")
    assert (found.type, found.parent, found.scope) == ("Microsoft.ContainerService/managedClusters", GROUP, "")


def test_ids_that_differ_in_case_are_equal_and_keep_the_callers_names() -> None:
    one, other = ArmId.parse(CLUSTER), ArmId.parse(CLUSTER.upper())
    assert one == other
    assert len({one, other}) == 1
    assert other.name == "PSTESTAKSCLUSTER"
    assert other.type == one.type
    assert ArmId.parse(f"{GROUP}/").text == GROUP


@pytest.mark.parametrize(
    ("text", "kind", "name", "parent", "scope"),
    [
        ("/subscriptions/S", "", "S", "", ""),
        (GROUP, "", "aksrg", "/subscriptions/S", ""),
        (f"{CLUSTER}/trustedAccessRoleBindings/b", "trustedAccessRoleBindings", "b", CLUSTER, ""),
        (
            f"{CLUSTER}/providers/Microsoft.KubernetesConfiguration/extensions/e",
            "Microsoft.KubernetesConfiguration/extensions",
            "e",
            CLUSTER,
            CLUSTER,
        ),
        (
            f"{GROUP}/providers/Microsoft.Storage/storageAccounts/sa/blobServices/default/containers/c",
            "Microsoft.Storage/storageAccounts/blobServices/containers",
            "c",
            f"{GROUP}/providers/Microsoft.Storage/storageAccounts/sa/blobServices/default",
            "",
        ),
        (f"{GROUP}/providers/Microsoft.Authorization/roleAssignments/g", "roleAssignments", "g", GROUP, ""),
        ("/providers/Microsoft.Authorization/roleDefinitions/g", "roleDefinitions", "g", "", ""),
    ],
)
def test_the_parts_of_an_id(text: str, kind: str, name: str, parent: str, scope: str) -> None:
    found = ArmId.parse(text)
    assert (found.text, found.name, found.parent, found.scope) == (text, name, parent, scope)
    assert found.type.endswith(kind)
    assert ArmId.parse(text.lower()).key == found.key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "x",
        "subscriptions/S",
        "/subscriptions",
        "/subscriptions/S//resourceGroups/g",
        "/subscriptions/S/resourceGroups",
        "/subscriptions/S/elsewhere/g",
        f"{GROUP}/providers/Microsoft.X",
        f"{GROUP}/providers/Microsoft.X/t",
        f"{GROUP}/providers/Microsoft.X/t/n/u",
        f"{GROUP}/providers/providers/t/n",
        f"{GROUP}/providers/Microsoft.X/t/..",
        f"{GROUP}/providers/Microsoft.X/t/a?b",
        f"{GROUP}/providers/Microsoft.X/t/a%2Fb",
        f"{GROUP}/providers/Microsoft.X/t/a\0b",
        f"{GROUP}/providers/Microsoft.X/t/\ud800",
        f"{GROUP}/providers/Microsoft.X/t/" + "n" * 261,
        "/subscriptions/S" + "/a/b" * 1000,
    ],
)
def test_what_is_no_id_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(Refused) as caught:
        ArmId.parse(text, target="properties.policyInfo.policyId")
    error = caught.value.error
    assert (error.code, error.target) == ("LinkedInvalidPropertyId", "properties.policyInfo.policyId")
    assert error.message.isascii()


def test_an_id_of_another_type_than_asked_for_is_refused() -> None:
    assert ArmId.parse(GROUP, kind="resourceGroups").name == "aksrg"
    assert ArmId.parse(CLUSTER, kind="microsoft.containerservice/managedclusters").name == "PSTestAKSCluster"
    for text, kind in [(CLUSTER, "resourceGroups"), (GROUP, "Microsoft.DataProtection/backupVaults")]:
        with pytest.raises(Refused, match="not of the type"):
            ArmId.parse(text, kind=kind)


SEGMENT = st.sampled_from(["subscriptions", "resourceGroups", "providers", "a", " b ", "", "..", "\0", "C"])


@given(st.lists(SEGMENT, max_size=12).map("/".join) | st.text(max_size=30))
def test_any_text_is_an_id_or_refused_and_an_id_is_canonical(text: str) -> None:
    try:
        found = ArmId.parse(text)
    except Refused:
        return
    assert ArmId.parse(found.text).text == found.text
    assert found.text.startswith(found.parent)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "backupVaults",
            ["v1", "TestBkpVault", "AKSAzureBackup-westus", "v" * 50],
            ["v", "1v", "v_1", "v" * 51, "v w", ""],
        ),
        ("backupPolicies", ["aksBkpPolicy", "AKSBackupPolicy-Week"], ["ab", "a" * 151, "1ab", "a b c"]),
        ("backupInstances", ["aks1-aks1-0b9bbfba-0000-11ee-0000-000000000000", "a_b-1f"], ["", "a/b", "a.", "x" * 261]),
        (
            "resourceGroups",
            ["testBkpVaultRG", "AKSAzureBackup_westus", "grün", "a.b"],
            ["", "a.", "a b", "a" * 91, "a\n"],
        ),
        ("storageAccounts", ["sa1", "aksbkpwestus123abc"], ["sa", "SA1", "s_a", "a" * 25]),
        ("containers", ["cont", "a-b"], ["-ab", "a--b", "Ab", "ab", "a" * 64]),
        ("managedClusters", ["PSTestAKSCluster", "c", "a_b-c"], ["-a", "a-", "a.b", "a" * 64]),
        ("trustedAccessRoleBindings", ["tarb-0123456789abcdef"], ["", "a_b", "a" * 37]),
        ("extensions", ["azure-aks-backup"], ["", "-a", "a b"]),
        ("roleAssignments", ["0b9bbfba-0000-11ee-0000-000000000000"], ["x", "0b9bbfba000011ee0000000000000000"]),
        ("somethingElse", ["a", "a b"], ["", " ", "a/b", "a.", "\ud800", "a" * 261]),
    ],
)
def test_a_name_has_what_its_type_allows(kind: str, good: list[str], bad: list[str]) -> None:
    for name in good:
        check_name(kind, name)
        check_name(kind.upper(), name)
    for name in bad:
        with pytest.raises(Refused, match="accepted:"):
            check_name(kind, name)


@pytest.mark.parametrize(("text", "region"), [("West US", "westus"), ("local", "local"), ("eu-1", "eu-1")])
def test_a_region_is_kept_as_arm_keeps_it(text: str, region: str) -> None:
    assert check_region(text) == region


@pytest.mark.parametrize("text", ["", "a/b", "a?b", "ü", "x" * 91, ".."])
def test_what_cannot_be_a_segment_of_a_path_is_no_region(text: str) -> None:
    with pytest.raises(Refused) as caught:
        check_region(text)
    assert caught.value.error.target == "location"
