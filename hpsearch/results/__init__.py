"""What to do with a study's outcome: the best parameters, the final training, the evaluation."""
