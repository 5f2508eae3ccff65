"""PostgreSQL: the embedded server, the pool, migrations and named statements."""
