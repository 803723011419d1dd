"""Settings of all tests. Machines are shared and slow at times: a deadline an example would fail at random."""

from hypothesis import settings

settings.register_profile("trimtab", deadline=None, print_blob=True)
settings.load_profile("trimtab")
