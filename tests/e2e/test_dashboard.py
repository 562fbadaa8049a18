"""The dashboard in a real browser, against a real distribution process and a real Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from plantwire.distribution.settings import DASHBOARD_FOLDER
from plantwire.platform.live_state import LiveState
from plantwire.schemas.records import AlarmKind
from plantwire.schemas.severity import Severity
from plantwire.stack.ports import free_ports
from tests.builders import ALARM_ID, TOKEN_SECRET, alarm_event, token
from tests.history_tables import make_tables, schema

pytestmark = pytest.mark.browser

# Generous: conditions are awaited, and a test machine may be busy.
DEADLINE_S = 60
BROWSER_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1600,1000",
)
# Nothing listens there.
NO_DATABASE = "postgresql://plantwire@127.0.0.1:9/plantwire"
# A network that lets HTTP through and WebSockets not, and a clock on which a minute's wait is a second.
WITHOUT_WEBSOCKETS = """
    const wait = window.setTimeout;
    window.setTimeout = (call, ms, ...rest) => wait(call, ms > 400 ? ms / 60 : ms, ...rest);
    window.WebSocket = class {
        constructor() {
            wait(() => { this.onerror?.(new Event("error")); this.onclose?.(new Event("close")); });
        }
        close() {}
        send() {}
    };
"""


def first_on_path(*names: str) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)


class Server:
    """The distribution process, on one port over all its lives."""

    def __init__(self, redis_url: str, log_file: Path, database_url: str = NO_DATABASE) -> None:
        self._database_url = database_url
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._redis_url = redis_url
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {
            **os.environ,
            "PLANTWIRE_REDIS": self._redis_url,
            "PLANTWIRE_DATABASE": self._database_url,
            "PLANTWIRE_TOKEN_SECRET": TOKEN_SECRET,
            "PLANTWIRE_DISTRIBUTION_PORT": self.url.rpartition(":")[2],
        }
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "plantwire.distribution"], env=environment, stdout=log, stderr=log
            )
        wait_for(self._ready, "the server is ready")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(DEADLINE_S)
            self._process = None

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False


class Page:
    """The dashboard as a person sees it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str, access: str | None) -> None:
        # By way of an empty page: a change of the fragment alone would load nothing.
        self.driver.get("about:blank")
        self.driver.get(url + "/" + (f"#token={access}" if access else ""))

    def find(self, selector: str) -> WebElement | None:
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found[0] if found else None

    def text(self, selector: str) -> str:
        # By script: an element that is replaced in between is no error.
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.driver.execute_script(script, selector))

    def shown(self, selector: str) -> bool:
        script = "return document.querySelector(arguments[0])?.checkVisibility() ?? false"
        return bool(self.driver.execute_script(script, selector))

    def await_connection(self, state: str) -> None:
        wait_for(lambda: self.find(f'body[data-connection="{state}"]'), f"the connection is {state}")

    def await_alarm(self, alarm_id: str, severity: Severity, state: str) -> WebElement:
        selector = f'[data-alarm-id="{alarm_id}"][data-severity="{severity.name}"][data-state="{state}"]'
        wait_for(lambda: self.find(selector), f"{alarm_id} is {severity.name} and {state}")
        row = self.find(selector)
        assert row is not None
        return row

    def complaints(self) -> list[str]:
        """What the browser logged as an error, but for a server that is away or not ready yet."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")  # type: ignore[no-untyped-call]
            if entry["level"] == "SEVERE"
            and not any(word in entry["message"] for word in ("ERR_CONNECTION", "status of 503"))
        ]


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser, shared by the tests of this file."""
    browser = first_on_path("chromium", "chromium-browser", "google-chrome")
    chromedriver = first_on_path("chromedriver")
    if browser is None or chromedriver is None:
        pytest.skip(
            "Chromium or chromedriver is not installed (Debian: apt install chromium chromium-driver)"
        )
    assert (DASHBOARD_FOLDER / "index.html").is_file(), "the dashboard is not built: run make setup"
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (*BROWSER_ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options=options, service=ChromeService(chromedriver))
    try:
        yield chrome
    finally:
        chrome.quit()


@pytest.fixture
def page(driver: Chrome) -> Iterator[Page]:
    """A page that has to end without an error in the browser's log."""
    one = Page(driver)
    one.complaints()  # those of the test before are not ours
    yield one
    complaints = one.complaints()
    driver.get("about:blank")
    assert complaints == []


