"""Pages of lists: their length, the token that goes on, and the link that carries it."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.controlplane.arm.paging import DEFAULT_PAGE, MAX_PAGE, page_size, read_token, skip_token
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
