"""Flink topologies: sources → functions → sinks, one file per job."""
