"""The OpenVINO engine. `export`, `weights`, `proof` and `build` need torch and run in the build process only."""
