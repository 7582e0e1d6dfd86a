"""EBFlow and other people's flows: one module a library, which alone imports it."""
