"""How the parts become programs: which database, which relays, which server, and how they stop."""
