"""`plan train`: layouts of a training job, their memory and their step time."""
