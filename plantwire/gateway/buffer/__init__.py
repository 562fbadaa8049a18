"""What is accepted is durable: in Kafka, or in the edge buffer until Kafka has it."""
