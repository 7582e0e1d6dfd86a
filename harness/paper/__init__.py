"""What the paper (https://arxiv.org/abs/2305.15267) reports, its configurations, and the experiments that answer it."""
