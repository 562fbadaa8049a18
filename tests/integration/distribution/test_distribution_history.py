"""History over HTTP, from a real database with the tables that the storage process makes."""

from __future__ import annotations

import asyncio
import csv
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from plantwire.platform.live_state import LiveState
from plantwire.stack.ports import free_ports
from tests.builders import token
from tests.history_tables import make_tables, schema, timescale_database
from tests.integration.distribution.conftest import Distribution, wait_for

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1000, 60_000, 3_600_000, 86_400_000
# Samples every 400 ms for 6 min, with a minute's gap, far enough in the past for every bucket to be closed.
START_MS = (int(time.time() * 1000) - 6 * HOUR_MS) // HOUR_MS * HOUR_MS - MINUTE_MS
TIMES_MS = [START_MS + 400 * n for n in range(900) if not 300 <= n < 450]
SAMPLES = [(time_ms, 20 + (n * 7919 % 1000) / 7) for n, time_ms in enumerate(TIMES_MS)]
END_MS = START_MS + 6 * MINUTE_MS

Bucket = tuple[int, float, float, float, float, int]


def buckets(rows: list[Bucket], step_ms: int) -> list[Bucket]:
    """What rows of a finer tier, in the order of time, come to."""
    grouped: dict[int, list[Bucket]] = {}
    for row in rows:
        grouped.setdefault(row[0] // step_ms * step_ms, []).append(row)
    found = []
    for start, inside in grouped.items():
        total, count = sum(row[4] for row in inside), sum(row[5] for row in inside)
        low, high = min(row[2] for row in inside), max(row[3] for row in inside)
        found.append((start, total / count, low, high, total, count))
    return found


RAW: list[Bucket] = [(time_ms, value, value, value, value, 1) for time_ms, value in SAMPLES]
TIERS = {"1s": buckets(RAW, SECOND_MS)}
TIERS["1m"] = buckets(TIERS["1s"], MINUTE_MS)
TIERS["1h"] = buckets(TIERS["1m"], HOUR_MS)
TIERS["1d"] = buckets(TIERS["1h"], DAY_MS)


def moment(time_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=time_ms)


@pytest.fixture(
    scope="module", params=["postgresql", pytest.param("timescaledb", marks=pytest.mark.timescaledb)]
)
def stored(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    """The URL of a database with the samples and their tiers, of either kind."""
    with schema(database_url) if request.param == "postgresql" else timescale_database() as url:
        make_tables(url)
        fill(url, own_tiers=request.param == "postgresql")
        yield url


def fill(url: str, own_tiers: bool) -> None:
    """Store the samples and their seconds; `own_tiers`: the upper tiers too, else they make themselves."""
    noise = [(time_ms + 100, 1e6, None, 0) for time_ms in TIMES_MS[:5]]
    words = [(time_ms + 200, None, "AUTO", 192) for time_ms in TIMES_MS[:5]]
    numbers = [(time_ms, value, None, 192) for time_ms, value in SAMPLES]
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        columns = "device_id, metric, time, number, text, quality"
        with cursor.copy(f"COPY device_telemetry ({columns}) FROM STDIN") as copy:
            for time_ms, number, text, quality in (*noise, *words, *numbers):
                copy.write_row(("press-1", "temperature", moment(time_ms), number, text, quality))
            copy.write_row(("press-2", "temperature", moment(START_MS), 7.5, None, 192))
            copy.write_row(("press-1", "Node Control/Töne", moment(START_MS), 3.5, None, 192))
        for tier, rows in TIERS.items() if own_tiers else [("1s", TIERS["1s"])]:
            with cursor.copy(f"COPY telemetry_{tier} FROM STDIN") as copy:
                for time_ms, *numbers_of_row in rows:
                    copy.write_row(("press-1", "temperature", moment(time_ms), *numbers_of_row))
    if not own_tiers:
        with psycopg.connect(url, autocommit=True) as connection:
            for tier in ("1m", "1h", "1d"):
                connection.execute(f"CALL refresh_continuous_aggregate('telemetry_{tier}', NULL, NULL)")


@pytest.fixture(scope="module")
def reader(redis_url: str, stored: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """A process that has the database."""
    one = Distribution(
        redis_url, tmp_path_factory.mktemp("reader") / "distribution.log", history_page_max="400"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANTWIRE_DATABASE", stored)
        one.start()
    yield one
    one.stop()


def ask(
    distribution: Distribution,
    device: str = "press-1",
    access: str | None = None,
    accept: str = "",
    **query: Any,
) -> httpx.Response:
    query.setdefault("metric", "temperature")
    parameters = {name.rstrip("_"): value for name, value in query.items()}
    headers = {"Authorization": f"Bearer {access or token()}"} | ({"Accept": accept} if accept else {})
    url = f"{distribution.url}/api/devices/{device}/history"
    return httpx.get(url, params=parameters, headers=headers, timeout=30)


def points(answer: httpx.Response) -> list[Bucket]:
    assert answer.status_code == 200, answer.text
    return [tuple(point.values()) for point in answer.json()["points"]]


def all_points(distribution: Distribution, **query: Any) -> list[Bucket]:
    """Every page's points."""
    answer = ask(distribution, **query)
    found = points(answer)
    while (cursor := answer.json()["cursor"]) is not None:
        assert answer.headers["plantwire-cursor"] == cursor
        answer = ask(
            distribution, cursor=cursor, **{k: v for k, v in query.items() if k in {"limit", "metric"}}
        )
        found += points(answer)
    assert "plantwire-cursor" not in answer.headers
    return found


def test_raw_samples_are_the_good_numbers_in_the_order_of_time(reader: Distribution) -> None:
    answer = ask(reader, from_=START_MS, to=START_MS + MINUTE_MS, resolution="raw")
    body = answer.json()
    assert {name: body[name] for name in body if name != "points"} == {
        "deviceId": "press-1",
        "metric": "temperature",
        "resolution": "raw",
        "stepMs": 0,
        "from": START_MS,
        "to": START_MS + MINUTE_MS,
        "cursor": None,
    }
    assert points(answer) == [row for row in RAW if row[0] < START_MS + MINUTE_MS]
    assert body["points"][0].keys() == {"timestamp", "avg", "min", "max", "sum", "count"}


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_s_rows_are_those_stored_in_the_range(reader: Distribution, tier: str) -> None:
    answer = ask(reader, from_=START_MS, to=END_MS, resolution=tier)
    assert points(answer) == TIERS[tier]
    assert (answer.json()["resolution"], answer.headers["plantwire-resolution"]) == (tier, tier)
    assert answer.json()["stepMs"] == int(answer.headers["plantwire-step-ms"])


def test_the_bucket_that_the_range_begins_in_is_part_of_it_the_end_is_not(reader: Distribution) -> None:
    second = TIERS["1s"][10][0]
    answer = ask(reader, from_=second + 1, to=second + 3000, resolution="1s")
    assert [point[0] for point in points(answer)] == [second, second + 1000, second + 2000]
    iso = {"from_": moment(second + 1).isoformat(), "to": moment(second + 3000).isoformat()}
    assert points(ask(reader, resolution="1s", **iso)) == points(answer)


@pytest.mark.parametrize(
    ("most", "tier", "step_ms"),
    [
        (3600, "raw", 0),
        (400, "1s", SECOND_MS),
        (40, "1s", 10 * SECOND_MS),
        (12, "1s", 30 * SECOND_MS),
        (6, "1m", MINUTE_MS),
        (3, "1m", 2 * MINUTE_MS),
        (1, "1m", 10 * MINUTE_MS),
    ],
)
def test_an_automatic_choice_equals_what_its_rows_come_to(
    reader: Distribution, most: int, tier: str, step_ms: int
) -> None:
    from_ms = START_MS + MINUTE_MS
    answer = ask(reader, from_=from_ms, to=END_MS + MINUTE_MS, points=most, limit=400)
    body = answer.json()
    assert (body["resolution"], body["stepMs"]) == (tier, step_ms)
    rows = RAW if tier == "raw" else buckets(TIERS[tier], step_ms)
    expected = [row for row in rows if row[0] >= body["from"]]
    assert all_points(reader, from_=from_ms, to=END_MS + MINUTE_MS, points=most) == expected
    assert len(expected) <= most


@pytest.mark.parametrize("limit", [1, 7, 149, 150, 151, 1000])
@pytest.mark.parametrize("resolution", ["1s", "auto"])
def test_pages_together_are_the_whole(reader: Distribution, resolution: str, limit: int) -> None:
    query = {"from_": START_MS, "to": START_MS + 3 * MINUTE_MS, "resolution": resolution, "points": 100}
    whole = points(ask(reader, **query))
    assert len(whole) in {60, 120}
    if limit > 1 or resolution == "auto":
        assert all_points(reader, limit=limit, **query) == whole
    assert points(ask(reader, limit=limit, **query)) == whole[:limit]


def test_a_page_is_bounded_whatever_the_client_wishes(reader: Distribution) -> None:
    query = {"from_": START_MS, "to": END_MS, "resolution": "raw"}
    assert len(points(ask(reader, limit=10**6, **query))) == 400
    assert all_points(reader, **query) == RAW


def test_formats_carry_the_same_points(reader: Distribution) -> None:
    query = {"from_": START_MS, "to": END_MS, "resolution": "1s"}
    comma = ask(reader, accept="text/csv", **query)
    assert comma.headers["content-type"].startswith("text/csv")
    head, *rows = csv.reader(io.StringIO(comma.text, newline=""))
    assert head == ["timestamp", "avg", "min", "max", "sum", "count"]
    assert [(int(t), *map(float, numbers), int(n)) for t, *numbers, n in rows] == TIERS["1s"]
    assert comma.text == ask(reader, format="csv", **query).text

    arrow = pytest.importorskip("pyarrow", reason="the extra `arrow` is not installed")
    answer = ask(reader, accept="application/vnd.apache.arrow.stream", limit=100, **query)
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    with arrow.ipc.open_stream(answer.content) as stream:
        table = stream.read_all()
    columns = [table.column(0).cast(arrow.int64()), *table.columns[1:]]
    assert list(zip(*(column.to_pylist() for column in columns), strict=True)) == TIERS["1s"][:100]
    assert table.schema.metadata[b"cursor"].decode() == answer.headers["plantwire-cursor"]


def test_devices_and_metrics_are_kept_apart(reader: Distribution) -> None:
    query = {"from_": START_MS, "to": END_MS, "resolution": "raw"}
    assert [point[1] for point in points(ask(reader, "press-2", **query))] == [7.5]
    assert [point[1] for point in points(ask(reader, metric="Node Control/Töne", **query))] == [3.5]
    assert points(ask(reader, metric="temperature' OR '1'='1", **query)) == []
    assert points(ask(reader, "press-3", **query)) == []


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ({"access": token("press-2")}, 403, "forbidden"),
        ({"access": token(lifetime_s=-5)}, 401, "unauthorized"),
        ({"access": "nonsense"}, 401, "unauthorized"),
        ({"device": "*"}, 400, "invalid-parameter"),
        ({"metric": ""}, 400, "invalid-parameter"),
        ({"metric": "a\x00b"}, 400, "invalid-parameter"),
        ({"from_": "5", "to": "4"}, 400, "invalid-parameter"),
        ({"from_": "yesterday"}, 400, "invalid-parameter"),
        ({"resolution": "5s"}, 400, "invalid-parameter"),
        ({"points": "0"}, 400, "invalid-parameter"),
        ({"limit": "0"}, 400, "invalid-parameter"),
        ({"limit": "ten"}, 400, "invalid-parameter"),
        ({"cursor": "1m.7.7.8"}, 400, "invalid-parameter"),
        ({"format": "xlsx"}, 400, "invalid-parameter"),
        ({"accept": "text/html"}, 406, "not-acceptable"),
    ],
)
def test_errors_are_problems(reader: Distribution, query: dict[str, Any], status: int, reason: str) -> None:
    answer = ask(reader, **query)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json()["reason"], answer.json()["status"]) == (reason, status)


def test_a_cursor_opens_no_other_device(reader: Distribution) -> None:
    cursor = ask(reader, from_=START_MS, to=END_MS, resolution="1s", limit=1).json()["cursor"]
    assert ask(reader, "press-1", token("press-2"), cursor=cursor).status_code == 403
    assert points(ask(reader, "press-2", token("press-2"), cursor=cursor)) == []


class Way:
    """A port that leads to the database, or nowhere, as it is told."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.port = free_ports(1)[0]
        self.url = url.replace(f":{parts.port}/", f":{self.port}/")
        self._target = (parts.hostname, parts.port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def open(self) -> None:
        self._do(self._open())

    def cut(self) -> None:
        self._do(self._cut())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, far_writer))
                group.create_task(pump(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # cut off, by either side or by `cut`
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            far_writer.transport.abort()


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.write_eof()


def test_a_database_that_is_away_concerns_history_only_and_is_found_again(
    stored: str,
    live: LiveState,
    start_distribution: Callable[..., Distribution],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    way = Way(stored)
    monkeypatch.setenv("PLANTWIRE_DATABASE", way.url)
    distribution = start_distribution(history_wait_s="0.3")
    query = {"from_": START_MS, "to": END_MS, "resolution": "1m"}

    def is_away() -> None:
        answer = ask(distribution, **query)
        assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        headers = {"Authorization": f"Bearer {token()}"}
        for path in ("/readyz", "/api/alarms", "/api/devices/telemetry/latest"):
            assert httpx.get(distribution.url + path, headers=headers, timeout=10).status_code == 200

    def is_found() -> None:
        # The first answer counts: on a busy machine the next one may have to wait longer than it may.
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answers.append(ask(distribution, **query))
            return answers[-1].status_code == 200

        wait_for(answered)
        assert points(answers[-1]) == TIERS["1m"]

    try:
        is_away()
        way.open()
        is_found()
        way.cut()
        is_away()
        way.open()
        is_found()
    finally:
        way.close()
    requests = "plantwire_distribution_history_requests_total"
    assert distribution.metric(requests, outcome="unavailable") >= 2
    assert distribution.metric(requests, outcome="answered") == 2
    password = urlsplit(stored).password
    assert password
    assert password not in distribution.log()


def test_a_query_that_takes_too_long_ends_and_too_many_are_refused(
    stored: str,
    live: LiveState,
    start_distribution: Callable[..., Distribution],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLANTWIRE_DATABASE", stored)
    settings = {"connections_max": "1", "waiting_max": "1", "wait_s": "20", "statement_timeout_s": "0.5"}
    distribution = start_distribution(**{f"history_{name}": value for name, value in settings.items()})
    query = {"from_": START_MS, "to": END_MS, "resolution": "1s"}
    assert points(ask(distribution, **query)) == TIERS["1s"]
    with psycopg.connect(stored) as connection:
        connection.execute("LOCK TABLE telemetry_1s")
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda _: ask(distribution, **query), range(6)))
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["reason"] for answer in answers} == {"timeout", "busy"}
    assert points(ask(distribution, **query)) == TIERS["1s"]


def test_a_database_without_tables_says_so(
    database_url: str,
    live: LiveState,
    start_distribution: Callable[..., Distribution],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with schema(database_url) as url:
        monkeypatch.setenv("PLANTWIRE_DATABASE", url)
        answer = ask(start_distribution())
        assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
        assert "no tables" in answer.json()["detail"]
