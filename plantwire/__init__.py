"""Plantwire: real-time telemetry, alarms and commands for industrial plants."""
