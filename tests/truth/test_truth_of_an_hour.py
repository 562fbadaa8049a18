"""An hour of ten devices through Kafka and the storage, while each of them is restarted: every row is the
offline one, and stays so when the topic is read again. `test_truth_of_a_day` is its long sibling.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from plantwire.schemas import topics
from plantwire.stack.ports import free_ports
from plantwire.stack.servers.kafka import Kafka
from plantwire.stack.servers.postgres import Postgres
from tests.conftest import running
from tests.integration.gateway.gateway_rig import create_topics
from tests.truth.generated_plant import HOUR, plant
from tests.truth.offline_tables import Offline, offline
from tests.truth.pipeline import killed, restarted, send_all
from tests.truth.storage_groups import Group, in_schema

PER_S = 2_000
THROUGH_S = 60.0


@pytest.fixture(scope="module")
def expected() -> Offline:
    return offline(plant(HOUR, seed=5))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kafka, Group]]:
    """The run with all faults; its process has ended, Kafka and the database are still there."""
    home = tmp_path_factory.mktemp("truth")
    ports = free_ports(3)
    kafka = Kafka(home / "kafka", ports[0], ports[1], home / "kafka.log")
    postgres = Postgres(home / "postgres", ports[2], home / "postgres.log", secrets.token_urlsafe(32))
    with running(kafka), running(postgres):
        create_topics(kafka.bootstrap)
        # In small batches, so that late samples come to seconds that are there already.
        batches = {"PLANTWIRE_STORAGE_BATCH_SAMPLES": "400"}
        group = Group(kafka.bootstrap, postgres.url, "first", home, **batches)
        with running(group.process):
            faults = (killed(group.process), restarted(postgres), restarted(kafka), killed(postgres))
            send_all(kafka.bootstrap, plant(HOUR, seed=5), PER_S, faults)
            group.wait_until_through(THROUGH_S)
        yield kafka, group


def test_every_row_is_the_offline_one(first: tuple[Kafka, Group], expected: Offline) -> None:
    first[1].assert_is(expected)


def test_each_record_that_cannot_be_stored_is_a_dead_letter(
    first: tuple[Kafka, Group], expected: Offline
) -> None:
    """By the places that they had in the topic: after a crash one may be there twice."""
    consumer = Consumer(
        {"bootstrap.servers": first[0].bootstrap, "group.id": "dead", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topics.TELEMETRY_DLQ, 0, 0)])
    places = set()
    while (message := consumer.poll(10)) is not None and message.error() is None:
        places.add(dict(message.headers() or ())[topics.HEADER_SOURCE])
    consumer.close()
    assert message is not None, "the topic was not read to its end"
    assert len(places) == expected.dead > 0


def test_a_second_run_from_the_start_of_the_topic_makes_the_same_tables(
    first: tuple[Kafka, Group], tmp_path: Path
) -> None:
    kafka, group = first
    second = Group(kafka.bootstrap, in_schema(group.database, "second"), "second", tmp_path)
    second.run_through(THROUGH_S)
    assert second.digests() == group.digests()


def test_a_replay_into_the_same_tables_changes_nothing(first: tuple[Kafka, Group], tmp_path: Path) -> None:
    kafka, group = first
    before = group.digests()
    Group(kafka.bootstrap, group.database, "replay", tmp_path).run_through(THROUGH_S)
    assert group.digests() == before
