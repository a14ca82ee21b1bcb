"""Proposing a study: a look at somebody's rows, a few answers, and a commented study file: `hpsearch new`."""
