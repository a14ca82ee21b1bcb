"""The door of the dashboard: who may come in, from where, and what they may do. Knows no store and no study."""
