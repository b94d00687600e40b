"""Blind user studies of videos: create, serve, store answers, report with confidence intervals.

    create      folders of videos -> a study: a private key and a public site with neutral names
    server      the site and an API for answers
    answers     SQLite, append-only
    statistics  means, intervals, agreement, rank correlations
    report      answers -> statistics and a page

No module loads models, and the server loads neither torch nor a video library.
"""
