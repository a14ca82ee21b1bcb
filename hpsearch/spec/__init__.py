"""What a person writes: study files and their mistakes."""

from hpsearch.spec.load import StudyFile, dump_study, load_study, study_content
from hpsearch.spec.study import StudySpec

__all__ = ["StudyFile", "StudySpec", "dump_study", "load_study", "study_content"]
