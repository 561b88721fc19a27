"""A backup policy as a value: one backup rule with its schedule and tags, and the retention rules these lead to.

`parse_policy` reads the ARM BackupPolicy document. It refuses what could not be carried out, all problems at once; what
is accepted for the sake of Azure's clients but not carried out stands in `Policy.notes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from strongroom.protection.errors import ErrorCode, Refused, UserError, invalid, refuse_if_any, shown
from strongroom.protection.fields import Fields
from strongroom.protection.retention import OPERATIONAL_LIMIT_DAYS, DataStore, RetentionRule
from strongroom.protection.schedule import DEFAULT_ZONE, Schedule, read_schedule
from strongroom.protection.tagging import (
    AbsoluteMarker,
    BackupCriteria,
    DayOfWeek,
    Month,
    TagCriterion,
    WeekNumber,
    choose_tag,
)
from strongroom.protection.times import (
    CalendarPeriod,
    Instant,
    PlainDateTime,
    Time,
    TimeTextInvalid,
    parse_calendar_period,
    parse_instant,
)

DATASOURCE_TYPE = "Microsoft.ContainerService/managedClusters"
DEFAULT_RULE = "Default"
LAST_DAY = 0  # `isLast` among days of a month

_RULE_NAME_PATH = "backupRuleOptions.ruleName"
_OVERRIDE_PATH = "backupRuleOptions.triggerOption.retentionTagOverride"


class BackupType(StrEnum):
    """The only backup type of Kubernetes clusters (reference section 3.5)."""

    INCREMENTAL = "Incremental"


class _RuleType(StrEnum):
    BACKUP = "AzureBackupRule"
    RETENTION = "AzureRetentionRule"


@dataclass(frozen=True, slots=True)
class BackupRule:
    """When backups are made and which tag each gets; *tagging* holds exactly one default."""

    name: str
    schedule: Schedule
    tagging: tuple[TagCriterion, ...]
    backup_type: BackupType = BackupType.INCREMENTAL


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that can be carried out: every tag of the backup rule has its retention rule.

    *notes* say what of the document was accepted but is not carried out (the vault tier).
    """

    backup_rule: BackupRule
    retention_rules: tuple[RetentionRule, ...]
    notes: tuple[UserError, ...] = ()

    @property
    def schedule(self) -> Schedule:
        """The schedule of the backup rule."""
        return self.backup_rule.schedule

    @property
    def default_rule(self) -> RetentionRule:
        """The retention rule of backups that no other tag matches."""
        return next(rule for rule in self.retention_rules if rule.is_default)

    def retention_rule(self, name: str) -> RetentionRule | None:
        """Return the retention rule of that name, in any casing (the service lower-cases tag names)."""
        return _by_name(self.retention_rules, name)

    def rule_for_slot(self, slot: Instant, latest_success: Instant | None) -> RetentionRule:
        """Return the retention rule of the scheduled backup of *slot*; its name is the backup's tag.

        *latest_success*: the slot of the instance's latest successful scheduled backup before this one, or None.
        """
        tag = choose_tag(self.backup_rule.tagging, self.schedule.zone, slot, latest_success)
        rule = self.retention_rule(tag)
        assert rule is not None, "every tag has its retention rule"
        return rule

    def rule_for_adhoc(self, rule_name: str, tag_override: str = "") -> RetentionRule:
        """Return the retention rule of an on-demand backup.

        *rule_name* is the backup rule, as every recorded client sends, or a retention rule, as the how-to does
        (reference section 2.1 item 6). *tag_override* wins over it; with neither the default rule holds.
        Raises `Refused` naming the rules that would be accepted.
        """
        retention = [rule.name for rule in self.retention_rules]
        rule = self.retention_rule(rule_name)
        if rule is None and rule_name.casefold() != self.backup_rule.name.casefold():
            raise Refused(_unknown_rule(_RULE_NAME_PATH, rule_name, [self.backup_rule.name, *retention]))
        if not tag_override:
            return rule or self.default_rule
        overriding = self.retention_rule(tag_override)
        if overriding is None:
            raise Refused(_unknown_rule(_OVERRIDE_PATH, tag_override, retention))
        return overriding


