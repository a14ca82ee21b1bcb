"""What is done with a study's outcome: the best parameters, the final training, the evaluation, exports."""
