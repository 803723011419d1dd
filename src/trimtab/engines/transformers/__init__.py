"""The transformers engine: any device, correctness first. It runs the artifact itself, without a build."""
