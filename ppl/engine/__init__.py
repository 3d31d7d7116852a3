"""Run programs as compiled graphs."""
