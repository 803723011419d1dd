"""Engines: make a build of an artifact and run it behind the wire. Engines know token ids, never text."""
