"""The relay of events: the ordered box in PostgreSQL, and what operators do with it."""
