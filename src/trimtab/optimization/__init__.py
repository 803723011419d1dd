"""The main job: search, measure, prove, publish."""
