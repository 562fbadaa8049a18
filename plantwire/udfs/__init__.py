"""Flink functions: load state, call the domain, save, set a timer, yield."""
