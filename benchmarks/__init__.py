"""Measurements of searchlib and, beside it in the same run, of what one would use instead.

    python -m benchmarks                       ingest, queries, memory, disk, recall
    python -m benchmarks.model_quality         how well an encoder retrieves, and how fast it is

See README.md in this folder.
"""
