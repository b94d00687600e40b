"""Benchmarks: a protocol on the user's own pictures, run by any method and reported in one table.

create      pictures and a protocol -> BENCH/: references, cases, manifest
run         cases -> videos and their metrics, resumable
report      runs -> a table with intervals, by system and by group
"""
