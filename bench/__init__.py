"""The benchmark harness: `python -m bench --help`; what it measures and how to read it is in README.md."""
