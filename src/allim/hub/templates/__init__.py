"""Templates: stored by code, channel, language and version, rendered when a caller posts."""
