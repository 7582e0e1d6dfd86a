"""Seconds of an iteration, methods interleaved, with the machine's own rates and memory beside them."""
