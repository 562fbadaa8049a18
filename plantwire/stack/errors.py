"""What goes wrong in the stack in a way that a person can put right.

Not here: bugs, which keep their traceback.
"""

from __future__ import annotations


class StackError(Exception):
    """One line that says what is wrong and what to do about it; the command line prints it and exits 1."""
