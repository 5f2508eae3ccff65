"""The built-in scheduler: runs named jobs at cron times, once a slot whatever runs beside it."""
