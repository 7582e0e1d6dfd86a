"""The commands of the program, a module each, and what they share: options, completion, running, printing.

Nothing heavy is imported at the top of these modules, so that help and completion are quick.
"""
