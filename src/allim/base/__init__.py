"""What everything else stands on: settings, errors, clock, ids, logging, telemetry."""
