"""The worker: claims a trial, has its trainer run it, relays its reports, and stores how it ended.

Only workers write trials to the store, and only a worker talks to its trainer.
"""
