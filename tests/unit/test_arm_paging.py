"""Pages of lists: their length, the token that goes on, and the link that carries it."""

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.arm.paging import DEFAULT_PAGE, MAX_PAGE, next_link, page_size, read_token, skip_token
from strongroom.protection.errors import Refused

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@given(st.dictionaries(TEXT.filter(lambda name: name != "v"), TEXT, max_size=4))
def test_a_token_gives_back_what_it_was_made_of(position: dict[str, str]) -> None:
    token = skip_token(position)
    assert read_token({"$skiptoken": token}) == position
    assert token.replace("-", "").replace("_", "").isalnum()  # safe in a URL as it is


@pytest.mark.parametrize("query", [{}, {"$skiptoken": ""}, {"$skiptoken": " "}])
def test_no_token_is_the_beginning(query: dict[str, str]) -> None:
    assert read_token(query) is None


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "!!!!",
        "€",
        encoded([]),
        encoded({"id": "a"}),
        encoded({"v": 2, "id": "a"}),
        encoded({"v": 1, "id": 5}),
        encoded({"v": 1, "id": "a\0"}),
        encoded({"v": 1, "id": "\ud800"}),
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        encoded({"v": 1, "id": "a" * 5000}),
    ],
)
def test_a_token_that_is_none_of_ours_is_refused(token: str) -> None:
    with pytest.raises(Refused) as caught:
        read_token({"$skiptoken": token})
    assert (caught.value.error.code, caught.value.error.target) == ("InvalidParameter", "$skipToken")


def test_a_token_that_lacks_what_the_list_goes_by_is_refused_when_it_is_asked_for() -> None:
    token = read_token({"$skiptoken": skip_token({"id": "a"})})
    assert token is not None
    with pytest.raises(Refused):
        token["started"]


@pytest.mark.parametrize(("top", "size"), [("", DEFAULT_PAGE), ("1", 1), (" 7 ", 7), ("999999999", MAX_PAGE)])
def test_top_bounds_a_page(top: str, size: int) -> None:
    assert page_size({"$top": top}) == size
    assert page_size({}) == DEFAULT_PAGE


@pytest.mark.parametrize("top", ["0", "-1", "1.5", "x", "²", "9" * 5000])
def test_a_top_that_is_no_positive_integer_is_refused(top: str) -> None:
    with pytest.raises(Refused) as caught:
        page_size({"$top": top})
    assert caught.value.error.target == "$top"


def test_the_next_link_keeps_every_other_parameter() -> None:
    url = "https://127.0.0.1:8443/subscriptions/S/x?api-version=2026-06-01&$filter=a%20eq%20'b%26c'&$skiptoken=old&e="
    link = next_link(url, "new")
    assert link.startswith("https://127.0.0.1:8443/subscriptions/S/x?")
    assert parse_qs(urlsplit(link).query, keep_blank_values=True) == {
        "api-version": ["2026-06-01"],
        "$filter": ["a eq 'b&c'"],
        "e": [""],
        "$skipToken": ["new"],
    }
