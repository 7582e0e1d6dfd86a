"""Trained models for use on data: loaded from a file, fitted in a line of Python, or as a scikit-learn estimator."""