def parse_policy(properties: Mapping[str, object], path: str = "properties") -> Policy:
    """Return the policy of an ARM BackupPolicy document, the `properties` of a backupPolicies resource at *path*.

    Raises `Refused` (BMSUserErrorInvalidInput) with every problem, each with the JSON path of its field.
    """
    problems: list[UserError] = []
    document = Fields(properties, path, problems)
    document.object_type(["BackupPolicy"])
    _check_datasource_types(document)
    backup_rules: list[_BackupRuleParts] = []
    retention_rules: dict[str, RetentionRule | None] = {}
    notes: list[UserError] = []
    names: set[str] = set()
    for fields in document.children("policyRules"):
        name = fields.text("name")
        if name and name.casefold() in names:
            fields.wrong("name", f"another rule is called {shown(name)} too", "Give every rule a name of its own.")
        names.add(name.casefold())
        match fields.object_type(_RuleType):
            case _RuleType.BACKUP:
                backup_rules.append(_backup_rule(fields, name))
            case _RuleType.RETENTION:
                retention_rules[name] = _retention_rule(fields, name, notes)
            case _:
                continue  # its objectType is noted as a problem
    if len(backup_rules) != 1:
        document.wrong(
            "policyRules",
            f"there are {len(backup_rules)} rules of type {_RuleType.BACKUP}; exactly one is needed",
            f"Keep one {_RuleType.BACKUP}.",
        )
    _check_default(document, retention_rules)
    for parts in backup_rules:
        _check_tags(parts, list(retention_rules))
    refuse_if_any(problems, "The backup policy")
    (parts,) = backup_rules
    assert parts.schedule is not None, "without a problem there is a schedule"
    rules = tuple(rule for rule in retention_rules.values() if rule is not None)
    return Policy(BackupRule(parts.name, parts.schedule, parts.tagging), rules, tuple(notes))


@dataclass(frozen=True, slots=True)
class _BackupRuleParts:
    """What could be read of a backup rule, so that its tags are checked even if its schedule is wrong."""

    fields: Fields
    name: str
    schedule: Schedule | None
    tagging: tuple[TagCriterion, ...]


def _check_datasource_types(document: Fields) -> None:
    types = document.texts("datasourceTypes")
    if [each.casefold() for each in types] != [DATASOURCE_TYPE.casefold()]:
        found = ", ".join(types) or "nothing"
        document.wrong(
            "datasourceTypes",
            f"{found} is not accepted; accepted is {DATASOURCE_TYPE} alone",
            "Only Kubernetes clusters can be protected.",
        )


def _backup_rule(fields: Fields, name: str) -> _BackupRuleParts:
    parameters = fields.child("backupParameters", required=False)
    if parameters is not None:
        parameters.object_type(["AzureBackupParams"])
        parameters.choice("backupType", BackupType)
    _data_store(fields, "dataStore", (DataStore.OPERATIONAL,))
    trigger = fields.child("trigger")
    if trigger is None or not trigger.object_type(
        ["ScheduleBasedTriggerContext"], "Policies of Kubernetes clusters have a schedule."
    ):
        return _BackupRuleParts(fields, name, None, ())
    schedule = None
    if (document := trigger.child("schedule")) is not None:
        intervals = document.texts("repeatingTimeIntervals")
        zone = document.text("timeZone", required=False)
        schedule = read_schedule(intervals, zone, document.path, document.problems)
    return _BackupRuleParts(fields, name, schedule, _tagging(trigger, schedule.zone if schedule else DEFAULT_ZONE))


