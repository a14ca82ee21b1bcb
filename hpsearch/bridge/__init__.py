"""The two planes' meeting place: the protocol, the trainer process, and the loop that follows it through a job.

Nothing here knows a store or a study.
"""
