"""User studies: what people say about videos, asked blind, kept safely, and summed up with its uncertainty.

    create      folders of videos -> a study: a private key and a public site with neutral names
    server      the site and a door for answers
    answers     SQLite, append-only: what a rater was told is saved is saved
    statistics  means, intervals, agreement, rank correlations
    report      answers -> figures and a page

Nothing here loads models, and the server loads neither torch nor a video library.
"""
