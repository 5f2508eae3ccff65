"""What other programs tell in their own words: alerts, repositories' events, Apprise's calls."""
