"""The rules, live values and live windows of a small site, without a Flink cluster."""
