"""Competitors, one module each; `harness.registry` finds every module here by itself."""
