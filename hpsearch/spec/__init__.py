"""What a person writes: study files and their mistakes. May import only `errors`."""

from hpsearch.spec.load import StudyFile, load_study
from hpsearch.spec.study import StudySpec

__all__ = ["StudyFile", "StudySpec", "load_study"]
