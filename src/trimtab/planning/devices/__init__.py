"""What a plan runs on: datasheets, measured profiles, and how much of them is reached."""
