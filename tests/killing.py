"""Processes that end as by a kill -9."""

from __future__ import annotations

# The head of a program that kills itself in front of the n-th call of what `killed_at` wraps, n
# being its global `calls`.
KILLED_AT = """
import os, signal

def killed_at(original):
    def call(*args, **options):
        global calls
        calls -= 1
        if calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)
    return call
"""
