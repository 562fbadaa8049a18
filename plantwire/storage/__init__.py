"""Kafka → database: raw samples, their 1 s tier, and the upkeep of the tiers above it."""
