"""Device → Kafka: one file per transport, pure decoding, one forwarder."""
