"""What crosses a boundary: Avro schemas, frozen records, codecs, topics, the JSON on the wire."""