@pytest.fixture
def live(redis_url: str) -> Iterator[LiveState]:
    """A writer of the live picture on an emptied Redis."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        writer = LiveState(client)
        writer.mark_alarms_complete()
        yield writer


@pytest.fixture
def server(redis_url: str, live: LiveState, tmp_path: Path) -> Iterator[Server]:
    one = Server(redis_url, tmp_path / "distribution.log")
    one.start()
    yield one
    one.kill()


def test_an_alarm_appears_changes_and_clears(page: Page, server: Server, live: LiveState) -> None:
    page.open(server.url, token())
    page.await_connection("live")
    live.publish_alarm(alarm_event(severity=Severity.HIGH.value, message="press-1 is hot"))

    row = page.await_alarm(ALARM_ID, Severity.HIGH, "active")
    assert "press-1 is hot" in row.text
    assert "limit 100" in row.text
    assert not page.shown("#banner")
    wait_for(lambda: page.text('.count[data-severity="HIGH"] .count-number') == "1", "one HIGH is counted")

    live.publish_alarm(alarm_event(revision=2, kind=AlarmKind.SEVERITY_CHANGED))
    page.await_alarm(ALARM_ID, Severity.CRITICAL, "active")
    wait_for(lambda: page.shown("#banner"), "the banner calls")
    wait_for(lambda: "Critical alarm" in page.text("#announce-now"), "the critical alarm is announced")
    assert page.driver.title == "(1) critical – Plantwire"

    live.publish_alarm(alarm_event(revision=3, kind=AlarmKind.CLEARED, value=95.0))
    page.await_alarm(ALARM_ID, Severity.CRITICAL, "cleared")
    wait_for(lambda: not page.shown("#banner"), "the banner has gone")
    assert page.driver.title == "Plantwire"
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "[data-alarm-id]")) == 1


def test_an_alarm_s_latency_is_shown_by_stage(page: Page, server: Server, live: LiveState) -> None:
    page.open(server.url, token())
    page.await_connection("live")
    stages = ("device", "gateway_in", "gateway_out", "detect_in", "detect_out", "published")
    bar = '.lat-bar[data-severity="CRITICAL"]'
    number = 0

    def has_bar() -> object:
        # An alarm that comes with a snapshot of the state has no latency of its own: then the next one.
        nonlocal number
        number += 1
        now_us = time.time_ns() // 1000
        hops = {f"{name}_us": now_us - 12_000 + 2_000 * index for index, name in enumerate(stages)}
        live.publish_alarm(alarm_event(alarm_id=f"{number:024x}", **hops))
        soon_s = time.monotonic() + 5
        while time.monotonic() < soon_s:
            if page.find(bar):
                return True
        return False

    wait_for(has_bar, "the alarm has its bar")
    rows = page.driver.find_elements(By.CSS_SELECTOR, "#latency-rows tr")
    p50 = {
        row.find_element(By.TAG_NAME, "th").text: row.find_elements(By.TAG_NAME, "td")[0].text for row in rows
    }
    assert [
        p50[name] for name in ("Device → gateway", "Normalisation", "Broker", "Evaluation", "Publish")
    ] == ["2.0"] * 5
    # These depend on the machine; that they were measured does not.
    for name in ("Distribution", "Delivery", "Rendering"):
        assert float(p50[name]) >= 0
    assert float(p50["Whole path"]) >= 12


def test_values_follow_and_a_click_opens_the_trend(page: Page, server: Server, live: LiveState) -> None:
    live.publish_telemetry(
        "press-1", time.time_ns() // 1_000_000 - 1000, {"temperature": 71.5, "mode": "AUTO"}
    )
    page.open(server.url, token())
    page.await_connection("live")
    value = '[data-device-id="press-1"] [data-metric="temperature"] .cell-value'
    wait_for(lambda: page.text(value) == "71.50", "the first value is shown")
    live.publish_telemetry("press-1", time.time_ns() // 1_000_000, {"temperature": 72.25})
    wait_for(lambda: page.text(value) == "72.25", "the value follows")
    assert page.text('[data-device-id="press-1"] [data-metric="mode"] .cell-value') == "AUTO"

    button = page.find('[data-device-id="press-1"] button')
    assert button is not None
    button.send_keys(Keys.ENTER)
    wait_for(lambda: page.shown("#faceplate .uplot canvas"), "the trend is open")
    wait_for(lambda: "71.50 to 72.25" in page.text("#faceplate-note"), "it holds both readings")
    wait_for(
        lambda: "the database does not answer" in page.text("#faceplate-note"), "it says what is missing"
    )
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    wait_for(lambda: not page.shown("#faceplate"), "Escape closes it")
    assert page.driver.switch_to.active_element == button


def test_the_trend_begins_before_the_page_and_is_live(
    page: Page, redis_url: str, database_url: str, live: LiveState, tmp_path: Path
) -> None:
    now_ms = time.time_ns() // 1_000_000
    live.publish_telemetry("press-1", now_ms, {"temperature": 70.0})
    # Ten minutes of seconds, six hours of earlier minutes; values no reading of the page has.
    rows = [(now_ms // 1000 * 1000 - age_s * 1000, 60 + age_s % 20, 1) for age_s in range(5, 600)]
    rows += [(now_ms // 1000 * 1000 - age_s * 1000, 40.0, 2) for age_s in range(3600, 6 * 3600, 60)]
    with schema(database_url) as url:
        make_tables(url)
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO telemetry_1s SELECT 'press-1', 'temperature', to_timestamp(%s / 1000), "
                "%s, %s, %s, %s, %s",
                [(at_ms, value, value - 2, value + 2, value * count, count) for at_ms, value, count in rows],
            )
        server = Server(redis_url, tmp_path / "distribution.log", url)
        server.start()
        try:
            page.open(server.url, token())
            page.await_connection("live")
            wait_for(lambda: page.find('[data-device-id="press-1"] button'), "the device is shown")
            button = page.find('[data-device-id="press-1"] button')
            assert button is not None
            button.click()
            note = "#faceplate-note"
            wait_for(lambda: "58.00 to 81.00 over 9 min" in page.text(note), "the stored minutes are there")
            live.publish_telemetry("press-1", time.time_ns() // 1_000_000, {"temperature": 90.0})
            wait_for(lambda: "58.00 to 90.00" in page.text(note), "its right edge is live")
            page.driver.find_element(By.XPATH, '//*[@id="faceplate-ranges"]/button[text()="8 h"]').click()
            wait_for(lambda: "38.00 to 90.00 over " in page.text(note), "the earlier hours are there")
            assert "each point 30 s" in page.text(note)
            pressed = page.driver.find_elements(By.CSS_SELECTOR, '.range-button[aria-pressed="true"]')
            assert [button.text for button in pressed] == ["8 h"]
        finally:
            server.kill()


def test_the_page_outlives_its_server(page: Page, server: Server, live: LiveState) -> None:
    live.publish_alarm(alarm_event(alarm_id="goes", severity=Severity.LOW.value))
    live.publish_alarm(alarm_event(alarm_id="stays", severity=Severity.LOW.value))
    page.open(server.url, token())
    page.await_connection("live")
    page.await_alarm("goes", Severity.LOW, "active")
    page.await_alarm("stays", Severity.LOW, "active")

    server.kill()
    page.await_connection("reconnecting")
    live.publish_alarm(
        alarm_event(alarm_id="goes", severity=Severity.LOW.value, revision=2, kind=AlarmKind.CLEARED)
    )
    live.publish_alarm(alarm_event(alarm_id="comes"))
    server.start()

    page.await_connection("live")
    page.await_alarm("comes", Severity.CRITICAL, "active")
    page.await_alarm("goes", Severity.LOW, "cleared")
    page.await_alarm("stays", Severity.LOW, "active")
    wait_for(lambda: page.shown("#banner"), "a critical that came meanwhile calls too")


def test_a_network_without_websockets_is_polled(page: Page, server: Server, live: LiveState) -> None:
    live.publish_alarm(alarm_event(severity=Severity.HIGH.value))
    live.publish_telemetry("press-1", time.time_ns() // 1_000_000, {"temperature": 71.5})
    script = page.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": WITHOUT_WEBSOCKETS}
    )
    try:
        page.open(server.url, token())
        page.await_connection("polling")
        page.await_alarm(ALARM_ID, Severity.HIGH, "active")
        live.publish_alarm(alarm_event(severity=Severity.HIGH.value, revision=2, kind=AlarmKind.CLEARED))
        live.publish_telemetry("press-1", time.time_ns() // 1_000_000, {"temperature": 72.25})
        page.await_alarm(ALARM_ID, Severity.HIGH, "cleared")
        value = '[data-device-id="press-1"] [data-metric="temperature"] .cell-value'
        wait_for(lambda: page.text(value) == "72.25", "the value follows")
        server.kill()
        page.await_connection("offline")
        server.start()
        page.await_connection("polling")
    finally:
        page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_the_token_leaves_the_address_and_a_refused_one_asks_for_another(page: Page, server: Server) -> None:
    page.open(server.url, token())
    page.await_connection("live")
    assert page.driver.current_url == f"{server.url}/"
    page.driver.refresh()
    page.await_connection("live")

    page.open(server.url, token(lifetime_s=-60))
    page.await_connection("signed-out")
    wait_for(lambda: page.shown("#login"), "the form is there")
    assert "expired" in page.text("#login-reason")
    field = page.find("#login-token")
    assert field is not None
    field.send_keys("nonsense", Keys.ENTER)
    assert "not a token" in page.text("#login-reason")
    field.clear()
    field.send_keys(token(), Keys.ENTER)
    page.await_connection("live")
    assert not page.shown("#login")
    page.driver.execute_script("sessionStorage.clear()")


def test_a_token_shows_its_own_devices_only(page: Page, server: Server, live: LiveState) -> None:
    page.open(server.url, token("press-1"))
    page.await_connection("live")
    for device in ("press-2", "press-1"):
        live.publish_alarm(alarm_event(alarm_id=device, device_id=device))
        live.publish_telemetry(device, time.time_ns() // 1_000_000, {"temperature": 71.5})
    page.await_alarm("press-1", Severity.CRITICAL, "active")
    wait_for(lambda: page.find('[data-device-id="press-1"]'), "its device is shown")
    assert page.find('[data-alarm-id="press-2"]') is None
    assert page.find('[data-device-id="press-2"]') is None
