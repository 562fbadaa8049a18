"""A simulated plant that sends telemetry to a gateway as real devices do."""
