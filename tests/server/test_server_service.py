"""The queue, and how events reach their listeners."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from searchlib import Library
from searchlib.errors import InputError
from searchlib.server import ServerSettings, Service
from searchlib.server.events import KEPT, Events
from searchlib.server.problems import Problem
from searchlib.server.service import Busy, Lane

PATIENCE = 30.0


class Gate:
    """Work that goes on only when it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def work(self) -> str:
        self.entered.release()
        assert self.open.wait(PATIENCE)
        return "done"


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.001)


def test_work_is_done_in_the_order_in_which_it_came() -> None:
    async def main() -> list[int]:
        lane = Lane("test", 1, 100)
        done: list[int] = []
        await asyncio.gather(*(lane.run(lambda n=n: done.append(n)) for n in range(50)))
        lane.close()
        return done

    assert asyncio.run(main()) == list(range(50))


def test_as_much_is_worked_on_at_once_as_there_are_threads() -> None:
    async def main() -> None:
        lane = Lane("test", 3, 10)
        gate = Gate()
        tasks = [asyncio.create_task(lane.run(gate.work)) for _ in range(5)]
        await _until(lambda: lane.running == 3 and lane.waiting == 2)
        gate.open.set()
        assert await asyncio.gather(*tasks) == ["done"] * 5
        assert (lane.running, lane.waiting) == (0, 0)
        lane.close()

    asyncio.run(main())


def test_who_finds_the_queue_full_is_sent_away_and_told_when_to_come_again() -> None:
    async def main() -> None:
        lane = Lane("test", 1, 2)
        gate = Gate()
        tasks = [asyncio.create_task(lane.run(gate.work)) for _ in range(3)]
        await _until(lambda: lane.running == 1 and lane.waiting == 2)
        with pytest.raises(Busy) as refusal:
            await lane.run(gate.work)
        assert refusal.value.status_code == 503
        assert int((refusal.value.headers or {})["Retry-After"]) >= 1
        gate.open.set()
        await asyncio.gather(*tasks)
        assert await lane.run(lambda: 7) == 7
        lane.close()

    asyncio.run(main())


def test_without_a_queue_a_free_thread_is_still_given() -> None:
    async def main() -> None:
        lane = Lane("test", 1, 0)
        assert await lane.run(lambda: 1) == 1
        lane.close()

    asyncio.run(main())


def test_who_goes_away_while_waiting_frees_the_place_and_is_not_worked_for() -> None:
    async def main() -> None:
        lane = Lane("test", 1, 1)
        gate = Gate()
        first = asyncio.create_task(lane.run(gate.work))
        await _until(lambda: lane.running == 1)
        worked: list[str] = []
        second = asyncio.create_task(lane.run(lambda: worked.append("second")))
        await _until(lambda: lane.waiting == 1)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert lane.waiting == 0
        third = asyncio.create_task(lane.run(lambda: worked.append("third")))
        gate.open.set()
        await asyncio.gather(first, third)
        assert worked == ["third"]
        lane.close()

    asyncio.run(main())


def test_who_goes_away_while_worked_for_keeps_the_thread_until_its_end() -> None:
    async def main() -> None:
        lane = Lane("test", 1, 1)
        gate = Gate()
        first = asyncio.create_task(lane.run(gate.work))
        await _until(lambda: gate.entered.acquire(blocking=False))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert lane.running == 1
        second = asyncio.create_task(lane.run(lambda: "second"))
        await _until(lambda: lane.waiting == 1)
        gate.open.set()
        assert await second == "second"
        lane.close()

    asyncio.run(main())


def test_an_error_of_the_work_is_the_callers() -> None:
    def fail() -> None:
        raise InputError("no")

    async def main() -> None:
        lane = Lane("test", 1, 1)
        with pytest.raises(InputError):
            await lane.run(fail)
        assert await lane.run(lambda: 1) == 1
        lane.close()

    asyncio.run(main())


def _with_service(
    library: Library, settings: ServerSettings, use: Callable[[Service], Awaitable[None]]
) -> None:
    async def main() -> None:
        service = Service(library, settings)
        await service.start()
        try:
            await use(service)
        finally:
            await service.stop()

    asyncio.run(main())


