"""Who takes events out: Kafka, SQS, or the log."""
