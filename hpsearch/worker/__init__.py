"""The worker: claims a trial, has its trainer run it, relays its reports, and tells how it ended.

The only writer of the store, and the only one who talks to a trainer.
"""
