"""The shared protocol: what is asked of a flow, how it is measured, stored and shown.

Importing this package imports neither torch nor any flow library.
"""

__version__ = "0.2.0"