def _tagging(trigger: Fields, zone: str) -> tuple[TagCriterion, ...]:
    found: list[TagCriterion] = []
    documents = trigger.children("taggingCriteria")
    for fields in documents:
        info = fields.child("tagInfo")
        tag = info.text("tagName") if info is not None else ""
        priority = fields.integer("taggingPriority")
        is_default = fields.flag("isDefault")
        criteria = tuple(_criteria(each, zone) for each in fields.children("criteria"))
        if not is_default and not criteria:
            fields.wrong("criteria", f"the tag {shown(tag)} has no criteria, so no backup would ever get it")
        if any(each.tag.casefold() == tag.casefold() for each in found):
            fields.wrong("tagInfo.tagName", f"the tag {shown(tag)} has criteria already; put them in one list")
        if priority is not None and any(each.priority == priority for each in found):
            fields.wrong("taggingPriority", f"{priority} is taken by another tag; priorities must differ")
        found.append(TagCriterion(tag, priority if priority is not None else 0, is_default, criteria))
    defaults = [each for each in found if each.is_default]
    if len(defaults) != 1:
        trigger.wrong(
            "taggingCriteria",
            f"there are {len(defaults)} criteria with isDefault; exactly one is needed",
            "Set isDefault on the criterion of the tag Default.",
        )
    else:
        behind = [each.tag for each in found if each.priority > defaults[0].priority]
        if behind:
            trigger.wrong(
                "taggingCriteria",
                f"{', '.join(behind)} would never be given: the default tag has the lower priority number "
                f"{defaults[0].priority} and matches every backup",
                "Give the default tag the highest number; Azure's clients use 99.",
            )
    return tuple(found)


def _criteria(fields: Fields, zone: str) -> BackupCriteria:
    fields.object_type(["ScheduleBasedBackupCriteria"])
    days = set()
    for day in fields.children("daysOfMonth"):
        if day.flag("isLast", default=False):
            days.add(LAST_DAY)
            continue
        date = day.integer("date")
        if date is not None and not 1 <= date <= 31:
            day.wrong("date", f"{date} is no day of a month; accepted are 1 to 31, or isLast")
        elif date is not None:
            days.add(date)
    times = {
        time
        for number, text in enumerate(fields.texts("scheduleTimes"))
        if (time := _wall_clock(fields, number, text, zone)) is not None
    }
    criteria = BackupCriteria(
        absolute=frozenset(fields.choices("absoluteCriteria", AbsoluteMarker)),
        days_of_week=frozenset(fields.choices("daysOfTheWeek", DayOfWeek)),
        weeks_of_month=frozenset(fields.choices("weeksOfTheMonth", WeekNumber)),
        months=frozenset(fields.choices("monthsOfYear", Month)),
        days_of_month=frozenset(days),
        schedule_times=frozenset(times),
    )
    if criteria == BackupCriteria() and not any(map(fields.has, _CONDITIONS)):
        fields.wrong("", "no condition is given", f"Give at least one of {', '.join(_CONDITIONS)}.")
    if criteria.weeks_of_month and not criteria.days_of_week:
        fields.wrong("weeksOfTheMonth", "it needs daysOfTheWeek beside it: the first of which day?")
    return criteria


_CONDITIONS = (
    "absoluteCriteria",
    "daysOfTheWeek",
    "weeksOfTheMonth",
    "monthsOfYear",
    "daysOfMonth",
    "scheduleTimes",
)


def _wall_clock(fields: Fields, number: int, text: str, zone: str) -> Time | None:
    """Return the time of day of a `scheduleTimes` entry in *zone*; its date does not matter."""
    try:
        return parse_instant(text).to_tz(zone).time()
    except TimeTextInvalid:
        pass  # without an offset it is a wall-clock time as it stands
    try:
        return PlainDateTime.parse_iso(text).time()
    except ValueError:
        fields.wrong(f"scheduleTimes[{number}]", f"{shown(text)} is not an ISO 8601 date and time")
        return None


def _data_store(fields: Fields, name: str, accepted: Sequence[DataStore]) -> DataStore | None:
    document = fields.child(name)
    if document is None:
        return None
    document.object_type(["DataStoreInfoBase"])
    store = document.choice("dataStoreType", DataStore)
    if store is not None and store not in accepted:
        document.wrong("dataStoreType", f"{store} is not accepted here; accepted: {', '.join(accepted)}")
        return None
    return store


