"""Programs that run many times, as one compiled graph."""