def test_what_takes_too_long_is_given_up(library: Library) -> None:
    gate = Gate()

    async def use(service: Service) -> None:
        with pytest.raises(Problem) as problem:
            await service.run(gate.work)
        assert problem.value.code == "timed-out"
        gate.open.set()

    _with_service(library, ServerSettings(request_timeout=0.05), use)


def test_a_timeout_of_the_work_itself_is_not_taken_for_the_servers(library: Library) -> None:
    def fail() -> None:
        raise TimeoutError("of a disk")

    async def use(service: Service) -> None:
        with pytest.raises(TimeoutError, match="of a disk"):
            await service.run(fail)

    _with_service(library, ServerSettings(), use)


def test_small_looks_do_not_wait_for_queries(library: Library) -> None:
    gate = Gate()

    async def use(service: Service) -> None:
        query = asyncio.create_task(service.run(gate.work))
        await _until(lambda: gate.entered.acquire(blocking=False))
        assert await service.aside(lambda: "seen") == "seen"
        gate.open.set()
        assert await query == "done"

    _with_service(library, ServerSettings(workers=1), use)


def test_a_service_gets_ready_by_itself_and_takes_nothing_after_its_end(library: Library) -> None:
    async def main() -> None:
        service = Service(library, ServerSettings())
        assert service.unready is not None
        with pytest.raises(Problem, match="being opened"):
            await service.run(lambda: 1)
        await service.start()
        await _until(lambda: service.unready is None)
        await service.stop()
        assert service.unready is not None
        with pytest.raises(Problem, match="being stopped"):
            await service.run(lambda: 1)

    asyncio.run(main())


def test_work_that_outlasts_the_end_is_told_of(library: Library) -> None:
    gate = Gate()

    async def main() -> Service:
        service = Service(library, ServerSettings(shutdown_timeout=0.05))
        await service.start()
        await _until(lambda: service.unready is None)
        task = asyncio.create_task(service.run(gate.work))
        await _until(lambda: gate.entered.acquire(blocking=False))
        await service.stop()
        assert service.running == 1
        gate.open.set()
        assert await task == "done"
        return service

    assert asyncio.run(main()).running == 0


def test_every_listener_hears_what_any_thread_publishes_in_order() -> None:
    async def main() -> None:
        events = Events()
        events.open()
        with events.subscribe() as one, events.subscribe() as other:
            with ThreadPoolExecutor(1) as pool:
                for n in range(20):
                    pool.submit(events.publish, "file", {"count": n})
            for listener in (one, other):
                heard = [(await anext(listener)).data["count"] for _ in range(20)]
                assert heard == list(range(20))
        events.close()

    asyncio.run(main())


def test_a_listener_that_does_not_keep_up_is_told_how_many_it_has_missed() -> None:
    async def main() -> None:
        events = Events()
        events.open()
        with events.subscribe() as listener:
            for n in range(KEPT + 5):
                events.publish("file", {"count": n})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            lost = await anext(listener)
            assert (lost.kind, lost.data) == ("lost", {"count": 5})
            assert (await anext(listener)).data == {"count": 5}

    asyncio.run(main())


def test_a_listener_hears_all_that_was_published_and_then_the_end() -> None:
    async def main() -> list[str]:
        events = Events()
        events.open()
        with events.subscribe() as listener:
            events.publish("file", {})
            events.publish("idle", {})
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            events.close()
            return [event.kind async for event in listener]

    assert asyncio.run(main()) == ["file", "idle"]


def test_who_subscribes_after_the_end_hears_nothing() -> None:
    async def main() -> list[str]:
        events = Events()
        events.open()
        events.close()
        with events.subscribe() as listener:
            return [event.kind async for event in listener]

    assert asyncio.run(main()) == []


def test_publishing_without_a_loop_or_after_it_does_no_harm() -> None:
    events = Events()
    events.publish("file", {})

    async def main() -> None:
        events.open()

    asyncio.run(main())
    with events.subscribe():
        events.publish("file", {})
