"""The program: one module for each command or group of commands, and what the commands share.

The modules of commands import nothing heavy at their top, so that help and completion are quick. `running`, `progress`
and `screen` do; they are imported when a command runs.
"""
