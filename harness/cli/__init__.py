"""The program: one module for each command or group of commands, and what the commands share.

Nothing heavy is imported at the top of these modules, so that help and completion are quick.
"""
