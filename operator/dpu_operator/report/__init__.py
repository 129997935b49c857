"""Tells: status, Events, log lines. The same sentence reaches all of them."""
