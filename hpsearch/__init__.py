"""hpsearch: hyperparameter search for QLoRA fine-tuning that can be left running."""

__version__ = "0.1.0"
