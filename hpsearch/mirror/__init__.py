"""Machines that share no folder: what one saves is mirrored to a bucket, and another fetches it from there

Only this room knows fsspec, and only the control plane knows this room: a trainer holds no secret and sees a folder of
its machine.
"""
