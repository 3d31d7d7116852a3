"""The engine: programs recorded once, compiled, and run many steps at a time."""
