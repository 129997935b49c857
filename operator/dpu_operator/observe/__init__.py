"""Reads both clusters into `world.py`. It decides nothing."""
