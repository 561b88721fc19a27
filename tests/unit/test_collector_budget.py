"""Bytes in flight stay within the budget, and whoever waits gets its turn."""

import asyncio

import pytest

from strongroom.dataplane.collector.budget import ByteBudget


async def test_a_reader_waits_until_enough_bytes_are_free() -> None:
    budget = ByteBudget(100)
    await budget.take(60)
    second = asyncio.create_task(budget.take(60))
    await asyncio.sleep(0)
    assert not second.done()
    budget.give(60)
    await second
    assert budget.in_flight == 60


async def test_a_large_reader_is_not_overtaken_by_small_ones() -> None:
    budget = ByteBudget(100)
    await budget.take(50)
    large = asyncio.create_task(budget.take(90))
    await asyncio.sleep(0)
    small = asyncio.create_task(budget.take(10))
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done()
    budget.give(50)
    await asyncio.gather(large, small)
    assert budget.in_flight == 100


async def test_an_answer_larger_than_its_estimate_makes_others_wait() -> None:
    budget = ByteBudget(100)
    await budget.take(10)
    budget.settle(10, 150)
    assert budget.in_flight == 150
    waiting = asyncio.create_task(budget.take(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    budget.give(150)
    await waiting


async def test_more_than_the_whole_budget_is_given_alone() -> None:
    budget = ByteBudget(100)
    await budget.take(1000)
    assert budget.in_flight == 100


async def test_a_reader_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    budget = ByteBudget(100)
    await budget.take(100)
    first, second = asyncio.create_task(budget.take(80)), asyncio.create_task(budget.take(30))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    budget.give(100)
    await second
    assert budget.in_flight == 30


async def test_a_reader_that_is_cancelled_in_its_turn_gives_the_bytes_back() -> None:
    budget = ByteBudget(100)
    await budget.take(100)
    first = asyncio.create_task(budget.take(80))
    await asyncio.sleep(0)
    budget.give(100)  # its turn has come, but it does not run before it is cancelled
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert budget.in_flight == 0
