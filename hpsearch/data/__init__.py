"""Rows: read once, cleaned, split once, and written where trials can read them. No torch here.

source ─► read ─► (token counts from the training plane) ─► split ─► manifest ─► prepared rows
"""
