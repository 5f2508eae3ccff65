"""The event outbox: domain events out of a transaction, to Kafka, SQS or the log, in order."""
