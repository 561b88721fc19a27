"""Reading the ARM BackupPolicy document: Azure's own templates pass, every wrong thing is named with its path."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.protection.errors import Refused
from strongroom.protection.policy import Policy, parse_policy
from strongroom.protection.times import parse_instant

Document = dict[str, Any]


def store(kind: str = "OperationalStore") -> Document:
    return {"objectType": "DataStoreInfoBase", "dataStoreType": kind}


def lifecycle(duration: str, kind: str = "OperationalStore", copies: list[Document] | None = None) -> Document:
    return {
        "deleteAfter": {"objectType": "AbsoluteDeleteOption", "duration": duration},
        "sourceDataStore": store(kind),
        "targetDataStoreCopySettings": copies or [],
    }


def retention(name: str, duration: str) -> Document:
    return {
        "objectType": "AzureRetentionRule",
        "name": name,
        "isDefault": name == "Default",
        "lifecycles": [lifecycle(duration)],
    }


def tag(name: str, priority: int, *markers: str) -> Document:
    document: Document = {
        "tagInfo": {"id": f"{name}_", "tagName": name},
        "taggingPriority": priority,
        "isDefault": not markers,
    }
    if markers:
        document["criteria"] = [{"objectType": "ScheduleBasedBackupCriteria", "absoluteCriteria": list(markers)}]
    return document


def powershell_template() -> Document:
    """`Get-AzDataProtectionPolicyTemplate`: every four hours, seven days, the operational store alone."""
    return {
        "objectType": "BackupPolicy",
        "datasourceTypes": ["Microsoft.ContainerService/managedClusters"],
        "policyRules": [
            {
                "objectType": "AzureBackupRule",
                "name": "BackupHourly",
                "backupParameters": {"objectType": "AzureBackupParams", "backupType": "Incremental"},
                "dataStore": store(),
                "trigger": {
                    "objectType": "ScheduleBasedTriggerContext",
                    "schedule": {
                        "repeatingTimeIntervals": ["R/2023-01-04T09:00:00+00:00/PT4H"],
                        "timeZone": "Coordinated Universal Time",
                    },
                    "taggingCriteria": [tag("Default", 99)],
                },
            },
            retention("Default", "P7D"),
        ],
    }


def cli_template() -> Document:
    """`az dataprotection backup-policy get-default-policy-template`: adds a daily tag with a copy to the vault."""
    document = powershell_template()
    document["policyRules"][0]["trigger"]["taggingCriteria"].insert(0, tag("Daily", 25, "FirstOfDay"))
    to_vault = {"copyAfter": {"objectType": "ImmediateCopyOption"}, "dataStore": store("VaultStore")}
    document["policyRules"].append(
        {
            "objectType": "AzureRetentionRule",
            "name": "Daily",
            "isDefault": False,
            "lifecycles": [lifecycle("P7D", copies=[to_vault]), lifecycle("P84D", "VaultStore")],
        }
    )
    return document


def problems_of(document: Document) -> dict[str, str]:
    """Target and message of everything the document is refused for."""
    with pytest.raises(Refused) as caught:
        parse_policy(document)
    error = caught.value.error
    assert error.code == "BMSUserErrorInvalidInput"
    assert caught.value.status == 400
    return {each.target: each.message for each in (error.details or (error,))}


def test_the_template_of_powershell_is_a_policy() -> None:
    policy = parse_policy(powershell_template())
    assert policy.backup_rule.name == "BackupHourly"
    assert policy.schedule.next_after(parse_instant("2026-11-23T00:00:00Z")) == parse_instant("2026-11-23T01:00:00Z")
    assert [(rule.name, rule.operational.days) for rule in policy.retention_rules] == [("Default", 7)]
    assert policy.notes == ()


def test_the_template_of_the_cli_is_a_policy_whose_notes_say_that_nothing_goes_to_a_vault_store() -> None:
    policy = parse_policy(cli_template())
    daily = policy.retention_rule("daily")
    assert daily is not None
    assert daily.copies_to_vault
    assert daily.vault is not None
    assert daily.vault.days == 84
    assert [note.code for note in policy.notes] == ["DppUserErrorVaultTierPolicyNotSupported"] * 2
    assert policy.notes[0].target == "properties.policyRules[2].lifecycles[0].targetDataStoreCopySettings[0]"


def test_a_document_read_twice_gives_equal_policies() -> None:
    assert parse_policy(cli_template()) == parse_policy(copy.deepcopy(cli_template()))


def test_enums_and_object_types_are_read_in_any_casing() -> None:
    document = cli_template()
    document["policyRules"][0]["objectType"] = "azurebackuprule"
    document["policyRules"][0]["dataStore"]["dataStoreType"] = "operationalstore"
    document["datasourceTypes"] = ["microsoft.containerservice/managedclusters"]
    assert parse_policy(document) == parse_policy(cli_template())


def rule(document: Document, number: int = 0) -> Document:
    found: Document = document["policyRules"][number]
    return found


RULES = "properties.policyRules"
TRIGGER = f"{RULES}[0].trigger"

BROKEN: dict[str, tuple[Any, str]] = {
    "no backup rule": (lambda d: d["policyRules"].pop(0), RULES),
    "two backup rules": (
        lambda d: d["policyRules"].append({**copy.deepcopy(rule(d)), "name": "Other"}),
        RULES,
    ),
    "no rules at all": (lambda d: d.pop("policyRules"), RULES),
    "rules of a wrong type": (lambda d: d.update(policyRules={"a": 1}), RULES),
    "a rule that is no object": (lambda d: d["policyRules"].append("x"), f"{RULES}[3]"),
    "a rule of another kind": (lambda d: rule(d, 1).update(objectType="MyRule"), f"{RULES}[1].objectType"),
    "no default retention": (lambda d: rule(d, 1).update(isDefault=False), RULES),
    "two defaults": (lambda d: rule(d, 2).update(isDefault=True), RULES),
    "two rules of one name": (lambda d: rule(d, 2).update(name="DEFAULT"), f"{RULES}[2].name"),
    "another datasource": (
        lambda d: d.update(datasourceTypes=["Microsoft.Compute/disks"]),
        "properties.datasourceTypes",
    ),
    "another document": (lambda d: d.update(objectType="BackupVault"), "properties.objectType"),
    "a start without a date": (
        lambda d: rule(d)["trigger"]["schedule"].update(repeatingTimeIntervals=["R/PT4H"]),
        f"{TRIGGER}.schedule.repeatingTimeIntervals[0]",
    ),
    "an unknown zone": (
        lambda d: rule(d)["trigger"]["schedule"].update(timeZone="Nowhere"),
        f"{TRIGGER}.schedule.timeZone",
    ),
    "a trigger without schedule": (lambda d: rule(d)["trigger"].pop("schedule"), f"{TRIGGER}.schedule"),
    "an on-demand trigger": (
        lambda d: rule(d)["trigger"].update(objectType="AdhocBasedTriggerContext"),
        f"{TRIGGER}.objectType",
    ),
    "backups into a vault store": (
        lambda d: rule(d).update(dataStore=store("VaultStore")),
        f"{RULES}[0].dataStore.dataStoreType",
    ),
    "full backups": (
        lambda d: rule(d)["backupParameters"].update(backupType="Full"),
        f"{RULES}[0].backupParameters.backupType",
    ),
    "a tag without rule": (
        lambda d: rule(d)["trigger"]["taggingCriteria"].append(tag("Yearly", 10, "FirstOfYear")),
        f"{TRIGGER}.taggingCriteria[2].tagInfo.tagName",
    ),
    "a tag twice": (
        lambda d: rule(d)["trigger"]["taggingCriteria"].append(tag("Daily", 10, "FirstOfYear")),
        f"{TRIGGER}.taggingCriteria[2].tagInfo.tagName",
    ),
    "a priority twice": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0].update(taggingPriority=99),
        f"{TRIGGER}.taggingCriteria[1].taggingPriority",
    ),
    "a tag that the default hides": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][1].update(taggingPriority=1),
        f"{TRIGGER}.taggingCriteria",
    ),
    "no default tag": (lambda d: rule(d)["trigger"]["taggingCriteria"].pop(), f"{TRIGGER}.taggingCriteria"),
    "a tag without criteria": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0].pop("criteria"),
        f"{TRIGGER}.taggingCriteria[0].criteria",
    ),
    "criteria without a condition": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0]["criteria"][0].pop("absoluteCriteria"),
        f"{TRIGGER}.taggingCriteria[0].criteria[0]",
    ),
    "an unknown criterion": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0]["criteria"][0].update(absoluteCriteria=["FirstOfHour"]),
        f"{TRIGGER}.taggingCriteria[0].criteria[0].absoluteCriteria[0]",
    ),
    "a day that no month has": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0]["criteria"][0].update(daysOfMonth=[{"date": 32}]),
        f"{TRIGGER}.taggingCriteria[0].criteria[0].daysOfMonth[0].date",
    ),
    "a week of no day": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0]["criteria"][0].update(weeksOfTheMonth=["First"]),
        f"{TRIGGER}.taggingCriteria[0].criteria[0].weeksOfTheMonth",
    ),
    "a time that is none": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0]["criteria"][0].update(scheduleTimes=["noon"]),
        f"{TRIGGER}.taggingCriteria[0].criteria[0].scheduleTimes[0]",
    ),
    "a priority that is no number": (
        lambda d: rule(d)["trigger"]["taggingCriteria"][0].update(taggingPriority="high"),
        f"{TRIGGER}.taggingCriteria[0].taggingPriority",
    ),
    "more than 360 days": (
        lambda d: rule(d, 1)["lifecycles"][0]["deleteAfter"].update(duration="P361D"),
        f"{RULES}[1].lifecycles[0].deleteAfter.duration",
    ),
    "a year, which is more than 360 days": (
        lambda d: rule(d, 1)["lifecycles"][0]["deleteAfter"].update(duration="P1Y"),
        f"{RULES}[1].lifecycles[0].deleteAfter.duration",
    ),
    "retention by the hour": (
        lambda d: rule(d, 1)["lifecycles"][0]["deleteAfter"].update(duration="PT4H"),
        f"{RULES}[1].lifecycles[0].deleteAfter.duration",
    ),
    "no lifecycle": (lambda d: rule(d, 1).update(lifecycles=[]), f"{RULES}[1].lifecycles"),
    "retention of the vault store alone": (
        lambda d: rule(d, 1).update(lifecycles=[lifecycle("P7D", "VaultStore")]),
        f"{RULES}[1].lifecycles",
    ),
    "two lifecycles of one store": (
        lambda d: rule(d, 1)["lifecycles"].append(lifecycle("P8D")),
        f"{RULES}[1].lifecycles[1].sourceDataStore",
    ),
    "a copy into an archive": (
        lambda d: rule(d, 2)["lifecycles"][0]["targetDataStoreCopySettings"][0].update(dataStore=store("ArchiveStore")),
        f"{RULES}[2].lifecycles[0].targetDataStoreCopySettings[0].dataStore.dataStoreType",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_every_wrong_thing_is_refused_at_its_path(what: str) -> None:
    change, target = BROKEN[what]
    document = cli_template()
    change(document)
    assert target in problems_of(document)


def test_all_problems_are_told_together() -> None:
    document = cli_template()
    document["datasourceTypes"] = []
    document["policyRules"][0]["trigger"]["schedule"]["repeatingTimeIntervals"] = ["R/PT4H"]
    document["policyRules"][0]["trigger"]["taggingCriteria"].append(tag("Weekly", 20, "FirstOfWeek"))
    document["policyRules"][1]["lifecycles"][0]["deleteAfter"]["duration"] = "P2Y"
    assert set(problems_of(document)) == {
        "properties.datasourceTypes",
        f"{TRIGGER}.schedule.repeatingTimeIntervals[0]",
        f"{TRIGGER}.taggingCriteria[2].tagInfo.tagName",
        f"{RULES}[1].lifecycles[0].deleteAfter.duration",
    }


def test_a_long_value_is_not_sent_back_whole() -> None:
    document = cli_template()
    document["policyRules"][0]["trigger"]["schedule"]["timeZone"] = "x" * 100_000
    assert all(len(message) < 500 for message in problems_of(document).values())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def paths_of(value: object, prefix: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    found = [prefix] if prefix else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += paths_of(inner, (*prefix, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += paths_of(inner, (*prefix, number))
    return found


PATHS = paths_of(cli_template())


@given(path=st.sampled_from(PATHS), value=json_values)
def test_whatever_stands_in_any_field_is_a_policy_or_is_refused(path: tuple[str | int, ...], value: object) -> None:
    document: Any = cli_template()
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    try:
        policy = parse_policy(document)
    except Refused as refused:
        targets = [each.target for each in (refused.error.details or (refused.error,))]
        assert all(targets)
    else:
        assert isinstance(policy, Policy)
        assert policy.rule_for_adhoc(policy.backup_rule.name) == policy.default_rule


def test_an_on_demand_backup_by_the_backup_rule_gets_the_overriding_tag() -> None:
    policy = parse_policy(cli_template())
    assert policy.rule_for_adhoc("BackupHourly", "Daily").name == "Daily"
    assert policy.rule_for_adhoc("backuphourly", "daily").name == "Daily"
    assert policy.rule_for_adhoc("BackupHourly").name == "Default"


def test_an_on_demand_backup_by_a_retention_rule_gets_that_rule_as_the_how_to_expects() -> None:
    policy = parse_policy(cli_template())
    assert policy.rule_for_adhoc("Default").name == "Default"
    assert policy.rule_for_adhoc("Daily").name == "Daily"
    assert policy.rule_for_adhoc("Default", "Daily").name == "Daily"


@pytest.mark.parametrize(
    ("name", "override", "target", "accepted"),
    [
        ("Weekly", "", "backupRuleOptions.ruleName", "BackupHourly, Default, Daily"),
        ("BackupHourly", "Weekly", "backupRuleOptions.triggerOption.retentionTagOverride", "Default, Daily"),
        ("BackupHourly", "BackupHourly", "backupRuleOptions.triggerOption.retentionTagOverride", "Default, Daily"),
    ],
)
def test_an_unknown_rule_of_an_on_demand_backup_is_refused_with_those_accepted(
    name: str, override: str, target: str, accepted: str
) -> None:
    with pytest.raises(Refused) as caught:
        parse_policy(cli_template()).rule_for_adhoc(name, override)
    assert caught.value.error.target == target
    assert caught.value.error.message.endswith(accepted)
