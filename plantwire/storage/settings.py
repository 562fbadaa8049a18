"""Settings of the storage process; each comes from the environment variable PLANTWIRE_<NAME>.

In: the environment. Out: one frozen `StorageSettings`, built once in `main` and passed down.
Guarantees: a value out of range stops the start with its name; a tier is kept at least as long as the one
below it, and raw samples at least as long as the 1 s tier, which is computed from them.
Not here: settings that other processes read too (`platform.settings`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from plantwire.platform.settings import SharedSettings


class StorageSettings(SharedSettings):
    """What is written how fast, and how long it is kept."""

    # The database's address has a password in it.
    model_config = SettingsConfigDict(hide_input_in_errors=True)

    storage_host: str = Field("127.0.0.1", description="Address of /healthz, /readyz and /metrics.")
    storage_port: int = Field(8082, ge=0, le=65535, description="Their port; 0 takes a free one.")
    storage_group: str = Field(
        "plantwire-storage", min_length=1, description="Kafka consumer group; it remembers what was stored."
    )
    storage_migrate: bool = Field(
        True, description="Bring the database's schema up to date at the start; else only check it."
    )
    storage_batch_ms: int = Field(
        100, ge=1, le=10_000, description="Longest time that frames are gathered for one transaction."
    )
    storage_batch_samples: int = Field(
        50_000, ge=1, le=1_000_000, description="Samples after which a batch is written at once."
    )
    storage_retry_max_s: float = Field(
        10.0, gt=0, le=60, description="Longest wait between two attempts while the database is away."
    )
    storage_keep_raw_days: int = Field(8, ge=0, description="How long raw samples are kept; 0 is for ever.")
    storage_keep_1s_days: int = Field(7, ge=0, description="How long the 1 s tier is kept; 0 is for ever.")
    storage_keep_1m_days: int = Field(30, ge=0, description="How long the 1 min tier is kept; 0 is for ever.")
    storage_keep_1h_days: int = Field(365, ge=0, description="How long the 1 h tier is kept; 0 is for ever.")
    storage_keep_1d_days: int = Field(0, ge=0, description="How long the 1 d tier is kept; 0 is for ever.")
    storage_keep_expired_days: int = Field(
        30, ge=0, description="How long samples that came too late for every tier are kept; 0 is for ever."
    )
    storage_compress_after_hours: int = Field(
        6,
        ge=0,
        description="Age at which raw samples and the 1 s tier go to TimescaleDB's columnstore; 0 is never.",
    )

    @field_validator("database")
    @classmethod
    def _is_an_address(cls, database: str) -> str:
        try:
            conninfo_to_dict(database)
        except psycopg.ProgrammingError:  # its text would quote the address
            raise ValueError("it is no address of a PostgreSQL database") from None
        return database

    @model_validator(mode="after")
    def _each_tier_outlives_the_one_below(self) -> Self:
        kept = (
            ("storage_keep_1s_days", self.storage_keep_1s_days),
            ("storage_keep_1m_days", self.storage_keep_1m_days),
            ("storage_keep_1h_days", self.storage_keep_1h_days),
            ("storage_keep_1d_days", self.storage_keep_1d_days),
        )
        for (lower, short), (upper, long) in pairwise(kept):
            if long and (not short or long < short):
                raise ValueError(f"{upper} must not be shorter than {lower}")
        raw, seconds = self.storage_keep_raw_days, self.storage_keep_1s_days
        if raw and (not seconds or raw < seconds):
            raise ValueError("storage_keep_raw_days must not be shorter than storage_keep_1s_days")
        return self
