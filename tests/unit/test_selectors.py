import pytest

from strongroom.dataplane.kube.selectors import Operator, SelectorInvalid, parse_selector, parse_selectors

SHOP = {"app": "shop", "tier": "web", "example.com/rank": "5", "empty": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "app",
        "app=shop",
        "app==shop",
        "app = shop , tier = web",
        "tier in (web,api)",
        "tier in ( api , web )",
        "tier notin (api)",
        "other notin (x)",
        "other!=x",
        "!other",
        "! other",
        "empty=",
        "empty in (a,)",
        "empty in (,a)",
        "empty in (a,,b)",
        "empty!=x,app",
        "example.com/rank>4",
        "example.com/rank<6",
        "app,tier,!other",
    ],
)
def test_a_selector_matches_labels_that_fulfil_all_of_it(text: str) -> None:
    assert parse_selector(text).matches(SHOP)


@pytest.mark.parametrize(
    "text",
    [
        "other",
        "app=web",
        "app!=shop",
        "tier in (api)",
        "tier notin (web,api)",
        "other in (a,)",
        "!app",
        "app=shop,tier=api",
        "example.com/rank>5",
        "app>1",
        "other<1",
        "app=",
    ],
)
def test_a_selector_does_not_match_labels_that_break_one_of_its_requirements(text: str) -> None:
    assert not parse_selector(text).matches(SHOP)


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "app,",
        ",app",
        "app=shop tier=web",
        "app in",
        "app in web",
        "app in ()",
        "app in (web",
        "app in (web api)",
        "app===shop",
        "!",
        "!app=shop",
        "=shop",
        "app=a/b",
        "-app",
        "a/b/c",
        "UPPER.example/x",
        "/x",
        "app>high",
        "app=" + "x" * 64,
        "x" * 64,
        "app=sh(op)",
    ],
)
def test_what_the_server_would_refuse_is_refused_with_the_selector_in_the_message(text: str) -> None:
    with pytest.raises(SelectorInvalid) as caught:
        parse_selector(text)
    assert repr(text) in str(caught.value)
    assert caught.value.exit_code == 2


def test_in_and_notin_may_also_be_keys_and_values() -> None:
    assert parse_selector("in in (notin)").matches({"in": "notin"})


def test_several_selectors_are_ored() -> None:
    either = parse_selectors(["app=shop,tier=api", "tier=web"])
    assert either.matches(SHOP)
    assert either.matches({"app": "shop", "tier": "api"})
    assert not either.matches({"app": "shop", "tier": "db"})
    assert not either.everything


def test_without_a_selector_or_with_an_empty_one_everything_is_selected() -> None:
    assert parse_selectors([]).everything
    assert parse_selectors([]).matches({})
    assert parse_selectors(["app=shop", ""]).everything


def test_equality_is_a_set_of_one() -> None:
    (requirement,) = parse_selector("app!=shop").requirements
    assert (requirement.operator, requirement.values) == (Operator.NOT_IN, frozenset({"shop"}))
