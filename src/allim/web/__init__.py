"""What every HTTP route of Allim shares: problems, access, bodies."""
