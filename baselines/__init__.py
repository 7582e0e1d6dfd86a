"""The competitors, one module each; `harness.methods.registry` finds every module in this folder by itself."""
