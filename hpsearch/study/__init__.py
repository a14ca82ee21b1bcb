"""A study made ready on this machine: its data prepared, its row in the store, its trials' configs."""
