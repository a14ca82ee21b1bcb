"""Launchers: start workers, nothing else. One file each."""
