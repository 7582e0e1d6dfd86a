"""All promises of a method, checked by the kit of ebflow-bench."""


def test_conformance(conformance_check):
    conformance_check()
