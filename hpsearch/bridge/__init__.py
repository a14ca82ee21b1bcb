"""The two planes' meeting place: the protocol, the trainer process, and the loop that follows it through a job.

May import `folders`, `jobs`, `trial` and `errors`. Nothing here knows a store or a study.
"""
