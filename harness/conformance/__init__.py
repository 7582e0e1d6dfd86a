"""The conformance kit: what `harness.methods` promises, tested on one method in seconds.

``harness check NAME`` and ``harness check path/to/file.py`` run it;
`harness.conformance.pytest_plugin` runs it under pytest.
"""
