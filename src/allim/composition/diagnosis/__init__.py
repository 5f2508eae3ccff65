"""What `allim doctor` looks into."""
