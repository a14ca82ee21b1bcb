"""What a verb and a notebook open alike: the storage folder, the store, a study, a final run, trainers.

Nothing is imported here before it is needed: `hpsearch --help` loads this.
"""