def _retention_rule(fields: Fields, name: str, notes: list[UserError]) -> RetentionRule | None:
    before = len(fields.problems)
    kept: dict[DataStore, CalendarPeriod | None] = {}
    copies = False
    for lifecycle in fields.children("lifecycles"):
        store = _data_store(lifecycle, "sourceDataStore", (DataStore.OPERATIONAL, DataStore.VAULT))
        period = _delete_after(lifecycle, store)
        if store is None:
            continue
        if store in kept:
            lifecycle.wrong("sourceDataStore", f"the rule {shown(name)} has a lifecycle of the {store} already")
        kept[store] = period
        if store is DataStore.VAULT:
            notes.append(_vault_note(lifecycle.path, f"Retention in the vault store by the rule {shown(name)}"))
        for copy in lifecycle.children("targetDataStoreCopySettings"):
            _data_store(copy, "dataStore", (DataStore.VAULT,))
            after = copy.child("copyAfter")
            if after is not None and after.object_type(_COPY_OPTIONS) == "CustomCopyOption":
                _period(after, "duration")
            copies = True
            notes.append(_vault_note(copy.path, f"The copy to the vault store by the rule {shown(name)}"))
    if DataStore.OPERATIONAL not in kept and len(fields.problems) == before:
        fields.wrong(
            "lifecycles",
            f"the rule {shown(name)} does not say how long backups stay in the OperationalStore, where they are made",
            "Add a lifecycle whose sourceDataStore is the OperationalStore.",
        )
    operational = kept.get(DataStore.OPERATIONAL)
    is_default = fields.flag("isDefault", default=name.casefold() == DEFAULT_RULE.casefold())
    if operational is None:
        return None
    return RetentionRule(name, is_default, operational, kept.get(DataStore.VAULT), copies)


_COPY_OPTIONS = ("ImmediateCopyOption", "CopyOnExpiryOption", "CustomCopyOption")


def _delete_after(lifecycle: Fields, store: DataStore | None) -> CalendarPeriod | None:
    option = lifecycle.child("deleteAfter")
    if option is None or not option.object_type(["AbsoluteDeleteOption"]):
        return None
    period = _period(option, "duration")
    if period is not None and store is DataStore.OPERATIONAL and period.longest_days > OPERATIONAL_LIMIT_DAYS:
        option.wrong(
            "duration",
            f"{period.text} can be {period.longest_days} days; the OperationalStore keeps at most "
            f"{OPERATIONAL_LIMIT_DAYS} days",
            f"Use P{OPERATIONAL_LIMIT_DAYS}D or less.",
        )
    return period


def _period(fields: Fields, name: str) -> CalendarPeriod | None:
    text = fields.text(name)
    if not text:
        return None
    try:
        return parse_calendar_period(text)
    except TimeTextInvalid as error:
        fields.wrong(name, str(error))
        return None


def _vault_note(path: str, what: str) -> UserError:
    return UserError(
        str(ErrorCode.VAULT_TIER_NOT_SUPPORTED),
        f"{what} is kept in the policy but not carried out: Strongroom has no vault tier",
        recommended_action=("Rely on the retention in the OperationalStore.",),
        target=path,
    )


def _check_default(document: Fields, rules: Mapping[str, RetentionRule | None]) -> None:
    if None in rules.values():
        return  # the default may be the one whose problems are noted already
    defaults = [rule.name for rule in rules.values() if rule is not None and rule.is_default]
    if [name.casefold() for name in defaults] != [DEFAULT_RULE.casefold()]:
        document.wrong(
            "policyRules",
            f"of the retention rules, {', '.join(defaults) or 'none'} has isDefault; "
            f"exactly one is needed, called {DEFAULT_RULE}",
            f"Add an {_RuleType.RETENTION} named {DEFAULT_RULE} with isDefault true.",
        )


def _check_tags(parts: _BackupRuleParts, rule_names: Sequence[str]) -> None:
    accepted = {name.casefold() for name in rule_names}
    for number, criterion in enumerate(parts.tagging):
        if criterion.tag and criterion.tag.casefold() not in accepted:
            parts.fields.wrong(
                f"trigger.taggingCriteria[{number}].tagInfo.tagName",
                f"the tag {shown(criterion.tag)} has no retention rule; there are {', '.join(rule_names) or 'none'}",
                f"Add an {_RuleType.RETENTION} named {criterion.tag}.",
            )


def _unknown_rule(path: str, found: str, accepted: Sequence[str]) -> UserError:
    return invalid(path, f"the policy has no rule {shown(found)}; accepted are {', '.join(accepted)}")


def _by_name(rules: Sequence[RetentionRule], name: str) -> RetentionRule | None:
    return next((rule for rule in rules if rule.name.casefold() == name.casefold()), None)
