"""Device → Kafka: one file per transport, a pure decoder, a forwarder that awaits Kafka."""
