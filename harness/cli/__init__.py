"""The program: one module a command, and what the commands share.

Nothing heavy is imported at the top of these modules, so that help and completion are quick.
"""
