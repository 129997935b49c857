"""Executes exactly the plan that it is given."""
