"""Looking at studies: status tables, the live terminal, the dashboard. Reads the store, writes nothing."""
