"""Faults provoked on purpose, many times over, with real processes; each file prints its counts."""
