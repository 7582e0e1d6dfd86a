"""Competitors, one module each; `harness.methods.registry` finds every module here by itself."""
