"""What holds for every test."""

from hypothesis import settings

# A loaded machine is no defect: how long one example takes says nothing.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
