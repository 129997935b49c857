"""The bench: the operator between two real control planes, measured against the leanest client that does its job.

`python -m tests.bench` brings up the lab, runs `dpu-operator` as a process of its own under its own account, and beside
it the *floor*: a process that does nothing but copy (`floor.py`). Both copy objects of the same content, in namespaces
of their own, past the lab's proxy; ratios are always within one run, because only these survive a change of machine.
"""
