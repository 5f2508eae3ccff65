"""Programs that run: see docs/how-to. The tests run them too."""
