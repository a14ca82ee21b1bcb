"""For machines that share no folder: what one machine saves is mirrored to a bucket, and others fetch it from there.

Only this package uses fsspec, and only the control plane uses this package: a trainer holds no secrets and sees only
a local folder.
"""
